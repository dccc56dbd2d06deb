"""Mistakes that people make in absolute positions: impl/attention/sinusoidal.py and impl/attention/learned.py."""

from __future__ import annotations

from touchstone import Mutant

SINUSOIDS = "attention.sinusoidal_positions"
TABLE = "attention.LearnedPositions"

_EXPONENTS = "torch.arange(0, d_model, 2, dtype=torch.float64, device=positions.device) / -d_model"
_ANGLES = "angles = positions.unsqueeze(-1) * base**exponents"
_JOINED = "torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)"

OF_SINUSOIDS = [
    ("halves", _JOINED, "torch.cat((angles.sin(), angles.cos()), dim=-1)", "holds all sines first, then all cosines"),
    (
        "cosine_first",
        _JOINED,
        _JOINED.replace("angles.sin(), angles.cos()", "angles.cos(), angles.sin()"),
        "puts the cosine first",
    ),
    ("sine_only", _JOINED, _JOINED.replace("angles.cos()", "angles.sin()"), "has the sine twice"),
    (
        "exponent_halved",
        _EXPONENTS,
        _EXPONENTS.replace("-d_model", "(-2 * d_model)"),
        "uses base^(−i/d) for base^(−2i/d)",
    ),
    (
        "exponent_doubled",
        _EXPONENTS,
        _EXPONENTS.replace("/ -d_model", "* 2 / -d_model"),
        "uses base^(−4i/d) for base^(−2i/d)",
    ),
    (
        "exponent_of_pairs",
        _EXPONENTS,
        _EXPONENTS.replace("/ -d_model", "/ -max(d_model - 2, 1)"),
        "spreads the exponents from 0 to 1, ends included (Tensor2Tensor's)",
    ),
    ("exponent_positive", _EXPONENTS, _EXPONENTS.replace("-d_model", "d_model"), "speeds the angles up with i"),
    ("base_hard_coded", _ANGLES, _ANGLES.replace("base**", "10000.0**"), "ignores its base"),
    ("position_plus_one", _ANGLES, _ANGLES.replace("positions.", "(positions + 1)."), "counts positions from 1"),
    (
        "index_for_position",
        _ANGLES,
        _ANGLES.replace("positions.unsqueeze(-1)", "torch.arange(positions.numel()).view_as(positions).unsqueeze(-1)"),
        "encodes the index in the tensor, not the position",
    ),
    ("angles_in_float32", _EXPONENTS, _EXPONENTS.replace("float64", "float32"), "forms angles in float32"),
    ("float32_out", _JOINED, _JOINED + ".float()", "rounds to float32"),
    ("odd_width", "if d_model < 2 or d_model % 2:", "if d_model < 2:", "accepts an odd width"),
    ("negative", "int(positions.min()) < 0:", "int(positions.min()) < -1000000:", "accepts a negative position"),
    ("any_base", "if not 0.0 < base < math.inf:", "if base <= 0.0:", "accepts a base that is no number"),
    ("floating_positions", "if positions.dtype not in _INTEGERS:", "if False:", "accepts floating positions"),
    ("scaled", _JOINED, _JOINED + " * (2 / d_model) ** 0.5", "normalises each row to length 1"),
]

_ROWS = "positions % len(self.weight)"
_BEYOND = 'raise ValueError(f"positions: {highest} is'
_UNHEARD = "\n            if False:\n                " + _BEYOND
_LOOKED_UP = "return nn.functional.embedding(positions.long(), self.weight)"

OF_THE_TABLE = [
    (
        "clamped",
        _BEYOND,
        "positions = positions.clamp(max=len(self.weight) - 1)" + _UNHEARD,
        "takes the last row for every position beyond it",
    ),
    ("wrapped", _BEYOND, "positions = " + _ROWS + _UNHEARD, "wraps around at its end"),
    (
        "end_off_by_one",
        "highest >= len(self.weight)",
        "highest > len(self.weight)",
        "lets the first position beyond the table through to an IndexError",
    ),
    (
        "negative_from_the_end",
        "            if lowest < 0:",
        "            positions = positions % len(self.weight)\n            if False:",
        "reads negative positions from the end",
    ),
    (
        "index_for_position",
        _LOOKED_UP,
        "return self.weight[: positions.shape[-1]].expand(*positions.shape, -1)",
        "reads the first rows whatever the positions",
    ),
    (
        "off_by_one",
        _LOOKED_UP,
        "return nn.functional.embedding((positions.long() + 1) % len(self.weight), self.weight)",
        "reads the row after",
    ),
    ("detached", _LOOKED_UP, "return nn.functional.embedding(positions.long(), self.weight.detach())", "never learns"),
    (
        "padding_row",
        _LOOKED_UP,
        "return nn.functional.embedding(positions.long(), self.weight, padding_idx=0)",
        "gives position 0 no gradient, as to padding",
    ),
    (
        "by_frequency",
        _LOOKED_UP,
        "return nn.functional.embedding(positions.long(), self.weight, scale_grad_by_freq=True)",
        "divides a row's gradient by how often it was read",
    ),
    (
        "weight_decay_for_all",
        _LOOKED_UP,
        _LOOKED_UP + " + (self.weight.mean() - self.weight.mean().detach())",
        "gives rows that were not read a gradient",
    ),
    (
        "std_ignored",
        "torch.randn(max_positions, d_model) * std",
        "torch.randn(max_positions, d_model) * 0.02",
        "ignores its std",
    ),
    ("std_of_one", "std: float = 0.02", "std: float = 1.0", "begins at σ = 1"),
    (
        "uniform",
        "torch.randn(max_positions, d_model) * std",
        "torch.rand(max_positions, d_model) * std",
        "begins uniform and positive",
    ),
    ("scaled", _LOOKED_UP, _LOOKED_UP + " * self.weight.shape[1] ** 0.5", "scales what it looks up"),
    (
        "buffer",
        "self.weight = nn.Parameter(torch.randn(max_positions, d_model) * std)",
        "self.register_buffer('weight', torch.randn(max_positions, d_model) * std)",
        "keeps its table as a buffer",
    ),
]

MUTANTS = [
    *(Mutant(f"sinusoids_{name}", SINUSOIDS, old, new, says) for name, old, new, says in OF_SINUSOIDS),
    *(Mutant(f"learned_positions_{name}", TABLE, old, new, says) for name, old, new, says in OF_THE_TABLE),
]
