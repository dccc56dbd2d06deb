"""Mistakes that people make in a training loop, its validation, its checkpoints and its random numbers."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, old, new, says) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


_CLEAR = "        optimizer.zero_grad(set_to_none=True)\n"
_SET = """        for group in optimizer.param_groups:  # before the update: it is the rate of this one
            group["lr"] = rate
"""
_STEP = "        optimizer.step()\n"
_CLIP = "        norm = nn.utils.clip_grad_norm_(model.parameters(), limit)\n"
_MATRICES = '{"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": weight_decay},'
_VECTORS = '{"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},'
_TOTAL = "total += float(loss) * targets.numel()"
_HASH = 'digest = hashlib.sha256(f"worker {seed} {epoch} {worker}".encode()).digest()'

MUTANTS = [
    *_of(
        "training.train",
        ("gradients_pile_up", _CLEAR, "", "never clears gradients: each update adds to all before it"),
        (
            "cleared_before_the_update",
            _STEP,
            "        optimizer.zero_grad(set_to_none=False)\n        optimizer.step()\n",
            "clears gradients between backward and update",
        ),
        ("rate_after_the_update", _SET, "", "never sets the rate: every update has the peak"),
        (
            "rate_one_late",
            _STEP,
            _STEP
            + (
                "        for group in optimizer.param_groups:\n"
                '            group["lr"] = linear_warmup(step + 1, peak=config.learning_rate, '
                'warmup=config.warmup, total=config.steps)\n        rate = optimizer.param_groups[0]["lr"]\n'
            ),
            "logs the rate of the next update",
        ),
        (
            "warmup_from_one",
            "rate = linear_warmup(step, peak",
            "rate = linear_warmup(step + 1, peak",
            "is one update ahead in its warm-up",
        ),
        (
            "half_the_groups",
            _SET,
            _SET.replace("optimizer.param_groups:", "optimizer.param_groups[:1]:"),
            "sets the rate of the first parameter group only",
        ),
        (
            "decay_on_vectors",
            _VECTORS,
            _VECTORS.replace("0.0", "weight_decay"),
            "decays biases and the gains of norms too",
        ),
        ("no_decay", _MATRICES, _MATRICES.replace("weight_decay}", "0.0}"), "does not decay"),
        (
            "default_decay",
            _MATRICES,
            _MATRICES.replace(', "weight_decay": weight_decay', ""),
            "leaves the decay at AdamW's own default of 0.01",
        ),
        (
            "l2_instead_of_decay",
            "torch.optim.AdamW(",
            "torch.optim.Adam(",
            "adds the decay to the gradient (Adam with L2), where it is divided by √v",
        ),
        (
            "clipping_forgotten",
            _CLIP,
            "        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf)\n",
            "does not clip",
        ),
        (
            "clipped_by_value",
            _CLIP,
            _CLIP.replace("limit", "math.inf") + "        nn.utils.clip_grad_value_(model.parameters(), limit)\n",
            "clips every entry on its own instead of the whole gradient by its norm",
        ),
        (
            "clipped_after_the_update",
            _CLIP + "        optimizer.step()\n",
            "        optimizer.step()\n" + _CLIP,
            "clips after the update",
        ),
        (
            "norm_after_clipping",
            _CLIP,
            _CLIP + "        norm = torch.clamp(norm, max=limit)\n",
            "logs the norm after clipping: it can never be seen to explode",
        ),
        (
            "betas_ignored",
            "config.learning_rate, config.betas, eps=1e-8, fused=True)",
            "config.learning_rate, eps=1e-8, fused=True)",
            "leaves AdamW's betas at their defaults",
        ),
        (
            "evaluation_mode",
            "    model.train()\n    for step",
            "    model.eval()\n    for step",
            "trains in eval mode: no dropout",
        ),
        (
            "mode_not_restored",
            "            module.training = training\n",
            "            pass\n",
            "leaves the model in train mode whatever it was",
        ),
        (
            "same_batch",
            "seed=self.config.seed, step=step)",
            "seed=self.config.seed, step=0)",
            "trains on the first batch again and again",
        ),
        (
            "data_seed_ignored",
            "seed=self.config.seed, step=step)",
            "seed=0, step=step)",
            "has one order of data for all seeds",
        ),
        ("tokens_of_one_row", "tokens.numel())", "tokens.shape[1])", "counts the tokens of one row a batch"),
        ("steps_from_zero", "log.step.append(done)", "log.step.append(step)", "logs updates from 0"),
        (
            "one_update_less",
            "steps, made = range(first, config.steps)",
            "steps, made = range(first, config.steps - 1)",
            "makes one update less than asked",
        ),
        (
            "no_first_validation",
            "    if first == 0 and config.evaluate_every:\n        validate(0)\n",
            "",
            "does not validate before the first update",
        ),
        (
            "no_last_validation",
            "return done == last or (every",
            "return (every",
            "misses the last update unless it falls on the interval",
        ),
        (
            "resume_without_random_state",
            '    set_random_state(state["random"])\n',
            "",
            "resumes without the random state: other dropout masks",
        ),
        (
            "resume_without_moments",
            '    optimizer.load_state_dict(state["optimizer"])\n',
            "",
            "resumes with fresh moments",
        ),
        (
            "resume_without_weights",
            '    model.load_state_dict(state["model"])\n',
            "",
            "resumes with the weights it was given",
        ),
        (
            "resume_from_zero",
            'return int(state["step"]), Tr',
            "return 0, Tr",
            "resumes at step 0: schedule and data begin again",
        ),
        (
            "resume_one_late",
            'return int(state["step"]), Tr',
            'return int(state["step"]) + 1, Tr',
            "skips a batch when it resumes",
        ),
        ("log_forgotten", 'TrainingLog(**state["log"])', "TrainingLog()", "forgets the log of what went before"),
        ("any_run_resumed", "    if changed:\n", "    if False:\n", "resumes a run of another configuration"),
        (
            "seed_not_set",
            "    set_seed(config.seed, strict=torch.are_deterministic_algorithms_enabled())\n",
            "",
            "does not seed dropout: a run depends on who drew before",
        ),
        (
            "callers_state_changed",
            "        with preserved_random_state():\n            return",
            "        if True:\n            return",
            "leaves the caller's generators somewhere else",
        ),
        (
            "nan_trained_on",
            "if not math.isfinite(value):",
            "if value == math.inf:",
            "goes on after a loss that is not a number",
        ),
        (
            "loss_after_the_update",
            "log.loss.append(value)",
            "log.loss.append(float(model(tokens, targets)[1].detach()))",
            "logs the loss after the update, on a batch it has just learnt",
        ),
    ),
    *_of(
        "training.evaluate",
        (
            "mean_of_means",
            f"{_TOTAL}\n                count += targets.numel()",
            "total += float(loss)\n                count += 1",
            "averages the means of batches: a short last batch weighs too much",
        ),
        ("train_mode", "        model.eval()\n", "", "validates in train mode, dropout on"),
        (
            "left_in_evaluation",
            "                module.training = training\n",
            "                pass\n",
            "leaves the model in eval mode",
        ),
        (
            "all_parts_to_train",
            "                module.training = training\n",
            "                module.training = modes[0][1]\n",
            "puts every part into the mode of the whole: what was frozen thaws",
        ),
        (
            "moves_the_generators",
            "    with preserved_random_state():\n",
            "    if True:\n",
            "lets the validation data move the random generators",
        ),
        (
            "first_batch_only",
            "                count += targets.numel()\n",
            "                count += targets.numel()\n                break\n",
            "scores the first batch only",
        ),
        ("perplexity", "return total / count", "return 2.718281828459045 ** (total / count)", "returns a perplexity"),
        ("bits", "return total / count", "return total / count / 0.6931471805599453", "returns bits, not nats"),
        (
            "clears_gradients",
            "        model.eval()\n",
            "        model.eval()\n        model.zero_grad()\n",
            "clears the gradients on the way",
        ),
    ),
    *_of(
        "training.save_checkpoint",
        (
            "written_in_place",
            'with aside.open("wb") as file:',
            'with path.open("wb") as file, aside.open("wb"):',
            "writes over the old file: a crash half-way loses both",
        ),
        (
            "leaves_rubbish",
            "        aside.unlink(missing_ok=True)\n",
            "        pass\n",
            "leaves a half-written file behind when it fails",
        ),
        (
            "no_folder",
            "    path.parent.mkdir(parents=True, exist_ok=True)\n",
            "",
            "fails where the folder does not exist",
        ),
    ),
    *_of(
        "training.load_checkpoint",
        ("runs_code", "weights_only=True", "weights_only=False", "unpickles anything: loading runs code from the file"),
        (
            "anything_goes",
            "    if not isinstance(state, dict):\n",
            "    if False:\n",
            "returns whatever the file holds",
        ),
    ),
    *_of(
        "training.set_seed",
        ("python_forgotten", "    random.seed(seed)\n", "", "does not seed Python's random"),
        ("numpy_forgotten", "    np.random.seed(seed)\n", "", "does not seed NumPy"),
        ("torch_forgotten", "    torch.manual_seed(seed)\n", "", "does not seed torch"),
        (
            "strict_ignored",
            "torch.use_deterministic_algorithms(strict)",
            "torch.use_deterministic_algorithms(False)",
            "ignores the strict flag",
        ),
        (
            "strict_for_ever",
            "torch.use_deterministic_algorithms(strict)",
            "torch.use_deterministic_algorithms(strict or torch.are_deterministic_algorithms_enabled())",
            "cannot be made lenient again",
        ),
        (
            "wraps_round",
            "    if not 0 <= seed < _LIMIT:\n        raise",
            "    seed %= _LIMIT\n    if seed < 0:\n        raise",
            "takes seeds out of range round: two numbers are one seed",
        ),
    ),
    *_of(
        "training.worker_seed",
        (
            "sum_of_all",
            _HASH,
            "digest = (seed + epoch + worker).to_bytes(8, 'little')",
            "adds its arguments: worker 1 of epoch 0 is worker 0 of epoch 1",
        ),
        (
            "epoch_ignored",
            _HASH,
            'digest = hashlib.sha256(f"worker {seed} {worker}".encode()).digest()',
            "gives a worker the same numbers every epoch",
        ),
        (
            "worker_ignored",
            _HASH,
            'digest = hashlib.sha256(f"worker {seed} {epoch}".encode()).digest()',
            "gives all workers the same numbers",
        ),
        (
            "seed_ignored",
            _HASH,
            'digest = hashlib.sha256(f"worker {epoch} {worker}".encode()).digest()',
            "ignores the seed",
        ),
        (
            "run_together",
            _HASH,
            'digest = hashlib.sha256(f"worker {seed}{epoch}{worker}".encode()).digest()',
            "writes its arguments without a space: (1, 11, 0) is (11, 1, 0)",
        ),
        ("too_large", "digest[:4]", "digest[:5]", "gives seeds that NumPy refuses"),
    ),
    *_of(
        "training.worker_init",
        (
            "every_worker_alike",
            "return partial(_seed_worker, seed, epoch)",
            "return lambda worker: _seed_worker(seed, epoch, 0)",
            "seeds every worker as worker 0",
        ),
        (
            "epoch_dropped",
            "return partial(_seed_worker, seed, epoch)",
            "return partial(_seed_worker, seed, 0)",
            "seeds every epoch alike",
        ),
    ),
    *_of(
        "training.repeat_runs",
        (
            "population_spread",
            "statistics.stdev(values)",
            "statistics.pstdev(values)",
            "divides by n: the spread of a sample comes out too small",
        ),
        (
            "first_seed_again",
            "float(run(seed)) for seed in given",
            "float(run(given[0])) for seed in given",
            "runs the first seed again and again",
        ),
        ("median", "statistics.fmean(values)", "statistics.median(values)", "reports the median for the mean"),
        ("one_run_is_enough", "if len(given) < 2:", "if len(given) < 1:", "reports a spread of one run"),
    ),
]
