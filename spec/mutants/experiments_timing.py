"""Mistakes that people make when they time a device that works on while the caller goes ahead."""

from __future__ import annotations

from touchstone import Mutant

_LAST = "        returned = clock()\n        synchronize()\n        done = clock()\n"
_FIRST = "        synchronize()  # what others have left on the device is not ours\n"


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the timer."""
    return [Mutant(name, "experiments.time_function", old, new, says) for name, says, old, new in patches]


MUTANTS = [
    *_of(
        ("never_waits", "does not wait for the work: it times launches", _LAST, _LAST.replace("synchronize()", "pass")),
        (
            "waits_too_late",
            "reads the clock before it waits",
            _LAST,
            "        returned = done = clock()\n        synchronize()\n",
        ),
        ("queue_counted", "counts what was queued before", _FIRST, ""),
        (
            "copies_counted",
            "starts the work's time while copies are on their way",
            "for value in inputs]\n        synchronize()\n",
            "for value in inputs]\n",
        ),
        (
            "transfer_included",
            "counts the transfer as computing",
            "compute.append(done - moved)",
            "compute.append(done - start)",
        ),
        ("warm_up_counted", "counts the warm-up", "        if repeat >= 0:\n", "        if repeat >= -warmup:\n"),
        (
            "no_warm_up",
            "leaves the warm-up out altogether",
            "for repeat in range(-warmup, repeats):",
            "for repeat in range(repeats):",
        ),
        (
            "warm_up_as_repeats",
            "takes the warm-up out of the repeats",
            "for repeat in range(-warmup, repeats):",
            "for repeat in range(-warmup, repeats - warmup):",
        ),
        (
            "inputs_moved_once",
            "moves the inputs in the warm-up only",
            "        there = [put(value) for value in inputs]\n",
            "        there = [put(value) for value in inputs] if repeat == -warmup else there\n",
        ),
        ("inputs_not_moved", "calls with the inputs where they were", "function(*there)", "function(*inputs)"),
        ("few_repeats", "takes a single repeat", "    if repeats < _LEAST:\n", "    if repeats < 1:\n"),
        (
            "errors_swallowed",
            "goes on when the function fails",
            "        function(*there)\n",
            "        try:\n            function(*there)\n        except ArithmeticError:\n            continue\n",
        ),
        (
            "recorded_before",
            "makes the record's file before there is something to record",
            "    compute, launch, transfer = [], [], []\n",
            "    compute, launch, transfer = [], [], []\n    if record is not None:\n        "
            "Path(record).parent.mkdir(parents=True, exist_ok=True)\n        Path(record).touch()\n",
        ),
        (
            "record_overwritten",
            "overwrites the records before",
            "os.O_WRONLY | os.O_APPEND | os.O_CREAT",
            "os.O_WRONLY | os.O_TRUNC | os.O_CREAT",
        ),
        (
            "careless_device",
            "takes a device that cannot be waited for",
            '                raise TypeError(f"device: a {type(device).__name__} has no {name}(); times would '
            'be of launches only")\n',
            "                return (lambda value: value), (lambda: None)\n",
        ),
        (
            "own_clock",
            "ignores the clock it is given",
            "    put, synchronize = _of(device)\n",
            "    put, synchronize = _of(device)\n    clock = time.perf_counter\n",
        ),
        (
            "in_milliseconds",
            "gives milliseconds",
            "compute.append(done - moved)",
            "compute.append(1e3 * (done - moved))",
        ),
    ),
    Mutant(
        "mean_for_median",
        "experiments.time_function",
        "return statistics.median(self.compute)",
        "return statistics.fmean(self.compute)",
        "gives the mean for the median",
    ),
    Mutant(
        "range_of_everything",
        "experiments.time_function",
        "return third - first",
        "return max(self.compute) - min(self.compute)",
        "gives the whole range for the quartiles'",
    ),
    Mutant(
        "exclusive_quartiles",
        "experiments.time_function",
        'method="inclusive"',
        'method="exclusive"',
        "takes quartiles by another method",
    ),
]
