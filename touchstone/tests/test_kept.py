"""What is kept between processes: it counts for the bytes it was made from, and nothing that happens to it matters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from touchstone.runs.kept import Kept


def test_kept_for_these_bytes_of_this_file_and_this_maker(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "one.py", tmp_path / "b" / "one.py"
    for file in (one, other):
        file.parent.mkdir()
        file.write_text("x = 1")
    kept = Kept(tmp_path / "kept", "first")
    assert kept.read(one) is None
    kept.write(one, b"found")
    kept.write(other, b"")
    assert (kept.read(one), kept.read(other)) == (b"found", b"")
    assert Kept(tmp_path / "kept", "first").read(one) == b"found"
    assert Kept(tmp_path / "kept", "second").read(one) is None
    one.write_text("x = 2")
    assert kept.read(one) is None
    kept.write(one, b"anew")
    one.write_text("x = 1")
    assert kept.read(one) is None, "one entry a file: the folder does not grow with every edit"
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_what_is_torn_or_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("x = 1")
    kept = Kept(tmp_path / "kept")
    kept.write(file, b"found")
    (entry,) = (tmp_path / "kept").iterdir()
    entry.write_bytes(entry.read_bytes()[:20])
    assert kept.read(file) is None
    (tmp_path / "taken").write_text("a file where the folder would be")
    blocked = Kept(tmp_path / "taken")
    blocked.write(file, b"found")
    assert blocked.read(file) is None


ASSERTION = "def test_sum():\n    total = 1 + 1\n    assert total == 3\n"


def entries(toy):
    folder = toy.root / ".touchstone" / "rewritten"
    return {path.name.rsplit("-", 1)[0]: path for path in folder.glob("*.bin")} if folder.is_dir() else {}


def test_rewritten_tests_are_read_back_where_no_bytecode_is_written(toy):
    toy.write("spec/sprint1/test_sum.py", ASSERTION)
    first = toy.pytest("spec")
    entry = entries(toy)["test_sum"]
    stamp = entry.stat().st_ino
    again = toy.pytest("spec")
    for done in (first, again):
        assert "assert 2 == 3" in done.stdout, "pytest shows the values, from the kept code too"
        assert "1 failed, 5 passed" in done.stdout
    assert entry.stat().st_ino == stamp, "nothing was written a second time"
    assert not list(toy.root.glob("spec/**/*.pyc"))
    toy.edit("spec/sprint1/test_sum.py", "1 + 1", "1 + 2")
    assert "6 passed" in toy.pytest("spec").stdout
    assert entry.stat().st_ino != stamp
    content = entry.read_bytes()
    for torn in (content[:40], content[:-30], content[:32] + b"rubbish"):
        entry.write_bytes(torn)
        assert "6 passed" in toy.pytest("spec").stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_bytecode_beside_the_tests_needs_no_second_copy(toy, monkeypatch, workers):
    plain = toy.environment
    monkeypatch.setattr(toy, "environment", lambda: plain() | {"PYTHONDONTWRITEBYTECODE": ""})
    assert toy.pytest("spec", *workers).returncode == 0
    assert not entries(toy)
    assert list(toy.root.glob("spec/sprint1/__pycache__/test_twice*pytest*.pyc"))


def test_imports_are_kept_and_evidence_still_sees_a_change(toy):
    toy.pytest("spec")
    kept = {path.name.rsplit("-", 1)[0] for path in (toy.root / ".touchstone" / "imports").iterdir()}
    assert {"test_twice", "nn"} <= kept
    toy.write("impl/more.py", "FACTOR = 3\n")
    toy.edit("impl/nn.py", "def twice", "from impl.more import FACTOR\n\n\ndef twice")
    toy.pytest("spec")
    thrice = [one for one in toy.records() if one["type"] == "test" and one["test"].endswith("three_times")]
    assert ["impl/more.py" in one["content"]["files"] for one in thrice] == [False, True]


def test_each_test_begins_from_its_own_seed_and_leaves_the_switches(toy):
    toy.write(
        "spec/sprint1/test_state.py",
        """
        import torch


        def test_switches_are_turned(record):
            record("drawn", torch.randn(()).item())
            torch.use_deterministic_algorithms(True)
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)


        def test_switches_are_back(record):
            record("drawn", torch.randn(()).item())
            assert not torch.are_deterministic_algorithms_enabled()
            assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
        """,
    )
    drawn = []
    for _ in range(2):
        assert toy.pytest("spec/sprint1/test_state.py").returncode == 0
        last = [one for one in toy.records() if one["type"] == "test"][-2:]
        drawn.append({one["test"]: one["figures"][0]["value"] for one in last})
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0].values())) == 2


def test_no_folder_is_made_where_nothing_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("")
    assert Kept(tmp_path / "kept").read(file) is None
    assert os.listdir(tmp_path) == ["one.py"]
