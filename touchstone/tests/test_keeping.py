"""What a night has measured is kept where it can be committed, as long as it stands."""

from __future__ import annotations

import json

STUDY = """
    import pytest
    from touchstone import proves, subject


    @pytest.mark.study
    @proves("sprints/day004/thrice#budget")
    @subject("nn.thrice")
    def test_long(impl, record):
        record("figure", 3.0, "nats")
        assert impl.nn.thrice(2) == 6
    """


def state(toy, line: str) -> str:
    """Of one proof line, from what is committed alone."""
    for file in (toy.root / ".touchstone" / "records").glob("*.jsonl"):
        file.unlink()
    told = json.loads(toy.touchstone("status", "--json").stdout)
    (found,) = [one for one in told["rows"][line.partition("#")[0]]["lines"] if one["key"] == line]
    return found["state"]


def test_studies_that_stand_are_kept_and_stale_ones_go(toy):
    toy.write("spec/sprint4/test_gpu.py", STUDY)
    none = toy.touchstone("keep")
    assert none.returncode == 1
    assert "no study" in none.stderr
    assert toy.pytest("spec", "-m", "study or not study").returncode == 0
    said = toy.touchstone("keep")
    assert said.returncode == 0, said.stderr
    assert "spec/sprint4/test_gpu.py::test_long" in said.stdout
    kept = toy.root / "reports" / "evidence" / "kept.jsonl"
    records = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    assert [record["type"] for record in records] == ["run", "test"], "the study and its run, no other test"
    assert records[1]["figures"] == [{"name": "figure", "value": 3.0, "unit": "nats", "limit": None}]
    assert state(toy, "sprints/day004/thrice#budget") == "proven"
    assert toy.touchstone("keep").returncode == 0, "what was kept before stays"
    assert [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] == records
    toy.edit("impl/nn.py", "return 3 * x", "return x * 3")
    assert state(toy, "sprints/day004/thrice#budget") == "stale"
    assert toy.touchstone("keep").returncode == 1
