"""Random numbers: one seed for all generators, a seed for every worker, and runs repeated under several."""

from __future__ import annotations

import hashlib
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch

_LIMIT = 2**32  # NumPy's global generator takes no larger seed


def set_seed(seed: int, *, strict: bool = False) -> None:
    """Seed Python, NumPy and torch alike; `strict` makes torch refuse operations without a deterministic form."""
    if not 0 <= seed < _LIMIT:
        raise ValueError(f"seed must lie in [0, 2**32), got {seed}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(strict)


def worker_seed(seed: int, epoch: int, worker: int) -> int:
    """Return a loader worker's seed in [0, 2³²), hashed: sums such as seed + worker collide between neighbouring
    runs."""
    for name, value in (("seed", seed), ("epoch", epoch), ("worker", worker)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    digest = hashlib.sha256(f"worker {seed} {epoch} {worker}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def worker_init(seed: int, epoch: int = 0) -> Callable[[int], None]:
    """Return the `worker_init_fn` of a DataLoader that seeds each worker with its own seed."""
    return partial(_seed_worker, seed, epoch)


def _seed_worker(seed: int, epoch: int, worker: int) -> None:
    # Forked workers have the parent's strictness; seeding must not take it away.
    set_seed(worker_seed(seed, epoch, worker), strict=torch.are_deterministic_algorithms_enabled())


def random_state() -> dict[str, Any]:
    """Return the state of every global generator, as plain data and tensors."""
    kind, keys, position, has_gauss, gauss = cast(tuple[str, Any, int, int, float], np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every global generator back into a state from `random_state`."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave every global generator as it was, whatever happens inside."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


@dataclass(frozen=True)
class RepeatedRuns:
    """The figure of a run under each seed, with mean and sample standard deviation."""

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    std: float

    def __str__(self) -> str:
        return f"{len(self.values)} runs: {self.mean:.6g} ± {self.std:.6g} (sample standard deviation)"


def repeat_runs(run: Callable[[int], float], seeds: Iterable[int]) -> RepeatedRuns:
    """Call `run(seed)` for each seed; the spread divides by n − 1, as a sample's does."""
    given = tuple(seeds)
    if len(given) < 2:
        raise ValueError(f"seeds: a spread needs at least two runs, got {len(given)}")
    values = tuple(float(run(seed)) for seed in given)
    return RepeatedRuns(given, values, statistics.fmean(values), statistics.stdev(values))
