"""Week 4 of the nanochat plan: loss, perplexity, throughput and memory of every update, whatever happens to the run."""

from __future__ import annotations

import json
import math
import os

import pytest
import torch

from spec.processes import launch, output
from spec.sprint1.metrics_runs import BALLAST, ENDLESS, FULL_DISK, cpu_seconds, peak
from touchstone import checks, proves, subject

FIELDS = {"step", "tokens", "loss", "perplexity", "tokens_per_second", "peak_memory"}

#: What a loss comes as.
KINDS = {
    "number": float,
    "with a graph": lambda x: torch.tensor(x, requires_grad=True),
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
}
BROKEN = ["{}", "null", "[1]", '{"step": 1', '{"step": "1", "tokens": 8}', "\x00\x00", '{"step": 2}']

pytestmark = subject("training.MetricsRecorder", "training.read_metrics")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def fail_after(clock, seconds):
    clock.now += seconds
    raise RuntimeError("of the evaluation")


def fill(impl, path, last, **options):
    """Updates up to `last` of 64 tokens each."""
    with impl.training.MetricsRecorder(path, **options) as recorder:
        for step in range((options.get("resume_from") or 0) + 1, last + 1):
            recorder.micro_batch(4 / step, 64)
            recorder.step(step)


@proves("nanochat/week04/metrics-recorder#parity")
@checks("oracle", "invariance", "dtype", "magnitude", "purity")
@pytest.mark.parametrize("kind", KINDS)
@subject("training.MetricsRecorder")
def test_perplexity_is_of_the_token_weighted_mean(impl, draw, tmp_path, kind):
    losses, tokens = [KINDS[kind](x) for x in draw.uniform(1.0, 9.0, 6).tolist()], [1, 512, 7, 64, 300, 2]
    mean = sum(float(loss) * n for loss, n in zip(losses, tokens, strict=True)) / sum(tokens)
    of_means = sum(math.exp(float(loss)) for loss in losses) / 6
    found = []
    for order in (range(6), reversed(range(6))):
        state = torch.get_rng_state()
        with impl.training.MetricsRecorder(tmp_path / f"{len(found)}.jsonl") as recorder:
            for at in order:
                recorder.micro_batch(losses[at], tokens[at])
            found.append(recorder.step(1))
        assert torch.equal(torch.get_rng_state(), state)
        assert set(found[-1]) == FIELDS
        assert found[-1]["tokens"] == sum(tokens)
        assert abs(found[-1]["loss"] / mean - 1) <= 1e-12
        assert abs(found[-1]["perplexity"] / math.exp(mean) - 1) <= 1e-12
    assert abs(of_means / math.exp(mean) - 1) > 0.01, "the mean of perplexities must be another number"


@proves("nanochat/week04/metrics-recorder#parity")
@checks("oracle", "arguments", "branches", "state")
def test_throughput_counts_tokens_once_and_no_evaluation(impl, tmp_path):
    clock = Clock()
    recorder = impl.training.MetricsRecorder(tmp_path / "run.jsonl", clock=clock)
    clock.now += 2
    for tokens in (100, 60, 40):  # three micro-batches, one update
        recorder.micro_batch(3.0, tokens)
        clock.now += 1
    assert recorder.step(1)["tokens_per_second"] == 200 / 5

    clock.now += 1
    with recorder.evaluation():
        clock.now += 100
    recorder.micro_batch(3.0, 30)
    with pytest.raises(RuntimeError, match="of the evaluation"), recorder.evaluation():
        fail_after(clock, 50)
    clock.now += 2
    second = recorder.step(2)
    assert second["tokens_per_second"] == 30 / 3
    assert second["tokens"] == 230

    recorder.micro_batch(3.0, 30)  # what was paused before belongs to the update before
    clock.now += 4
    assert recorder.step(3)["tokens_per_second"] == 30 / 4
    recorder.close()
    found, torn = impl.training.read_metrics(tmp_path / "run.jsonl")
    assert not torn
    assert [one["tokens_per_second"] for one in found] == [40.0, 10.0, 7.5]
    assert [one["tokens"] for one in found] == [200, 230, 260]
    assert [one["loss"] for one in found] == [3.0, 3.0, 3.0]


