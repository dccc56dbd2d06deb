"""Looking a data set up: folder, cache, network; what is embedded; what a person is told."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import random
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from touchstone.data import datasets, embedded, registry, verified
from touchstone.data.datasets import DataUnavailable
from touchstone.tests.file_server import FileServer, running

BODIES = {f"set/{name}.txt": random.Random(name).randbytes(3_000) for name in "ab"} | {"one.txt": b"Ein Wort\n" * 100}


class Home:
    """A house whose registry points at a local server, with a cache and a data folder of its own."""

    def __init__(self, root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.data = root / "data"
        self.cache = root / "cache"
        self.registry = root / "house" / "spec" / "catalog" / "datasets.toml"
        self.data.mkdir()
        self.registry.parent.mkdir(parents=True)
        entries = ["version = 1"]
        for name, body in BODIES.items():
            server.put(f"/{name}", body)
            entries.append(self.entry(name, body, f'url = "{server.url(f"/{name}")}"', licence=f"licence of {name}"))
        origin = 'no_url = "Kaggle asks for a login"\norigin = "https://example.org/x"\nderived = "cut in half"'
        entries.append(self.entry("unserved.txt", b"x", origin, licence="unclear"))
        entries.append('[dataset.pair]\ntitle = "a pair"\nfiles = ["set/a.txt", "set/b.txt"]')
        entries.append('[dataset.one]\ntitle = "one text"\nfiles = ["one.txt"]')
        entries.append('[dataset.all]\ntitle = "everything"\nfiles = ["set/b.txt", "one.txt"]')
        entries.append('[dataset.unserved]\ntitle = "behind a login"\nfiles = ["unserved.txt"]')
        for name in ("pydoc", "python-stdlib"):
            entries.append(f'[dataset.{name}]\ntitle = "T"\nembedded = "{name}"\nlicence = "PSF-2.0"')
        entries.append(
            '[dataset.iris]\ntitle = "I"\nembedded = "scikit-learn"\nmember = "iris.csv"\nlicence = "CC BY 4.0"'
        )
        entries.append(
            '[dataset.gone]\ntitle = "gone"\nabsent = "too large"\nurl = "https://example.org/g"\nformat = "Parquet"\n'
            'licence = "none stated"\ninstead = "one"'
        )
        self.registry.write_text("\n".join(entries), encoding="utf-8")
        monkeypatch.setenv("TOUCHSTONE_HOUSE", str(root / "house"))
        monkeypatch.setenv("TOUCHSTONE_CACHE", str(self.cache))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("PYTHONPATH", str(Path(datasets.__file__).parents[2]))
        monkeypatch.delenv("TOUCHSTONE_DATA", raising=False)
        monkeypatch.delenv("TOUCHSTONE_OFFLINE", raising=False)
        monkeypatch.setattr(datasets, "_unreached", {})
        monkeypatch.setattr(verified, "_known", {})

    @staticmethod
    def entry(name: str, body: bytes, where: str, licence: str) -> str:
        return (
            f'[[file]]\nname = "{name}"\ndataset = "D"\n{where}\nsha256 = "{hashlib.sha256(body).hexdigest()}"\n'
            f'bytes = {len(body)}\nlicence = "{licence}"\nnon_commercial = {str(name == "set/b.txt").lower()}\n'
            'licence_read = true\nbasis = "copy"'
        )

    def give(self, *names: str) -> None:
        """Put files into the data folder."""
        for name in names:
            (self.data / name).parent.mkdir(parents=True, exist_ok=True)
            (self.data / name).write_bytes(BODIES[name])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with running() as server:
        yield Home(tmp_path, server, monkeypatch)


def test_a_download_lands_in_the_cache_and_is_found_again(home: Home) -> None:
    assert datasets.path("one") == home.cache / "data" / "one.txt"
    assert datasets.path("one").read_bytes() == BODIES["one.txt"]
    assert len(home.server.requests) == 1


def test_the_data_folder_comes_before_the_cache(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.path("one")
    home.give("one.txt")
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    assert datasets.path("one") == home.data / "one.txt"


def test_a_data_set_of_several_files_is_their_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert datasets.path("pair") == home.cache / "data" / "set"
    assert [file.name for file in datasets.files("pair")] == ["a.txt", "b.txt"]
    assert datasets.path("all") == home.cache / "data"
    home.give(*BODIES)
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    assert datasets.path("pair") == home.data / "set"
    assert datasets.path("all") == home.data


def test_files_of_two_places_are_brought_together(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.give("set/a.txt")
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    assert datasets.files("pair") == (home.data / "set" / "a.txt", home.cache / "data" / "set" / "b.txt")
    folder = datasets.path("pair")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.txt": BODIES["set/a.txt"],
        "b.txt": BODIES["set/b.txt"],
    }
    assert [request.path for request in home.server.requests] == ["/set/b.txt"]


@pytest.mark.parametrize(("body", "message"), [(b"short", "has 5 bytes, registered are 900"), (b"x" * 900, "sha256")])
def test_a_wrong_file_in_the_data_folder_is_named_not_replaced(
    home: Home, monkeypatch: pytest.MonkeyPatch, body: bytes, message: str
) -> None:
    (home.data / "one.txt").write_bytes(body)
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    for attempt in (datasets.path, datasets.files):
        with pytest.raises(DataUnavailable, match=message) as caught:
            attempt("one")
        assert str(home.data / "one.txt") in caught.value.detail
    assert not datasets.available("one")
    assert not datasets.available("one").downloadable
    assert (home.data / "one.txt").read_bytes() == body
    assert not home.server.requests


def test_a_wrong_file_in_the_cache_is_fetched_again(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    place = datasets.path("one")
    content = bytearray(place.read_bytes())
    content[400] ^= 1
    place.write_bytes(content)
    assert datasets.path("one").read_bytes() == BODIES["one.txt"]
    assert "sha256" in capsys.readouterr().err
    assert len(home.server.requests) == 2


def test_a_file_is_hashed_once_for_each_change(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.give("one.txt")
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    hashed: list[Path] = []

    def file_sha256(path: Path) -> str:
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(verified, "file_sha256", file_sha256)
    for _ in range(3):
        datasets.path("one")
    assert len(hashed) == 1
    verified._known.clear()  # as another process would begin
    datasets.path("one")
    assert len(hashed) == 1, "the ledger in the cache is read"
    os.utime(home.data / "one.txt", ns=(1, 1))
    datasets.path("one")
    assert len(hashed) == 2
    (home.data / "one.txt").write_bytes(b"x" * len(BODIES["one.txt"]))
    with pytest.raises(DataUnavailable, match="sha256"):
        datasets.path("one")


def test_a_torn_ledger_or_none_only_costs_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.give("one.txt")
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    home.cache.mkdir()
    (home.cache / "verified.jsonl").write_bytes(b'["x", "y"]\n["torn\n\xff\n7\n')
    assert datasets.path("one")
    blocked = home.data / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(blocked))
    verified._known.clear()
    assert datasets.path("one")


def test_a_data_folder_that_is_none_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data / "typo"))
    with pytest.raises(DataUnavailable, match="typo is not a folder"):
        datasets.path("one")
    assert not home.server.requests


def test_offline_never_tries(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHSTONE_OFFLINE", "1")
    with pytest.raises(
        DataUnavailable, match=r"missing: one\.txt .* run `touchstone data one` .* without TOUCHSTONE_OFFLINE"
    ):
        datasets.path("one")
    assert not datasets.available("one").downloadable
    assert not home.server.requests
    monkeypatch.setenv("TOUCHSTONE_OFFLINE", "0")
    assert datasets.path("one")


def test_without_a_network_the_message_says_all(home: Home) -> None:
    home.server.shutdown()
    home.server.server_close()
    with pytest.raises(DataUnavailable) as caught:
        datasets.path("pair")
    error = caught.value
    assert error.need == "data:pair"
    assert error.missing == ("set/a.txt", "set/b.txt")
    for part in (
        "set/a.txt",
        "set/b.txt",
        home.server.url("/set/a.txt"),
        "no network",
        "touchstone data pair",
        "TOUCHSTONE_DATA",
    ):
        assert part in str(error), part


def test_an_unreachable_host_is_not_tried_by_every_test(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.server.shutdown()
    home.server.server_close()
    tried: list[str] = []
    real = datasets.fetch

    def fetch(url: str, *rest: Any, **how: Any) -> None:
        tried.append(url)
        real(url, *rest, **how)

    monkeypatch.setattr(datasets, "fetch", fetch)
    for name in ("one", "one", "pair"):
        with pytest.raises(DataUnavailable, match="no network"):
            datasets.path(name)
    assert len(tried) == 1


def test_a_file_the_server_does_not_have(home: Home) -> None:
    del home.server.served["/set/b.txt"]
    with pytest.raises(DataUnavailable, match=r"/set/b\.txt \(the server answered 404") as caught:
        datasets.path("pair")
    assert caught.value.missing == ("set/b.txt",), "what could be had is kept"


def test_a_file_behind_a_login_says_how_it_was_made(home: Home) -> None:
    with pytest.raises(DataUnavailable, match=r"Kaggle asks for a login.*https://example\.org/x, cut in half"):
        datasets.path("unserved")
    assert not datasets.available("unserved").downloadable


def test_available_never_downloads(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    state = datasets.available("pair")
    assert not state
    assert (state.need, state.downloadable, state.missing) == ("data:pair", True, ("set/a.txt", "set/b.txt"))
    with pytest.raises(DataUnavailable):
        datasets.path("pair", download=False)
    assert not home.server.requests
    home.give("set/a.txt", "set/b.txt")
    monkeypatch.setenv("TOUCHSTONE_DATA", str(home.data))
    assert datasets.available("pair")


def test_an_absent_set_says_what_the_real_one_is(home: Home) -> None:
    with pytest.raises(DataUnavailable, match=r"too large.*https://example\.org/g, Parquet.*is one;"):
        datasets.path("gone")
    assert datasets.available("gone").need == "data:gone"


def test_an_unknown_name_is_told_the_nearest(home: Home) -> None:
    for call in (datasets.path, datasets.files, datasets.available, datasets.text, datasets.hashes):
        with pytest.raises(ValueError, match="got 'piar'; close to it: pair"):
            call("piar")


def test_a_cache_that_cannot_be_written_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = home.data / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(blocked))
    for name in ("one", "pydoc"):
        with pytest.raises(DataUnavailable, match="cannot write"):
            datasets.path(name)


def test_hashes_are_the_registered_ones(home: Home) -> None:
    assert datasets.hashes("pair") == tuple(hashlib.sha256(BODIES[f"set/{name}.txt"]).hexdigest() for name in "ab")
    assert datasets.hashes("pydoc") == (hashlib.sha256(datasets.text("pydoc").encode()).hexdigest(),)
    assert not home.server.requests


def test_text_of_one_file_and_of_none(home: Home) -> None:
    assert datasets.text("one").startswith("Ein Wort\n")
    with pytest.raises(ValueError, match="must be a data set of one text, got 'pair'"):
        datasets.text("pair")


def test_pydoc_is_prose_without_repeats(home: Home) -> None:
    text = datasets.text("pydoc")
    assert len(text) > 200_000
    assert 'The "if" statement is used for conditional execution' in text
    paragraphs = [part for part in text.split("\n\n") if len(part) >= 80]
    assert len(paragraphs) == len(set(paragraphs))
    assert datasets.path("pydoc").read_text(encoding="utf-8") == text


def test_the_standard_library_is_the_same_in_every_process(home: Home) -> None:
    show = "from touchstone.data import datasets; print(datasets.hashes('python-stdlib')[0])"
    other = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    place = datasets.path("python-stdlib")
    assert hashlib.sha256(place.read_bytes()).hexdigest() == other.stdout.strip()


def test_scikit_learns_data_without_importing_it(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "packages" / "sklearn" / "datasets" / "data"
    data.mkdir(parents=True)
    (data.parents[1] / "__init__.py").write_text("raise RuntimeError('imported')")
    (data / "iris.csv").write_bytes(b"5.1,3.5\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    assert datasets.path("iris") == data / "iris.csv"
    assert datasets.hashes("iris") == (hashlib.sha256(b"5.1,3.5\n").hexdigest(),)


def test_without_scikit_learn_the_peer_is_what_is_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    assert datasets.available("iris").need == "peer:scikit-learn"
    with pytest.raises(DataUnavailable, match="pip install scikit-learn"):
        datasets.path("iris")


def test_the_licence_comes_before_the_first_byte(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["pair"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{home.cache / 'data' / 'set'}\n"
    said = err.splitlines()
    assert "licence: licence of set/a.txt" in said[1]
    assert "NON-COMMERCIAL" not in said[1]
    assert "licence of set/b.txt ** NON-COMMERCIAL **" in said[2]
    assert home.server.url("/set/a.txt") in said[3]
    assert "%|" not in err, "no progress bar where nobody looks"


def test_a_terminal_gets_a_progress_bar(home: Home) -> None:
    home.server.served["/one.txt"].pause = 0.05
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", "from touchstone.data.datasets import main; main(['one'])"],
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    out, _ = child.communicate(timeout=60)
    shown = _read_all(ours)
    assert out.decode().strip() == str(home.cache / "data" / "one.txt")
    assert "one.txt:" in shown
    assert "%|" in shown


def test_the_command_prints_paths_and_says_what_is_wrong(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["gone"]) == 1
    assert "registered without files" in capsys.readouterr().err
    assert datasets.main(["piar"]) == 2
    assert "close to it: pair" in capsys.readouterr().err
    assert datasets.main(["one", "pydoc"]) == 0
    assert [Path(line).is_file() for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_the_command_lists_and_shows_licences(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main([]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(listed) == set(registry.load(home.registry).datasets)
    assert "to download, 6000 bytes" in listed["pair"]
    assert "[non-commercial]" in listed["pair"]
    assert "registered without files" in listed["gone"]
    assert "here" in listed["pydoc"]
    assert datasets.main(["--licence", "pair"]) == 0
    assert "** NON-COMMERCIAL **" in capsys.readouterr().out
    assert not home.server.requests


def _read_all(terminal: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # Linux says EIO when the other side is closed, macOS gives no bytes
        while block := os.read(terminal, 65_536):
            shown += block
    os.close(terminal)
    return shown.decode()
