"""A live page of a folder of runs: standard library and NumPy, one HTML file that asks its own origin for data.

Files are read once: what is kept of a run is six columns and the place where its next record will begin.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np

from impl.training.metrics import record_of

CHARTS = ("loss", "perplexity", "tokens_per_second", "peak_memory")
#: Points of a line: about four a pixel of its chart.
POINTS = 2000
_CHUNK = 1 << 23


@contextmanager
def metrics_dashboard(folder: str | Path, *, port: int = 0) -> Iterator[str]:
    """Serve the runs of `folder` on the loopback interface while the context is open; the value is the page's URL."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"folder: {folder} is no folder")
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(_Runs(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Run:
    """The columns of one file, as far as it has been read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.offset, self.lines, self.tail = 0, 0, b""
        self.broken: list[int] = []
        self.torn = False
        self.columns: dict[str, array[Any]] = {
            "step": array("q"),
            "tokens": array("q"),
            **{name: array("d") for name in CHARTS},
        }

    def refresh(self) -> None:
        """Read what was appended; a file that was cut or replaced (a resumed run) is read anew."""
        with self.path.open("rb") as file:
            file.seek(self.offset - len(self.tail))
            if file.read(len(self.tail)) != self.tail:
                self._forget()
                file.seek(0)
            rest = b""
            while chunk := file.read(_CHUNK):
                data = rest + chunk
                whole = data.rfind(b"\n") + 1
                if whole:
                    self._take(data[:whole])
                rest = data[whole:]
            self.torn = bool(rest)

    def _take(self, data: bytes) -> None:
        lines = data.splitlines()
        try:
            records = [_checked(one) for one in json.loads(b"[" + b",".join(lines) + b"]")]
            if len(records) != len(lines):
                raise ValueError("a line holds more than a record")
        except (ValueError, TypeError, KeyError, AttributeError):
            records = []
            for number, line in enumerate(lines, self.lines + 1):
                try:
                    records.append(_checked(record_of(line)))
                except (ValueError, TypeError, KeyError):
                    self.broken.append(number)
        for name, column in self.columns.items():
            column.extend([record[name] for record in records])
        self.offset += len(data)
        self.lines += len(lines)
        self.tail = data[-256:]

    def view(self) -> dict[str, Any]:
        """What the page shows of this run."""
        steps, tokens = (np.array(self.columns[name]) for name in ("step", "tokens"))
        charts, gaps = {}, 0
        for name in CHARTS:
            values = np.array(self.columns[name])
            gaps = max(gaps, int((~np.isfinite(values)).sum()))
            kept = downsample(values, POINTS)
            finite = [value if np.isfinite(value) else None for value in values[kept].tolist()]
            charts[name] = [
                list(point) for point in zip(steps[kept].tolist(), tokens[kept].tolist(), finite, strict=True)
            ]
        notices = []
        if not len(steps):
            notices.append("no records yet")
        if self.torn:
            notices.append("the last line is not whole; it is left out")
        if self.broken:
            notices.append(
                f"no records, left out: line {', '.join(map(str, self.broken[:5]))}{' …' * (len(self.broken) > 5)}"
            )
        if gaps:
            notices.append(f"{gaps} {'record is' if gaps == 1 else 'records are'} not finite: a gap in the line")
        return {"name": self.path.stem, "notices": notices, "charts": charts}


def downsample(values: np.ndarray, points: int) -> np.ndarray:
    """The places of at most about `points` values: of each bucket its minimum, its maximum and, if it has one, a gap.

    The first and the last are always among them; all of them are where there are no more than `points`.
    """
    n = len(values)
    if n <= points:
        return np.arange(n)
    edges = np.linspace(0, n, points // 2 + 1).astype(np.int64)[:-1]
    finite = np.isfinite(values)
    bucket = np.searchsorted(edges, np.arange(n), side="right") - 1
    kept = [np.array([0, n - 1])]
    for sign in (1, -1):
        filled = np.where(finite, sign * values, np.inf)
        least = np.minimum.reduceat(filled, edges)
        hit = np.flatnonzero(finite & (filled == least[bucket]))
        kept.append(hit[np.unique(bucket[hit], return_index=True)[1]])
    gaps = np.flatnonzero(~finite)
    kept.append(gaps[np.unique(bucket[gaps], return_index=True)[1]])
    return np.unique(np.concatenate(kept))


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    if "non_finite" in record:
        record |= {name: float(value) for name, value in record["non_finite"].items()}
    for name in ("step", "tokens"):
        if type(record[name]) is not int or not 0 <= record[name] < 2**63:
            raise TypeError(name)
    for name in CHARTS:
        if not isinstance(record[name], int | float):
            raise TypeError(name)
    return record


class _Runs:
    """Every `*.jsonl` below a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        self.runs: dict[Path, _Run] = {}
        self.answer()

    def answer(self) -> dict[str, Any]:
        with self.lock:
            paths = sorted(self.folder.glob("*.jsonl"))
            self.runs = {path: self.runs.get(path) or _Run(path) for path in paths}
            stamp = hashlib.sha256()
            for path, run in self.runs.items():
                run.refresh()
                stamp.update(repr((path.name, run.offset, run.torn, run.tail)).encode())
            return {"stamp": stamp.hexdigest(), "runs": list(self.runs.values())}


def _handler(runs: _Runs) -> type[BaseHTTPRequestHandler]:
    page = (Path(__file__).parent / "dashboard.html").read_text(encoding="utf-8")
    sources = {
        tag: base64.b64encode(
            hashlib.sha256(re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)[0].encode()).digest()
        ).decode()
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{sources['script']}'; style-src 'sha256-{sources['style']}'"
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            here = cast(tuple[str, int], self.server.server_address)[1]
            if self.headers.get("Host") not in {f"127.0.0.1:{here}", f"localhost:{here}"}:
                return self.send_error(421)  # another site's name that was pointed at this machine
            address = urlsplit(self.path)
            if address.path == "/":
                return self._send(200, page.encode(), "text/html; charset=utf-8")
            if address.path != "/data":
                return self.send_error(404)
            found = runs.answer()
            if parse_qs(address.query).get("have") == [found["stamp"]]:
                return self._send(204, b"", "")
            with runs.lock:
                found["runs"] = [run.view() for run in found["runs"]]
            return self._send(200, json.dumps(found, allow_nan=False).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", policy)
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """The terminal belongs to the training run."""

    return Handler


def main() -> None:
    """`python -m impl.training.dashboard FOLDER`: serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A live page of the runs in a folder of JSON lines.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with metrics_dashboard(options.folder, port=options.port) as url:
        print(url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
