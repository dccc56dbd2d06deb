"""A real HTTP server on 127.0.0.1 that misbehaves as told: cuts connections, ignores ranges, changes files, is slow."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """A file and how it is served. `cuts`, `statuses` and `bodies` are used up, one a request."""

    body: bytes
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    from_zero: bool = False  # whether every range that is asked for is answered from the first byte on
    lengths: bool = True  # whether the answer says how long it is
    pause: float = 0.0  # seconds before each of ten blocks
    cuts: list[int | None] = field(default_factory=list)  # bytes of an answer after which the connection is closed
    statuses: list[int] = field(default_factory=list)
    bodies: list[tuple[bytes, str]] = field(default_factory=list)  # from the second request on: (body, etag)


@dataclass
class Request:
    path: str
    range: str | None
    if_range: str | None
    status: int = 0
    sent: int = 0  # bytes of the body


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.served: dict[str, Served] = {}
        self.requests: list[Request] = []

    def put(self, path: str, body: bytes, **how: Any) -> Served:
        self.served[path] = Served(body, **how)
        return self.served[path]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        note = Request(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.server.requests.append(note)
        self.close_connection = True
        file = self.server.served.get(self.path)
        note.status = 404 if file is None else file.statuses.pop(0) if file.statuses else 200
        if file is None or note.status != 200:
            self.send_error(note.status)
            return
        body, etag = file.body, file.etag
        if file.bodies:
            file.body, file.etag = file.bodies.pop(0)
        start, stop = 0, len(body)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", note.range or "")
        unchanged = note.if_range is None or note.if_range in {etag, file.modified}
        if asked and file.ranges and unchanged:
            start = 0 if file.from_zero else int(asked[1])
            stop = min(stop, int(asked[2]) + 1) if asked[2] else stop
            if start >= len(body):
                note.status = 416
                self.send_error(416)
                return
            note.status = 206
        self.send_response(note.status)
        if note.status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
        if file.lengths:
            self.send_header("Content-Length", str(stop - start))
        if etag:
            self.send_header("ETag", etag)
        if file.modified:
            self.send_header("Last-Modified", file.modified)
        self.end_headers()
        self._send(note, body[start:stop], file.cuts.pop(0) if file.cuts else None, file.pause)

    def _send(self, note: Request, content: bytes, cut: int | None, pause: float) -> None:
        content = content[:cut]
        step = max(1, -(-len(content) // 10))
        for at in range(0, len(content), step):
            time.sleep(pause)
            self.wfile.write(content[at : at + step])
            note.sent += len(content[at : at + step])

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def running() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
