"""Mutants are refused, peers and alternatives accepted, and each of these can go wrong and say so."""

from __future__ import annotations

from touchstone.tests.test_plugin import counts


def of(toy, kind):
    return {record["name"]: record for record in toy.records() if record["type"] == kind}


def test_mutants_are_killed_and_kills_are_reused(toy):
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 0 and counts(done) == {"passed": 3}, done.stdout
    assert {record["state"] for record in of(toy, "mutant").values()} == {"killed"}
    assert "3 of 3 mutants refused; 0 kills reused" in done.stdout
    assert "3 of 3 mutants refused; 3 kills reused" in toy.pytest("spec", "--mutants").stdout
    toy.edit("spec/sprint1/test_thrice.py", "== 3.0", "== 3")
    assert "3 of 3 mutants refused; 2 kills reused" in toy.pytest("spec", "--mutants").stdout
    full = toy.pytest("spec", "--mutants", "--full-matrix")
    assert "3 of 3 mutants refused, 3 of them told apart by the full matrix; 0 kills reused" in full.stdout
    assert toy.status()["mutants"] == {"killed": 3, "total": 3, "survivors": [], "stale": [], "gone": []}
    toy.edit("spec/sprint1/test_thrice.py", "== 3", "== 3.0")
    assert toy.status()["mutants"] == {"killed": 2, "total": 3, "survivors": [], "stale": ["nn/fourfold"], "gone": []}
    toy.edit("spec/mutants/nn.py", '"no_offset"', '"without_offset"')
    assert toy.status()["mutants"]["gone"] == ["nn/no_offset"]


def test_a_survivor_fails_by_name(toy):
    toy.edit("spec/sprint1/test_twice.py", "[0.0, 1.5]", "[0.0]")
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 1 and counts(done) == {"failed": 1, "passed": 2}
    assert "mutant nn/no_offset survived: ignores the offset" in done.stdout
    assert toy.status()["mutants"]["survivors"] == ["nn/no_offset"]


def test_a_mutant_is_itself_in_the_processes_a_test_launches(toy):
    """A mutant that only a launched process meets is killed there; the implementation and alternatives pass there."""
    toy.edit("spec/sprint1/test_twice.py", "[0.0, 1.5]", "[0.0]")
    toy.write(
        "spec/sprint1/test_launched.py",
        """
        import subprocess
        import sys

        import pytest
        from touchstone import checks, subject

        CODE = "import sys; from touchstone import load; print(load('nn.twice', sys.argv[1])(1.0, offset=1.5))"


        @subject("nn.twice")
        @checks("arguments")
        @pytest.mark.process
        def test_in_a_process_of_its_own(impl):
            impl.nn.twice
            done = subprocess.run([sys.executable, "-c", CODE, impl.label], capture_output=True, text=True, check=True)
            assert float(done.stdout) == 3.5
        """,
    )
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 0, done.stdout
    assert of(toy, "mutant")["nn/no_offset"]["by"].endswith("test_in_a_process_of_its_own")
    assert toy.pytest("spec", "--acceptance").returncode == 0


def test_a_name_that_is_only_used_is_not_checked(toy):
    """Its mutants are not held to the test, which may touch it all the same."""
    toy.write(
        "spec/sprint1/test_sixfold.py",
        """
        from touchstone import checks, subject


        @subject("nn.thrice", uses=["nn.twice"])
        @checks("invariance")
        def test_sixfold(impl):
            assert impl.nn.thrice(impl.nn.twice(1.0)) == impl.nn.twice(impl.nn.thrice(1.0)) == 6.0
        """,
    )
    assert toy.pytest("spec/sprint1/test_sixfold.py").returncode == 0
    toy.edit("spec/sprint1/test_twice.py", "[0.0, 1.5]", "[0.0]")
    toy.edit("spec/mutants/nn.py", 'new="2 * x + offset + 1"', 'new="2.5 * x + offset"')
    toy.edit("spec/sprint1/test_twice.py", "< 1e-12", "< 1e12")
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 1
    assert {name for name, one in of(toy, "mutant").items() if one["state"] == "survived"} == {
        "nn/plus_one",
        "nn/no_offset",
    }


