"""The scoreboard: status, records and catalog → Markdown, one HTML page and figures; same input, same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from touchstone.board import figures, history
from touchstone.board.board import build
from touchstone.board.markdown import markdown
from touchstone.board.page import html


def render(
    status: dict[str, Any],
    records: list[dict[str, Any]],
    catalog: list[dict[str, Any]],
    out: Path,
    *,
    holes: dict[str, dict[str, str]] | None = None,
) -> list[Path]:
    """Write `scoreboard.md`, `scoreboard.html` and `figures/*.svg` below `out`; `out/history/` is read for the trend.

    Args:
        status: the object of `touchstone status --json`.
        records: the record lines of the evidence, in any order.
        catalog: the rows as dictionaries (`Row.as_dict`), in the order of the plans.
        out: the folder of the reports; made when it is missing.
        holes: subject → check kind → why that cell of the check matrix is empty (`spec/api/holes.toml`).

    Returns:
        The files written, the page and the Markdown first.

    Raises:
        ValueError: `status` lacks a row of the catalog, or names a state that is none.
    """
    entries, problems = history.read(out / "history")
    board = build(status, records, catalog, holes=holes, history=entries, history_problems=problems)
    written = {out / "scoreboard.html": html(board), out / "scoreboard.md": markdown(board)}
    out.mkdir(parents=True, exist_ok=True)
    for path, content in written.items():
        path.write_text(content, encoding="utf-8")
    return [*written, *figures.write(board, out / "figures")]
