"""The plugin on a small house: outcomes, selection, records, watched workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

PARITY = "sprints/day001/twice#parity"
THRICE = "sprints/day004/thrice#parity"


def counts(done):
    """The closing line of pytest: {'passed': 4, 'todo': 1}."""
    found = re.findall(r"^(?:=+ )?((?:\d+ [a-z ]+(?:, )?)+) in [\d.]+s", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {part.split(" ", 1)[1]: int(part.split(" ", 1)[0]) for part in found[-1].split(", ")}


def test_green_run_and_its_states(toy):
    done = toy.pytest("spec")
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(done) == {"passed": 5, "not measured": 1}
    assert toy.states() == {
        PARITY: "proven",
        "sprints/day001/twice#property": "proven",
        "sprints/day001/twice#robustness": "proven",
        THRICE: "proven",
        "sprints/day004/thrice#budget": "not_measured",
    }
    rows = toy.status()["rows"]
    assert rows["sprints/day001/twice"]["state"] == "proven"
    assert rows["sprints/day004/thrice"]["state"] == "not_measured"
    assert rows["sprints/day004/thrice"]["reason"].startswith("gpu")


def test_require_gpu_fails_what_only_needs_a_gpu(toy):
    done = toy.pytest("spec", "--require-gpu")
    assert done.returncode == 1
    assert counts(done) == {"passed": 5, "error": 1}  # pytest calls what fails in set-up an error


def test_a_stub_is_todo_and_only_itself(toy):
    toy.edit("impl/nn.py", "return 3 * x", 'raise NotImplementedError("thrice")')
    assert counts(toy.pytest("spec")) == {"passed": 4, "todo": 1, "not measured": 1}
    assert toy.states()[THRICE] == "todo"
    failed = toy.pytest("spec", "--todo-fails")
    assert failed.returncode == 1 and counts(failed) == {"failed": 1, "passed": 4, "not measured": 1}


@pytest.mark.parametrize(
    "body",
    [
        "return helper(x)\n\n\ndef helper(x):\n    raise NotImplementedError",  # deeper inside
        "import torch\n    return torch.empty(1, device='meta').item() * x",  # torch's own NotImplementedError
        "import missing_package_of_mine",  # an import error in the user's code
    ],
)
def test_what_breaks_inside_is_a_failure_not_a_todo(toy, body):
    toy.edit("impl/nn.py", "return 3 * x", body)
    assert toy.pytest("spec/sprint1").returncode == 1
    assert toy.states()[THRICE] == "failing"


def test_a_module_without_forward_is_a_stub(toy):
    toy.write(
        "impl/nn.py",
        """
        import torch


        class thrice(torch.nn.Module):
            pass


        def twice(x, *, offset=0.0):
            return 2 * x
        """,
    )
    toy.write(
        "spec/sprint1/test_thrice.py",
        """
        from touchstone import proves, subject


        @subject("nn.thrice")
        @proves("sprints/day004/thrice#parity")
        def test_forward(impl):
            assert impl.nn.thrice()(1.0) == 3.0
        """,
    )
    toy.pytest("spec/sprint1/test_thrice.py")
    assert toy.states()[THRICE] == "todo"


def test_stubs_under_hypothesis_and_in_fixtures_are_todo(toy):
    toy.edit("impl/nn.py", "return 3 * x", 'raise NotImplementedError("thrice")')
    toy.write(
        "spec/sprint1/test_thrice.py",
        """
        import pytest
        from hypothesis import given, strategies as st
        from touchstone import subject

        pytestmark = subject("nn.thrice")


        @given(st.floats(-1, 1))
        def test_generated(impl, x):
            assert impl.nn.thrice(x) == 3 * x


        @pytest.fixture(scope="module")
        def three(impl):
            return impl.nn.thrice(1)


        def test_from_a_fixture(three):
            assert three == 3


        def test_again_from_the_fixture(three):
            assert three == 3
        """,
    )
    assert counts(toy.pytest("spec/sprint1/test_thrice.py")) == {"todo": 3}


def test_layers_borrow_and_learners_fill_in(toy):
    assert toy.touchstone("start", "mine").returncode == 0
    assert toy.touchstone("start", "mine").returncode == 1  # nothing is overwritten
    first = toy.pytest("spec", "--impl", "mine")
    assert first.returncode == 0 and counts(first) == {"todo": 5, "not measured": 1}
    toy.edit("mine/nn.py", 'raise NotImplementedError("thrice")', "return 3 * x")
    toy.pytest("spec", "--impl", "mine")
    states = toy.states("--impl", "mine")
    assert states[THRICE] == "proven" and states[PARITY] == "todo"
    toy.write("mine/nn.py", "def thrice(x):\n    return 3 * x\n")
    assert toy.pytest("spec", "--impl", "mine,impl").returncode == 0
    rows = toy.status("--impl", "mine,impl")["rows"]
    assert rows["sprints/day001/twice"]["borrowed"] == ["nn.twice"]
    assert rows["sprints/day004/thrice"]["borrowed"] == []


def test_numpy_layers_and_peers_answer_the_same_tests(toy):
    done = toy.pytest("spec", "--impl", "reference")
    assert done.returncode == 0 and counts(done) == {"passed": 5, "not measured": 1}
    done = toy.pytest("spec", "--impl", "peers.abacus")
    assert done.returncode == 0 and counts(done) == {"passed": 1, "todo": 4, "not measured": 1}
    unknown = toy.pytest("spec", "--impl", "nobody")
    assert unknown.returncode == 4 and "no package 'nobody'" in unknown.stderr


def test_selection_by_unit_and_by_chapter(toy, tmp_path):
    assert counts(toy.pytest("spec", "--unit", "sprints/day001")) == {"passed": 4, "deselected": 2}
    assert toy.pytest("spec", "--unit", "sprints/day00").returncode == 4  # whole segments only
    chapter = toy.pytest("spec/sprint4")  # its row's parity is proven by a test of another folder
    assert counts(chapter) == {"passed": 1, "not measured": 1, "deselected": 4}
    elsewhere = toy.pytest(str(toy.root / "spec" / "sprint4"), cwd=tmp_path)
    assert counts(elsewhere) == counts(chapter)
    assert counts(toy.pytest("spec/sprint4", "-n", "2")) == {"passed": 1, "not measured": 1}


def test_xdist_workers_write_one_run(toy):
    assert counts(toy.pytest("spec", "-n", "2")) == {"passed": 5, "not measured": 1}
    found = toy.records()
    assert len({record["run"] for record in found}) == 1
    assert sum(record["type"] == "test" for record in found) == 6


def test_unknown_lines_and_broken_catalogs_are_refused_at_collection(toy):
    toy.edit("spec/sprint1/test_thrice.py", "thrice#parity", "thrice#parity-9")
    done = toy.pytest("spec")
    assert done.returncode == 2
    assert "spec/sprint1/test_thrice.py:" in done.stdout and "sprints/day004/thrice#parity-9" in done.stdout
    toy.edit(
        "spec/catalog/sprints.toml", 'requires = ["sprints/day001/twice"]', 'requires = ["sprints/day009/nothing"]'
    )
    for extra in ([], ["-n", "2"]):
        done = toy.pytest("spec", *extra)
        assert done.returncode in {1, 2}, done.stdout
        assert "spec/catalog/sprints.toml:14: requires unknown row 'sprints/day009/nothing'" in done.stdout


def test_declared_and_touched_names_must_agree(toy):
    toy.edit("spec/sprint1/test_thrice.py", '@subject("nn.thrice")', '@subject("nn.twice")')
    done = toy.pytest("spec")
    assert done.returncode == 1
    assert "touches nn.thrice, which its subject() does not name" in done.stdout


def test_plain_skips_and_expected_failures_are_no_outcomes(toy):
    toy.write(
        "spec/sprint1/test_skips.py",
        """
        import pytest


        def test_skipped():
            pytest.skip("not today")


        @pytest.mark.xfail
        def test_expected():
            assert False
        """,
    )
    done = toy.pytest("spec/sprint1/test_skips.py")
    assert counts(done) == {"failed": 2}


BAD = """
    import ctypes
    import time

    import pytest


    @pytest.mark.limit(seconds=2)
    def test_hangs():
        while True:
            pass


    def test_crashes():
        ctypes.string_at(0)


    @pytest.mark.limit(memory_mib=400)
    def test_eats_memory():
        kept = []
        while True:
            kept.append(b"x" * 20_000_000)
            time.sleep(0.01)


    def test_goes_on():
        pass
    """


def test_a_hang_a_crash_and_a_glutton_are_failures_by_name(toy):
    toy.write("spec/sprint1/test_bad.py", BAD)
    done = toy.pytest("spec/sprint1")
    assert counts(done) == {"failed": 3, "passed": 6, "deselected": 1}
    outcomes = {record["test"].split("::")[1]: record for record in toy.records() if record["type"] == "test"}
    assert outcomes["test_hangs"]["outcome"] == "failed" and "time limit" in outcomes["test_hangs"]["reason"]
    assert "SIGSEGV" in outcomes["test_crashes"]["reason"]
    assert "memory limit" in outcomes["test_eats_memory"]["reason"]
    assert outcomes["test_goes_on"]["outcome"] == "passed"


def test_a_crash_under_xdist_is_recorded_too(toy):
    toy.write("spec/sprint1/test_bad.py", "import ctypes\n\n\ndef test_crashes():\n    ctypes.string_at(0)\n")
    done = toy.pytest("spec/sprint1", "-n", "2")
    assert counts(done) == {"failed": 1, "passed": 5}
    crashed = [
        record for record in toy.records() if record["type"] == "test" and record["test"].endswith("test_crashes")
    ]
    assert [record["outcome"] for record in crashed] == ["failed"]


def test_records_survive_a_killed_run(toy):
    toy.write(
        "spec/sprint1/test_zlast.py",
        "import time\nimport pytest\n\n\n@pytest.mark.limit(seconds=100)\ndef test_slow():\n    time.sleep(60)\n",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "spec/sprint1"],
        cwd=toy.root,
        env=toy.environment(),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(record["type"] == "start" and record["test"].endswith("test_slow") for record in toy.records()):
            break
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert toy.states()[PARITY] == "proven"
    assert toy.status()["last_run"]["complete"] is False


def test_evidence_goes_stale_with_its_sources(toy):
    toy.pytest("spec")
    toy.edit("impl/nn.py", "return 3 * x", "return x * 3")
    assert toy.states()[THRICE] == "stale"
    toy.edit("impl/nn.py", "return x * 3", "return 3 * x")
    assert toy.states()[THRICE] == "proven"
    toy.edit("spec/catalog/sprints.toml", "parity: equals 3x", "parity: equals 3x exactly")
    assert toy.states()[THRICE] == "stale"


def test_states_without_records_and_without_tests(toy):
    assert set(toy.states().values()) == {"not_run"}
    (toy.root / "spec/sprint1/test_thrice.py").unlink()
    assert toy.states()[THRICE] == "unspecified"


def test_proxies_never_show_as_proven(toy):
    toy.edit(
        "spec/sprint1/test_thrice.py", '@subject("nn.thrice")', '@proxy("one seed of three")\n@subject("nn.thrice")'
    )
    toy.edit("spec/sprint1/test_thrice.py", "import proves, subject", "import proves, proxy, subject")
    toy.pytest("spec")
    assert toy.states()[THRICE] == "proxy"


def test_studies_run_only_when_asked_for(toy):
    toy.edit("spec/sprint1/test_thrice.py", '@subject("nn.thrice")', '@pytest.mark.study\n@subject("nn.thrice")')
    toy.edit("spec/sprint1/test_thrice.py", "from touchstone", "import pytest\nfrom touchstone")
    assert counts(toy.pytest("spec")) == {"passed": 4, "not measured": 1, "deselected": 1}
    assert toy.states()[THRICE] == "not_run"
    assert counts(toy.pytest("spec", "-m", "study")) == {"passed": 1, "deselected": 5}


def test_seeds_change_the_inputs_and_nothing_else(toy):
    toy.write(
        "spec/sprint1/test_draw.py",
        "def test_draw(draw, record):\n    record('x', float(draw.normal(1)))\n",
    )
    for seed in ("1", "1", "2"):
        toy.pytest("spec/sprint1/test_draw.py", "--seed", seed)
    values = [
        r["figures"][0]["value"] for r in toy.records() if r["type"] == "test" and r["test"].endswith("test_draw")
    ]
    assert values[0] == values[1] != values[2]
