"""Downloads against a real server that cuts, lies, changes its mind, is slow, or is not there."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from touchstone.data import download
from touchstone.data.download import DownloadError, fetch
from touchstone.tests.file_server import FileServer, running

BODY = random.Random(7).randbytes(100_000)
OTHER = random.Random(8).randbytes(100_000)
PAUSES = (0.01, 0.01)
CHILD = """
import sys
from pathlib import Path
from touchstone.data.download import fetch
url, target, work, sha256, size = sys.argv[1:]
fetch(url, Path(target), sha256=sha256, size=int(size), work=Path(work), pauses=(0.01, 0.01))
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Place:
    """A target, a work folder, and a fetch of BODY into them."""

    def __init__(self, root: Path) -> None:
        self.target = root / "data" / "set" / "file.bin"
        self.work = root / "partial"
        self.sha256 = hashlib.sha256(BODY).hexdigest()

    @property
    def part(self) -> Path:
        return self.work / f"{self.sha256}.part"

    def fetch(self, url: str, **how: Any) -> None:
        fetch(
            url, self.target, **{"sha256": self.sha256, "size": len(BODY), "work": self.work, "pauses": PAUSES, **how}
        )

    def start(self, url: str) -> subprocess.Popen[str]:
        values = (url, str(self.target), str(self.work), self.sha256, str(len(BODY)))
        variables = {**os.environ, "PYTHONPATH": str(Path(download.__file__).parents[2])}
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *values], env=variables, text=True, stderr=subprocess.PIPE
        )

    def holds_the_file(self) -> bool:
        """The right bytes are there, and nothing but the lock is left over."""
        left = [path for path in self.work.iterdir() if path.suffix != ".lock"]
        return self.target.read_bytes() == BODY and not left and os.listdir(self.target.parent) == ["file.bin"]


def test_a_file_arrives_in_one_request(server: FileServer, place: Place) -> None:
    server.put("/f", BODY)
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [(r.range, r.status) for r in server.requests] == [(None, 200)]


def test_a_cut_connection_is_resumed_where_it_stopped(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, etag='"one"', cuts=[50_000])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    first, second = server.requests
    assert (second.range, second.if_range, second.status) == ("bytes=50000-", '"one"', 206)
    assert first.sent + second.sent == len(BODY), "no byte is sent twice"


def test_a_date_stands_in_for_a_weak_etag(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, etag='W/"weak"', modified="Sat, 01 Nov 2025 10:00:00 GMT", cuts=[50_000])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert server.requests[1].if_range == "Sat, 01 Nov 2025 10:00:00 GMT"


def test_any_number_of_cuts_is_survived_while_bytes_arrive(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, cuts=[9_000] * 11)
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert len(server.requests) == 12 > len(PAUSES) + 1


def test_without_progress_it_gives_up_and_the_next_call_continues(server: FileServer, place: Place) -> None:
    served = server.put("/f", BODY, cuts=[30_000, 0, 0])
    with pytest.raises(DownloadError, match="3 attempts that brought nothing new; 30000 of 100000 bytes are kept"):
        place.fetch(server.url("/f"))
    assert not place.target.exists()
    assert place.part.read_bytes() == BODY[:30_000]
    assert not served.cuts
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert server.requests[-1].range == "bytes=30000-"


def test_an_empty_answer_again_and_again_is_an_error(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, cuts=[0] * 9)
    with pytest.raises(DownloadError, match="ended at 0 of 100000"):
        place.fetch(server.url("/f"))
    assert len(server.requests) == len(PAUSES) + 1


@pytest.mark.parametrize("at", [0, 50_000, 99_999])
def test_a_wrong_byte_is_refused(server: FileServer, place: Place, at: int) -> None:
    server.put("/f", BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :])
    with pytest.raises(DownloadError, match=f"refused: .* registered is {place.sha256}"):
        place.fetch(server.url("/f"))
    assert not place.target.exists()
    assert not place.part.exists()
    assert len(server.requests) == 1, "the same server would send the same bytes"


def test_a_refused_download_leaves_what_was_there(server: FileServer, place: Place) -> None:
    place.target.parent.mkdir(parents=True)
    place.target.write_bytes(b"an older version")
    server.put("/f", OTHER)
    with pytest.raises(DownloadError, match="refused"):
        place.fetch(server.url("/f"))
    assert place.target.read_bytes() == b"an older version"


def test_a_damaged_part_costs_one_more_download(server: FileServer, place: Place) -> None:
    server.put("/f", BODY)
    place.work.mkdir()
    place.part.write_bytes(OTHER[:40_000])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [r.range for r in server.requests] == ["bytes=40000-", None]


def test_wrong_bytes_and_cuts_together_come_to_an_end(server: FileServer, place: Place) -> None:
    server.put("/f", OTHER, cuts=[50_000, None] * 50)
    with pytest.raises(DownloadError, match="refused"):
        place.fetch(server.url("/f"))
    assert len(server.requests) == 4
    assert not place.target.exists()


@pytest.mark.parametrize("kept", [len(BODY), len(BODY) + 10])
def test_a_part_as_long_as_the_file_is_checked_not_trusted(server: FileServer, place: Place, kept: int) -> None:
    server.put("/f", BODY)
    place.work.mkdir()
    place.part.write_bytes((OTHER + OTHER)[:kept])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()


