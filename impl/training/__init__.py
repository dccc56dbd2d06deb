"""Training: the loop, its checkpoints and its random numbers."""

from __future__ import annotations

from impl.training.checkpoints import load_checkpoint, save_checkpoint
from impl.training.evaluation import evaluate
from impl.training.loop import TrainConfig, TrainingLog, train
from impl.training.seeds import RepeatedRuns, repeat_runs, set_seed, worker_init, worker_seed

__all__ = [
    "RepeatedRuns",
    "TrainConfig",
    "TrainingLog",
    "evaluate",
    "load_checkpoint",
    "repeat_runs",
    "save_checkpoint",
    "set_seed",
    "train",
    "worker_init",
    "worker_seed",
]