def test_a_patch_that_does_not_apply_is_an_error(toy):
    toy.edit("spec/mutants/nn.py", 'old="3 * x"', 'old="5 * x"')
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 1
    assert of(toy, "mutant")["nn/fourfold"]["state"] == "error"


def test_a_mutant_that_hangs_or_crashes_is_no_kill(toy):
    toy.edit("spec/mutants/nn.py", 'new="4 * x"', "new=\"__import__('os')._exit(3)\"")
    toy.edit("spec/mutants/nn.py", 'new="2 * x"', 'new="[None for _ in iter(int, 1)]"')
    toy.edit(
        "spec/sprint1/test_twice.py", "pytestmark = subject", "pytestmark = [pytest.mark.limit(seconds=10), subject"
    )
    toy.edit("spec/sprint1/test_twice.py", 'subject("nn.twice")', 'subject("nn.twice")]')
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 1
    found = of(toy, "mutant")
    assert found["nn/fourfold"]["state"] == "error" and "crashed" in found["nn/fourfold"]["reason"]
    assert found["nn/no_offset"]["state"] == "error" and "time limit" in found["nn/no_offset"]["reason"]
    assert found["nn/plus_one"]["state"] == "killed"


def test_a_red_baseline_is_a_failure(toy):
    toy.edit("impl/nn.py", "return 2 * x + offset", "return 2 * x + offset + 0.25")
    toy.edit("spec/mutants/nn.py", 'old="2 * x + offset", new="2 * x + offset + 1"', 'old="+ 0.25", new="+ 0.5"')
    toy.edit("spec/mutants/nn.py", 'old="2 * x + offset", new="2 * x"', 'old="offset + 0.25", new="0.25"')
    done = toy.pytest("spec", "--mutants")
    assert done.returncode == 1 and "BASELINE RED" in done.stdout


def test_peers_and_alternatives_are_accepted(toy):
    done = toy.pytest("spec", "--acceptance")
    assert done.returncode == 0 and counts(done) == {"passed": 2}, done.stdout
    assert toy.status()["acceptance"] == {
        "accepted": 2,
        "total": 2,
        "rejected": [],
        "stale": [],
        "deviations": [],
        "gone": [],
    }
    toy.edit("spec/alternatives/nn.py", "return x + x", "return x  + x")
    assert toy.status()["acceptance"]["stale"] == ["alternatives.nn/added"]


def test_a_false_alarm_rejects_the_peer_and_fails(toy):
    toy.edit("reference/peers/abacus/nn.py", "sum([x, x, x])", "sum([x, x, x]) + 1e-9")
    done = toy.pytest("spec", "--acceptance")
    assert done.returncode == 1
    assert toy.status()["acceptance"]["rejected"] == ["peers.abacus"]


def test_declared_deviations_must_be_real_and_few(toy):
    toy.write("reference/peers/abacus/__init__.py", 'DEVIATIONS = {"sprints/day004/thrice#parity": "rounds"}\n')
    idle = toy.pytest("spec", "--acceptance")
    assert idle.returncode == 1 and "declares deviations that no check shows" in idle.stdout
    toy.edit("reference/peers/abacus/nn.py", "sum([x, x, x])", "sum([x, x, x]) + 1e-9")
    many = toy.pytest("spec", "--acceptance")
    assert many.returncode == 1 and "more than a fifth" in many.stdout


def test_a_missing_package_is_not_measured(toy):
    toy.write("reference/peers/abacus/__init__.py", 'REQUIRES = ["no_such_package_here"]\n')
    done = toy.pytest("spec", "--acceptance")
    assert done.returncode == 0 and counts(done) == {"passed": 1, "not measured": 1}
