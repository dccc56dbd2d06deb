"""Mistakes that slipped through the first checks of `training`: files on the disk, seeds, strictness, words."""

from __future__ import annotations

from touchstone import Mutant

TRAIN, EVALUATE, SAVE, INIT = "training.train", "training.evaluate", "training.save_checkpoint", "training.worker_init"

MUTANTS = [
    Mutant(
        "checkpoint_is_copied_into_place",
        SAVE,
        old="        aside.replace(path)\n",
        new="        path.write_bytes(aside.read_bytes())\n",
        says="copies the new file over the old one: a crash in between leaves half of it",
    ),
    Mutant(
        "checkpoint_is_not_flushed",
        SAVE,
        old="            os.fsync(file.fileno())\n",
        new="",
        says="renames a file that is not on the disk: after a power cut it is there, and empty",
    ),
    Mutant(
        "checkpoint_comes_from_another_disk",
        SAVE,
        old='aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")',
        new='import tempfile\n    aside = Path(tempfile.mkdtemp()) / f"{path.name}.tmp"',
        says="writes into the folder for temporary files, from where a rename may be impossible or a copy",
    ),
    Mutant(
        "validation_builds_a_graph",
        EVALUATE,
        old="@torch.no_grad()\n",
        new="",
        says="keeps a graph of every validation batch that nobody will use",
    ),
    Mutant(
        "run_is_less_strict_than_its_caller",
        TRAIN,
        old="set_seed(config.seed, strict=torch.are_deterministic_algorithms_enabled())",
        new="set_seed(config.seed)",
        says="switches off the deterministic algorithms that the caller had switched on",
    ),
    Mutant(
        "dropout_always_from_seed_zero",
        TRAIN,
        old="set_seed(config.seed, strict=",
        new="set_seed(0, strict=",
        says="seeds dropout with 0 whatever the run's seed: runs under several seeds drop the same",
    ),
    Mutant(
        "workers_are_part_of_the_run",
        TRAIN,
        old='names = [one.name for one in fields(TrainConfig) if one.name != "workers"]',
        new="names = [one.name for one in fields(TrainConfig)]",
        says="refuses to resume with another number of workers, which changes nothing",
    ),
    Mutant(
        "infinite_losses_pass",
        TRAIN,
        old="        if not math.isfinite(value):",
        new="        if math.isnan(value):",
        says="stops at NaN, but makes an update from an infinite loss",
    ),
    Mutant(
        "validation_shifts_dropout",
        TRAIN,
        old="            log.validation_loss.append(evaluate(model, validation))\n",
        new="            log.validation_loss.append(evaluate(model, validation))\n            torch.rand(1)\n",
        says="draws a random number at each validation, so that later dropout depends on how often it runs",
    ),
    Mutant(
        "configuration_can_change",
        "training.TrainConfig",
        old="@dataclass(frozen=True)\nclass TrainConfig",
        new="@dataclass\nclass TrainConfig",
        says="can be changed while it runs, and its checkpoints then name another run",
    ),
    Mutant(
        "configuration_has_adams_betas",
        "training.TrainConfig",
        old="    betas: tuple[float, float] = (0.9, 0.95)\n",
        new="    betas: tuple[float, float] = (0.9, 0.999)\n",
        says="has Adam's own second beta by default, 0.999, not the 0.95 of language models",
    ),
    Mutant(
        "runs_in_the_order_of_their_seeds",
        "training.repeat_runs",
        old="given = tuple(seeds)",
        new="given = tuple(sorted(seeds))",
        says="sorts the seeds: figures come back in another order than they were asked for",
    ),
    Mutant(
        "runs_in_fixed_decimals",
        "training.RepeatedRuns",
        old="{self.mean:.6g} ± {self.std:.6g}",
        new="{self.mean:.6f} ± {self.std:.6f}",
        says="prints six decimals, not six significant digits",
    ),
    Mutant(
        "worker_init_is_a_closure",
        INIT,
        old="return partial(_seed_worker, seed, epoch)",
        new="return lambda worker: _seed_worker(seed, epoch, worker)",
        says="cannot be pickled, so it reaches no worker that is started afresh",
    ),
    Mutant(
        "worker_init_seeds_torch_only",
        INIT,
        old="    set_seed(worker_seed(seed, epoch, worker), strict=torch.are_deterministic_algorithms_enabled())",
        new="    torch.manual_seed(worker_seed(seed, epoch, worker))",
        says="leaves Python's and NumPy's generators alike in all workers",
    ),
    Mutant(
        "worker_seed_of_pythons_hash",
        "training.worker_seed",
        old='    return int.from_bytes(digest[:4], "little")',
        new='    return hash(f"worker {seed} {epoch} {worker}") % 2**32',
        says="hashes a string with Python's own hash, which differs from process to process",
    ),
]
