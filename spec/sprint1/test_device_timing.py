"""Day 31: timing on a device that works on while the caller goes ahead, played by one whose clock the test holds."""

from __future__ import annotations

import json
import statistics

import pytest
import torch

from touchstone import checks, proves, subject

pytestmark = subject("experiments.time_function")


class Device:
    """Work is queued in a microsecond and takes its time; waiting is to let the queue run out."""

    LAUNCH = 1e-6

    def __init__(self, copy=0.0):
        self.now, self.free, self.copy, self.waits, self.puts = 50.0, 50.0, copy, 0, []

    def clock(self):
        return self.now

    def work(self, seconds):
        self.now += self.LAUNCH
        self.free = max(self.free, self.now) + seconds

    def put(self, value):
        self.work(self.copy)
        self.puts.append(value)
        return ("there", value)

    def synchronize(self):
        self.waits += 1
        self.now = max(self.now, self.free)


class Unsynchronised(Device):
    """The mistake: waiting is forgotten."""

    def synchronize(self):
        pass


def reports_the_work(timing, seconds):
    return abs(timing.median / seconds - 1) <= 0.1


@proves("colab/day031/device-timing#property")
@checks("oracle", "resources", "magnitude")
@pytest.mark.parametrize("seconds", [1e-4, 3e-3, 2.0])
def test_the_work_is_timed_not_the_launch(impl, seconds, record):
    device = Device()
    timing = impl.experiments.time_function(lambda: device.work(seconds), device=device, clock=device.clock)
    assert reports_the_work(timing, seconds)
    assert all(abs(one / seconds - 1) <= 0.1 for one in timing.compute)
    assert statistics.median(timing.launch) < 0.1 * seconds, "what is seen without waiting"
    assert device.waits >= 2 * 20, "before and after each repeat"
    record(f"timed / true, work of {seconds:g} s", timing.median / seconds, "×", 1.1)

    blind = Unsynchronised()
    without = impl.experiments.time_function(lambda: blind.work(seconds), device=blind, clock=blind.clock)
    assert without.median < 0.1 * seconds
    assert not reports_the_work(without, seconds), "and the check refuses it"


@proves("colab/day031/device-timing#property")
@checks("branches", "state")
def test_what_was_queued_before_is_not_counted(impl):
    device = Device()
    device.work(1000.0)
    timing = impl.experiments.time_function(lambda: device.work(0.5), device=device, clock=device.clock, warmup=0)
    assert all(abs(one - 0.5) < 1e-3 for one in timing.compute)
    assert all(abs(one) < 1e-3 for one in timing.transfer)


@proves("colab/day031/device-timing#property")
@checks("edges", "branches")
def test_a_device_that_cannot_be_waited_for_is_refused(impl):
    class Careless:
        def put(self, value):
            return value

    calls = []
    with pytest.raises(TypeError, match=r"Careless.*synchronize"):
        impl.experiments.time_function(calls.append, 1, device=Careless())
    with pytest.raises(TypeError, match="NoneType"):
        impl.experiments.time_function(calls.append, 1, device=None)
    assert calls == []


