"""Training: the loop, its checkpoints and its random numbers."""

from __future__ import annotations

from impl.training.checkpoints import load_checkpoint, save_checkpoint
from impl.training.dashboard import metrics_dashboard
from impl.training.device import compile_model
from impl.training.evaluation import evaluate
from impl.training.events import TensorBoardReader, TensorBoardWriter
from impl.training.loop import TrainConfig, TrainingLog, train
from impl.training.memory import PeakMemory
from impl.training.metrics import MetricsRecorder, read_metrics
from impl.training.projector import export_embeddings
from impl.training.seeds import RepeatedRuns, repeat_runs, set_seed, worker_init, worker_seed
from impl.training.surgery import extract_features, freeze, replace_modules, unfreeze

__all__ = [
    "MetricsRecorder",
    "PeakMemory",
    "RepeatedRuns",
    "TensorBoardReader",
    "TensorBoardWriter",
    "TrainConfig",
    "TrainingLog",
    "compile_model",
    "evaluate",
    "export_embeddings",
    "extract_features",
    "freeze",
    "load_checkpoint",
    "metrics_dashboard",
    "read_metrics",
    "repeat_runs",
    "replace_modules",
    "save_checkpoint",
    "set_seed",
    "train",
    "unfreeze",
    "worker_init",
    "worker_seed",
]
