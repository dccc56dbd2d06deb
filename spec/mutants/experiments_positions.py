"""Mistakes in a comparison of position encodings; patches of impl/experiments/positions.py."""

from __future__ import annotations

from touchstone import Mutant

ARMS = "experiments.position_arms"
RUN = "experiments.position_ablation"
TABLE = "experiments.position_table"

_ARM = 'arms[scheme] = {"task": task, "model": asdict(model), "training": asdict(training)}'
_SHARED = "own = model.load_state_dict(shared.state_dict(), strict=False).missing_keys"
_WATCHED = "batches = _Watched(_task(ablation, None, seed))"
_SETTINGS = 'settings = TrainConfig(**resolved["training"])'
_MEAN = "sum(each[what] for each in found) / len(found)"

FOUND = [
    (
        ARMS,
        "seed_by_arm",
        _ARM,
        _ARM + '\n        arms[scheme]["training"]["seed"] = len(arms)',
        "gives each arm a seed of its own",
    ),
    (
        ARMS,
        "rate_by_arm",
        _ARM,
        _ARM + '\n        if scheme == "rotary":\n            arms[scheme]["training"]["learning_rate"] *= 2',
        "tunes the rate for one arm",
    ),
    (
        ARMS,
        "width_by_arm",
        _ARM,
        _ARM + '\n        if scheme == "none":\n            arms[scheme]["model"]["n_layer"] += 1',
        "gives the bare arm a layer more",
    ),
    (
        ARMS,
        "one_scheme",
        "positions=scheme,",
        "positions=ablation.schemes[0],",
        "trains the first encoding under every name",
    ),
    (ARMS, "heads_fixed", "n_head=ablation.n_head,", "n_head=2,", "ignores the number of heads"),
    (ARMS, "encoder_is_causal", 'causal=ablation.task == "copy",', "causal=True,", "masks the encoder's tasks too"),
    (ARMS, "rate_ignored", "learning_rate=ablation.learning_rate,", "learning_rate=1e-3,", "ignores the learning rate"),
    (ARMS, "table_too_short", "max_positions=width,", "max_positions=width - 1,", "makes the table one row too short"),
    (ARMS, "duplicates", "len(set(ablation.schemes)) < len(ablation.schemes)", "False", "accepts an encoding twice"),
    (
        RUN,
        "own_beginning",
        _SHARED,
        "own = set(model.state_dict()) - set(shared.state_dict())",
        "lets arms begin with different weights",
    ),
    (
        RUN,
        "data_by_arm",
        _WATCHED,
        'batches = _Watched(_task(ablation, None, seed + len(resolved["model"]["positions"])))',
        "shows each arm other examples",
    ),
    (
        RUN,
        "steps_by_arm",
        _SETTINGS,
        _SETTINGS.replace(
            '(**resolved["training"])', '(**{**resolved["training"], "steps": ablation.steps + len(own)})'
        ),
        "trains later arms for longer",
    ),
    (
        RUN,
        "untrained_after",
        '"untrained": untrained,',
        '"untrained": _test(model, ablation, ablation.lengths[1], seed),',
        "calls the trained model untrained",
    ),
    (
        RUN,
        "own_not_counted",
        '"own_parameters": sum(model.get_parameter(name).numel() for name in own),',
        '"own_parameters": 0,',
        "hides what an encoding brings",
    ),
    (
        RUN,
        "hash_of_shapes",
        "self.hash.update(tokens.numpy().tobytes() + targets.numpy().tobytes())",
        "self.hash.update(str(tokens.shape).encode())",
        "hashes the shapes of batches, not what is in them",
    ),
    (
        RUN,
        "one_length_tested",
        "_test(model, ablation, length, seed) for length in",
        "_test(model, ablation, ablation.lengths[1], seed) for length in",
        "tests every length at the longest trained",
    ),
    (TABLE, "first_seed", _MEAN, "found[0][what]", "shows the first seed only"),
    (TABLE, "best_seed", _MEAN, "max(each[what] for each in found)", "shows the best seed"),
    (
        TABLE,
        "columns_swapped",
        'for what in ("loss", "accuracy"):',
        'for what in ("accuracy", "loss"):',
        "swaps the columns",
    ),
    (
        TABLE,
        "refused_is_zero",
        '"refused" if mean is None',
        '"0.000" if mean is None',
        "shows a refusal as a loss of zero",
    ),
    (
        TABLE,
        "any_runs",
        "if any(list(run) != schemes for run in runs):",
        "if False:",
        "mixes runs of different encodings",
    ),
    (TABLE, "two_digits", "{mean:.3f}", "{mean:.2f}", "rounds to two decimals"),
]

MUTANTS = [Mutant(f"{target.split('.')[1]}_{name}", target, old, new, says) for target, name, old, new, says in FOUND]