def test_a_complete_part_needs_no_request(server: FileServer, place: Place) -> None:
    place.work.mkdir()
    place.part.write_bytes(BODY)
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert not server.requests


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_final(server: FileServer, place: Place, status: int) -> None:
    server.put("/f", BODY, statuses=[status] * 9)
    with pytest.raises(DownloadError, match=f"the server answered {status}"):
        place.fetch(server.url("/f"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: FileServer, place: Place, status: int) -> None:
    server.put("/f", BODY, statuses=[status, status])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()


def test_a_server_that_ignores_ranges_sends_all_of_it(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, ranges=False, cuts=[60_000])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [(r.range, r.status, r.sent) for r in server.requests] == [
        (None, 200, 60_000),
        ("bytes=60000-", 200, 100_000),
    ]


def test_a_range_that_begins_elsewhere_is_not_put_behind_the_part(
    server: FileServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def file_sha256(path: Path) -> str:
        hashed.append(path.read_bytes())
        return hashlib.sha256(hashed[-1]).hexdigest()

    monkeypatch.setattr(download, "file_sha256", file_sha256)
    server.put("/f", BODY, from_zero=True, cuts=[50_000])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [(r.range, r.status) for r in server.requests] == [(None, 200), ("bytes=50000-", 206), (None, 200)]
    assert hashed == [BODY], "no mixture was ever complete"


def test_a_file_that_changed_between_attempts_comes_whole(server: FileServer, place: Place) -> None:
    server.put("/f", OTHER, etag='"old"', cuts=[50_000], bodies=[(BODY, '"new"')])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [(r.if_range, r.status) for r in server.requests] == [(None, 200), ('"old"', 200)]


def test_a_change_that_the_server_hides_is_found_by_the_hash(server: FileServer, place: Place) -> None:
    server.put("/f", OTHER, cuts=[50_000], bodies=[(BODY, "")])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [(r.range, r.status) for r in server.requests] == [(None, 200), ("bytes=50000-", 206), (None, 200)]


@pytest.mark.parametrize("body", [BODY + b"more", BODY[:-1], b"<html>please log in</html>"])
def test_another_length_is_refused_before_the_body(server: FileServer, place: Place, body: bytes) -> None:
    server.put("/f", body, pause=0.01)
    with pytest.raises(DownloadError, match=rf"the server has {len(body)} bytes of it, registered are 100000"):
        place.fetch(server.url("/f"))
    assert not place.target.exists()


def test_a_part_beyond_the_end_of_the_servers_file_is_dropped(server: FileServer, place: Place) -> None:
    server.put("/f", BODY[:5], bodies=[(BODY, "")])
    place.work.mkdir()
    place.part.write_bytes(BODY[:10])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert [r.status for r in server.requests] == [416, 200]


def test_an_answer_that_does_not_say_its_length(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, lengths=False, cuts=[10_000])
    place.fetch(server.url("/f"))
    assert place.holds_the_file()


def test_a_slow_server_is_waited_for(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, pause=0.05)
    place.fetch(server.url("/f"), timeout=5)
    assert place.holds_the_file()
    assert len(server.requests) == 1


def test_a_server_that_stops_sending_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DownloadError, match=r"3 attempts|timed out"):
        place.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/f", timeout=0.1)
    assert not place.target.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_the_first_bytes_of_a_longer_file(server: FileServer, place: Place, ranges: bool) -> None:
    server.put("/f", BODY + OTHER, ranges=ranges, cuts=[50_000])
    place.fetch(server.url("/f"), first_bytes=True)
    assert place.holds_the_file()
    assert [r.range for r in server.requests] == ["bytes=0-99999", "bytes=50000-99999"]


def test_two_processes_at_once_download_once(server: FileServer, place: Place) -> None:
    server.put("/f", BODY, pause=0.2)
    first = place.start(server.url("/f"))
    _until(lambda: server.requests)
    second = place.start(server.url("/f"))
    told = [child.communicate(timeout=60)[1] for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], told
    assert "waiting for another process to fetch file.bin" in told[1]
    assert place.holds_the_file()
    assert [r.sent for r in server.requests] == [len(BODY)]


def test_a_killed_download_is_continued(server: FileServer, place: Place) -> None:
    served = server.put("/f", BODY, pause=0.3)
    child = place.start(server.url("/f"))
    _until(lambda: place.part.exists() and place.part.stat().st_size >= 20_000)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = place.part.stat().st_size
    assert not place.target.exists()
    served.pause = 0.0
    place.fetch(server.url("/f"))
    assert place.holds_the_file()
    assert server.requests[-1].range == f"bytes={kept}-"


def test_a_disk_without_room_is_named_before_the_request(
    server: FileServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/f", BODY)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 99_999))
    with pytest.raises(DownloadError, match=r"the disk is full: 100000 bytes are missing, .* has room for 99999"):
        place.fetch(server.url("/f"))
    assert not server.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_on_the_way_is_named(server: FileServer, place: Place) -> None:
    server.put("/f", BODY)
    place.work.mkdir()
    place.part.symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="the disk is full") as caught:
        place.fetch(server.url("/f"))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert not place.target.exists()


def test_no_server_is_said_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match="no network: ") as caught:
        place.fetch(f"http://127.0.0.1:{port}/f")
    assert caught.value.offline


def test_bytes_are_on_the_disk_before_the_name_is(
    server: FileServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/f", BODY)
    order: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        order.append("fsync")
        real_fsync(handle)

    def replace(source: Path, target: Path) -> None:
        order.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    place.fetch(server.url("/f"))
    assert order == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/f", "f"])
def test_only_http_is_fetched(place: Place, url: str) -> None:
    with pytest.raises(ValueError, match=r"url must begin with http:// or https://"):
        place.fetch(url)


def _until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)
