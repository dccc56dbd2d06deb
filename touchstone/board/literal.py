"""Text from outside as literal Markdown, and the few forms that the scoreboard's Markdown is made of."""

from __future__ import annotations

import re

#: A table of proof-line text may be cut here; the page and the catalog have all of it.
CELL = 220


def escape(text: object) -> str:
    """Text from outside as one line of literal Markdown: no markup, no HTML, no cell border."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~$!])", r"\\\1", line).replace("://", ":&#8203;//").replace("@", "&#64;")


def code(text: object) -> str:
    """A name in code style; a backtick or a border inside it is escaped as text instead."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    return escape(line) if not line or re.search(r"[`|]", line) else f"`{line}`"


def cut(text: object, most: int = CELL) -> str:
    """Escaped text of at most `most` letters."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    return escape(line if len(line) <= most else line[: most - 1].rstrip() + "…")


def table(head: list[str], rows: list[list[str]], right: int = 0) -> str:
    """A table; the last `right` columns are figures."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def fold(summary: str, body: str) -> str:
    """A part that opens when its summary, which is HTML, is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def html(text: str) -> str:
    """Text from outside inside a summary."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