@proves("colab/day031/device-timing#property-2")
@checks("oracle", "arguments", "invariance")
@pytest.mark.parametrize("repeats, warmup", [(10, 0), (11, 4), (40, 1)])
def test_warm_up_is_left_out_and_quartiles_are_of_the_repeats(impl, draw, repeats, warmup):
    device, calls = Device(), []
    times = [7.0] * warmup + draw.uniform(0.1, 0.9, repeats).tolist()

    def function():
        calls.append(device.work(times[len(calls)]))

    timing = impl.experiments.time_function(function, repeats=repeats, warmup=warmup, device=device, clock=device.clock)
    assert len(calls) == repeats + warmup
    assert len(timing.compute) == len(timing.launch) == len(timing.transfer) == repeats
    rest = torch.tensor(times[warmup:], dtype=torch.float64)
    assert all(abs(got - want) <= 1e-5 for got, want in zip(timing.compute, rest.tolist(), strict=True))
    first, middle, third = torch.quantile(rest, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    assert abs(timing.median - middle) <= 1e-5
    assert abs(timing.interquartile_range - (third - first)) <= 1e-5


@proves("colab/day031/device-timing#property-2")
@checks("oracle", "arguments", "state")
def test_defaults_repeat_often_enough(impl):
    calls = []
    timing = impl.experiments.time_function(calls.append, 3)
    assert len(timing.compute) == 20
    assert calls == [3] * 23
    assert all(one >= 0 for one in (*timing.compute, *timing.transfer))


@proves("colab/day031/device-timing#property-2")
@checks("oracle", "purity", "branches")
def test_transfers_are_timed_apart(impl):
    """Copies are queued too: one that has not arrived must not be counted as computing."""
    device = Device(copy=0.25)
    seen = []

    def function(*values):
        seen.append(values)
        device.work(0.03)

    timing = impl.experiments.time_function(function, "a", "b", repeats=12, warmup=1, device=device, clock=device.clock)
    assert seen == [(("there", "a"), ("there", "b"))] * 13
    assert device.puts == ["a", "b"] * 13
    assert all(abs(one - 0.5) < 1e-3 for one in timing.transfer)
    assert all(abs(one - 0.03) < 1e-3 for one in timing.compute)
    x, given = torch.ones(3), []
    impl.experiments.time_function(lambda *values: given.append(values), x, 5, "word", device=torch.device("cpu"))
    assert all(values[0].device == x.device and values[1:] == (5, "word") for values in given)


@proves("colab/day031/device-timing#robustness")
@checks("edges")
def test_too_few_repeats_are_refused(impl):
    calls = []
    for options in ({"repeats": 0}, {"repeats": 9}, {"repeats": -1}, {"warmup": -1}):
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=rf"{name}.*{value}"):
            impl.experiments.time_function(calls.append, 1, **options)
    assert calls == []


@proves("colab/day031/device-timing#robustness")
@checks("state", "edges", "branches")
def test_an_error_is_passed_on_and_leaves_no_record(impl, tmp_path):
    path, calls = tmp_path / "deep" / "times.jsonl", []

    def failing(at):
        calls.append(at)
        if len(calls) == at:
            raise ArithmeticError("of the function's own")

    for at in (1, 4, 23):
        calls.clear()
        with pytest.raises(ArithmeticError, match="own"):
            impl.experiments.time_function(failing, at, record=path)
        assert not path.exists()
    first = impl.experiments.time_function(abs, -2, record=path)
    kept = path.read_bytes()
    calls.clear()
    with pytest.raises(ArithmeticError, match="own"):
        impl.experiments.time_function(failing, 5, record=path)
    assert path.read_bytes() == kept
    second = impl.experiments.time_function(abs, -2, repeats=10, warmup=0, record=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, timing, warmup in zip(lines, (first, second), (3, 0), strict=True):
        assert line == {
            "function": "abs", "warmup": warmup, "compute": list(timing.compute), "launch": list(timing.launch),
            "transfer": list(timing.transfer),
        }  # fmt: skip


@checks("oracle", "resources")
@pytest.mark.gpu
def test_a_real_gpu_is_waited_for(impl, needs, draw, record):
    """Twenty products of 4096²: the launch is a small part, and twice the work takes about twice the time."""
    needs.gpu()

    def products(x, count):
        for _ in range(count):
            x = x @ x / 64
        return x

    x = draw.normal(4096, 4096, dtype="float32")
    once, twice = (impl.experiments.time_function(products, x, n, device="cuda") for n in (20, 40))
    record("seconds of 20 products of 4096²", once.median, "s")
    record("launch / work", statistics.median(once.launch) / once.median, "×", 0.1)
    assert statistics.median(once.launch) < 0.1 * once.median
    assert 1.5 < twice.median / once.median < 2.5
    assert statistics.median(once.transfer) > 0