@proves("nanochat/week04/metrics-recorder#property")
@checks("state")
@pytest.mark.process
def test_sigkill_loses_at_most_one_record(impl, draw, tmp_path):
    """A process that only records is killed twice, each time resumed from some checkpoint before."""
    path, resume, written = tmp_path / "run.jsonl", 0, 0
    fill(impl, tmp_path / "stub.jsonl", 1)  # unwritten: a todo here, not a crash there
    assert impl.training.read_metrics(tmp_path / "stub.jsonl")[0]
    for kill_after in draw.integers(20, 2000, 2).tolist():
        process = launch(ENDLESS, impl.label, str(path), str(resume + 1), "", str(resume) if resume else "")
        said = [int(process.stdout.readline() or 0) for _ in range(kill_after)]
        process.kill()
        said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.communicate()
        assert said == list(range(resume + 1, resume + 1 + len(said)))
        found, _ = impl.training.read_metrics(path)
        assert [one["step"] for one in found] == list(range(1, len(found) + 1)), "no gap, no duplicate"
        assert len(found) >= said[-1], "what was acknowledged is in the file"
        assert [one["tokens"] for one in found] == [64 * one["step"] for one in found]
        for line in path.read_bytes().split(b"\n")[:-1]:
            assert json.loads(line)["step"] >= 1
        written = max(written, len(found))
        resume = int(draw.integers(1, len(found) + 1, 1))
    last = written + 3
    output(ENDLESS, impl.label, str(path), str(resume + 1), str(last), str(resume))
    found, torn = impl.training.read_metrics(path)
    assert not torn
    assert [one["step"] for one in found] == list(range(1, last + 1))


@proves("nanochat/week04/metrics-recorder#property")
@checks("edges", "state")
def test_a_file_torn_anywhere_can_be_resumed(impl, tmp_path):
    whole = tmp_path / "whole.jsonl"
    fill(impl, whole, 3)
    data = whole.read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == ord("\n")]
    assert len(ends) == 3
    for cut in range(1, len(data)):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(data[:cut])
        kept = sum(end <= cut for end in ends)
        found, torn = impl.training.read_metrics(path)
        assert [one["step"] for one in found] == list(range(1, kept + 1))
        assert torn == (cut not in ends)
        fill(impl, path, 4, resume_from=kept)
        found, torn = impl.training.read_metrics(path)
        assert not torn
        assert [one["step"] for one in found] == [1, 2, 3, 4]
        assert found[-1]["tokens"] == 4 * 64


@proves("nanochat/week04/metrics-recorder#property")
@checks("arguments", "branches", "state")
def test_resuming_drops_what_is_made_again(impl, tmp_path):
    path = tmp_path / "run.jsonl"
    fill(impl, path, 9)
    before = path.read_bytes().splitlines()
    recorder = impl.training.MetricsRecorder(path, resume_from=6)
    assert path.read_bytes().splitlines() == before[:6], "the records up to the checkpoint are left as they were"
    recorder.micro_batch(1.0, 5)
    with pytest.raises(ValueError, match=r"6.*\b6"):
        recorder.step(6)
    assert recorder.step(7)["tokens"] == 6 * 64 + 5
    recorder.close()
    with pytest.raises(ValueError, match=r"7.*12"):
        impl.training.MetricsRecorder(path, resume_from=12)
    with pytest.raises(ValueError, match="-1"):
        impl.training.MetricsRecorder(path, resume_from=-1)
    with pytest.raises(FileExistsError, match=r"run\.jsonl"):
        impl.training.MetricsRecorder(path)
    with pytest.raises(FileNotFoundError, match=r"other\.jsonl"):
        impl.training.MetricsRecorder(tmp_path / "other.jsonl", resume_from=3)
    assert len(path.read_bytes().splitlines()) == 7
    fill(impl, path, 2, resume_from=0)
    assert [one["step"] for one in impl.training.read_metrics(path)[0]] == [1, 2]
    fill(impl, tmp_path / "deep" / "new.jsonl", 2)
    assert len(impl.training.read_metrics(tmp_path / "deep" / "new.jsonl")[0]) == 2


@proves("nanochat/week04/metrics-recorder#robustness")
@checks("edges", "magnitude", "branches")
def test_what_is_not_finite_is_flagged(impl, tmp_path):
    path = tmp_path / "run.jsonl"
    with impl.training.MetricsRecorder(path) as recorder:
        for step, loss in enumerate([math.nan, math.inf, -math.inf, 1000.0, 2.0, torch.tensor(math.nan)], 1):
            recorder.micro_batch(loss, 8)
            given = recorder.step(step)
            assert repr(given["loss"]) == repr(float(loss))

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [line.get("non_finite") for line in lines] == [
        {"loss": "nan", "perplexity": "nan"},
        {"loss": "inf", "perplexity": "inf"},
        {"loss": "-inf"},
        {"perplexity": "inf"},
        None,
        {"loss": "nan", "perplexity": "nan"},
    ]
    assert [line["loss"] for line in lines] == [None, None, None, 1000.0, 2.0, None]
    found, _ = impl.training.read_metrics(path)
    assert all(set(one) == FIELDS for one in found)
    assert math.isnan(found[0]["loss"]) and math.isnan(found[5]["perplexity"])
    assert [one["loss"] for one in found[1:5]] == [math.inf, -math.inf, 1000.0, 2.0]
    assert [one["perplexity"] for one in found[1:4]] == [math.inf, 0.0, math.inf]


@proves("nanochat/week04/metrics-recorder#robustness")
@checks("edges", "branches")
def test_steps_go_on(impl, tmp_path):
    path = tmp_path / "run.jsonl"
    with impl.training.MetricsRecorder(path) as recorder:
        recorder.micro_batch(2.0, 8)
        recorder.step(17)
        for wrong in (16, 17, 1):
            recorder.micro_batch(2.0, 8)
            with pytest.raises(ValueError, match=rf"17.*\b{wrong}\b"):
                recorder.step(wrong)
        for tokens in (0, -3):
            with pytest.raises(ValueError, match=rf"tokens.*{tokens}"):
                recorder.micro_batch(2.0, tokens)
        assert recorder.step(18)["tokens"] == 8 * 4, "a refused step takes nothing away"
        recorder.micro_batch(2.0, 8)
        with pytest.raises(ValueError, match=r"18.*\b18\b"):
            recorder.step(18)
        assert recorder.step(40)["tokens"] == 8 * 5
        with pytest.raises(ValueError, match="41"):
            recorder.step(41)
    assert [one["step"] for one in impl.training.read_metrics(path)[0]] == [17, 18, 40]


@proves("nanochat/week04/metrics-recorder#robustness")
@checks("edges", "branches")
@pytest.mark.process
def test_a_full_disk_stops_the_recording_not_the_run(impl, tmp_path):
    """A limit of 2,000 bytes on a file stands for the disk: a write is cut short, the next one fails."""
    path = tmp_path / "run.jsonl"
    fill(impl, tmp_path / "stub.jsonl", 1)
    said = output(FULL_DISK, impl.label, str(path))
    assert said.count("RuntimeWarning") == 1
    assert "run.jsonl" in said
    assert path.stat().st_size <= 2000
    found, _ = impl.training.read_metrics(path)
    assert [one["step"] for one in found] == list(range(1, len(found) + 1))
    assert len(found) >= 5


@proves("nanochat/week04/metrics-recorder#robustness")
@checks("edges")
@subject("training.read_metrics")
@pytest.mark.parametrize("line", BROKEN)
def test_a_whole_line_that_is_no_record_is_named(impl, tmp_path, line):
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"step": 1, "tokens": 8, "loss": 1.0}}\n{line}\n')
    with pytest.raises(ValueError, match=r"run\.jsonl, line 2"):
        impl.training.read_metrics(path)
    path.write_text("")
    assert impl.training.read_metrics(path) == ([], False)


@proves("nanochat/week04/metrics-recorder#budget")
@checks("resources")
@pytest.mark.process
def test_peak_memory_is_the_kernels(impl, tmp_path, record):
    """Within 5 %, after 400 MB that were held for a moment and given back."""
    fill(impl, tmp_path / "stub.jsonl", 1)
    found, kernel = map(int, output(BALLAST, impl.label, str(tmp_path / "run.jsonl")).split())
    assert kernel >= 4e8
    assert abs(found / kernel - 1) <= 0.05
    here, _ = impl.training.read_metrics(tmp_path / "stub.jsonl")
    assert here[0]["peak_memory"] <= peak() * 1.05
    record("recorded peak memory / getrusage's", found / kernel, "×", 1.05)


@proves("nanochat/week04/metrics-recorder#budget")
@checks("resources")
@pytest.mark.train
@subject("training.MetricsRecorder", "models.GPT", "models.GPTConfig")
def test_a_record_costs_under_a_hundredth_of_a_step(impl, draw, tmp_path, record):
    """CPU time against CPU time in one process, the tiny GPT's step of 12 · 64 tokens.  Measured: about 0.05 %."""
    model = impl.models.GPT(impl.models.GPTConfig(65, 64, 4, 4, 128))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    tokens = draw.integers(0, 65, 12, 65)

    def update():
        optimizer.zero_grad()
        model(tokens[:, :-1], tokens[:, 1:])[1].backward()
        optimizer.step()

    with impl.training.MetricsRecorder(tmp_path / "run.jsonl") as recorder:

        def write():
            recorder.micro_batch(2.0, 768)
            recorder.step(recorder_step())

        steps = iter(range(1, 10**6))
        recorder_step = steps.__next__
        update(), write()
        share = cpu_seconds(write, 200) / cpu_seconds(update, 2)
    record("CPU time of a record / of a tiny GPT's step", 100 * share, "%", 1.0)
    assert share < 0.01
    assert os.path.getsize(tmp_path / "run.jsonl") > 1000 * 50, "every record was written"
