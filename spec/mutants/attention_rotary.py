"""Mistakes that people make in rotary position embedding; each is a patch of impl/attention/positions.py."""

from __future__ import annotations

from touchstone import Mutant

ROTARY = "attention.apply_rotary"
MODULE = "attention.RotaryEmbedding"

_ANGLES = "angles = positions.unsqueeze(-1) * base**exponents"
_TURN = "return angles.cos(), angles.sin()"
_EXPONENT = "torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / -head_dim"
_STACKED = "torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)"
_JOINED = "torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)"
_CAST = "cos, sin, wide = cos.to(compute), sin.to(compute), x.to(compute)"

ROPE = [
    ("base_hard_coded", _ANGLES, _ANGLES.replace("base**", "10000.0**"), "ignores the base it is given"),
    (
        "exponent_halved",
        _EXPONENT,
        _EXPONENT.replace("-head_dim", "(-2 * head_dim)"),
        "uses base^(−j/d) for base^(−2j/d)",
    ),
    (
        "exponent_from_one",
        _EXPONENT,
        _EXPONENT.replace("(0, head_dim, 2", "(2, head_dim + 2, 2"),
        "counts the pairs from 1",
    ),
    ("exponent_positive", _EXPONENT, _EXPONENT.replace("-head_dim", "head_dim"), "speeds the angles up with j"),
    ("sine_negated", _TURN, "return angles.cos(), -angles.sin()", "turns the wrong way"),
    ("cosine_and_sine_swapped", _TURN, "return angles.sin(), angles.cos()", "swaps cosine and sine"),
    (
        "second_sign_lost",
        _JOINED,
        _JOINED.replace("a * cos - b * sin", "a * cos + b * sin"),
        "adds where it should subtract",
    ),
    ("pairings_swapped", 'if pairing == "halves":', 'if pairing != "halves":', "swaps the two pairings"),
    ("pairing_ignored", 'if pairing == "halves":', "if True:", "always pairs the halves"),
    ("pairings_mixed", _STACKED, _JOINED, "reads neighbours and writes halves"),
    ("half_the_channels", _JOINED, "torch.cat((a * cos - b * sin, b), dim=-1)", "turns only half of the channels"),
    (
        "index_for_position",
        _ANGLES,
        _ANGLES.replace("positions", "torch.arange(positions.shape[-1])"),
        "turns by the index in the chunk, not by the position",
    ),
    ("position_plus_one", _ANGLES, _ANGLES.replace("positions", "(positions + 1)"), "counts positions from 1"),
    (
        "relative_to_the_first",
        _ANGLES,
        _ANGLES.replace("positions", "(positions - positions[..., :1])"),
        "counts from the first token of the chunk",
    ),
    (
        "angles_in_float32",
        _EXPONENT,
        _EXPONENT.replace("float64", "float32"),
        "forms angles in float32: near 100,000 they err by 4e-3",
    ),
    (
        "angles_in_bfloat16",
        _TURN,
        "angles = angles.bfloat16().double()\n    " + _TURN,
        "forms angles in bfloat16: they err by turns",
    ),
    (
        "rotated_in_half_precision",
        "compute = torch.float32 if x.dtype in _HALF else x.dtype",
        "compute = x.dtype",
        "multiplies in half precision, rounding four times",
    ),
    ("stays_in_float32", "return turned.to(x.dtype)", "return turned", "returns float32 for half-precision inputs"),
    ("gradient_lost", _CAST, _CAST.replace("x.to", "x.detach().to"), "gives no gradient"),
    ("length_changed", _TURN, "return angles.cos() * 1.05, angles.sin() * 1.05", "stretches what it turns"),
    ("negative_positions", "if lowest < 0:", "if False:", "accepts a negative position"),
    ("odd_width", "if head_dim < 2 or head_dim % 2:", "if head_dim < 2:", "accepts an odd head_dim"),
    ("any_positions", "    if not fits or any(", "    if False and any(", "accepts positions that do not fit"),
]

_BOTH = "return _rotate(query, cos, sin, self.pairing), _rotate(key, cos, sin, self.pairing)"

EMBEDDING = [
    ("keys_not_rotated", _BOTH, "return _rotate(query, cos, sin, self.pairing), key", "rotates queries only"),
    (
        "keys_rotated_back",
        _BOTH,
        _BOTH.replace("_rotate(key, cos, sin", "_rotate(key, cos, -sin"),
        "turns keys the other way, so that scores know the sum of positions",
    ),
    (
        "base_ignored",
        "_turns(positions, self.head_dim, self.base)",
        "_turns(positions, self.head_dim, 10000.0)",
        "ignores its base",
    ),
    ("pairing_ignored", _BOTH, _BOTH.replace("self.pairing", '"halves"'), "ignores its pairing"),
    (
        "positions_along_the_heads",
        "positions = positions.unsqueeze(-2)",
        "positions = positions.unsqueeze(0)",
        "gives each head a row's positions",
    ),
    (
        "positions_of_the_first_row",
        "positions = positions.unsqueeze(-2)",
        "positions = positions[:1].unsqueeze(-2)",
        "turns every row by the first row's positions",
    ),
    (
        "index_for_position",
        _ANGLES,
        _ANGLES.replace("positions", "torch.arange(positions.shape[-1])"),
        "turns by the index in the chunk, not by the position",
    ),
    (
        "table_is_saved",
        "        self.max_positions = max_positions\n",
        "        self.max_positions = max_positions\n"
        "        self.register_buffer('table', torch.arange(head_dim) * base)\n",
        "puts its table into every checkpoint",
    ),
    (
        "table_in_the_queries_dtype",
        "cos, sin = _turns(positions, self.head_dim, self.base)",
        "cos, sin = (t.to(query.dtype).double() for t in _turns(positions, self.head_dim, self.base))",
        "keeps the table of cosines in the model's precision",
    ),
    ("end_off_by_one", "highest >= end", "highest > end", "accepts the first position beyond the context"),
    (
        "end_ignored",
        "_check_positions(positions, self.max_positions)",
        "_check_positions(positions)",
        "ignores max_positions",
    ),
]

MUTANTS = [
    *(Mutant(name, ROTARY, old, new, says) for name, old, new, says in ROPE),
    *(Mutant(f"module_{name}", MODULE, old, new, says) for name, old, new, says in EMBEDDING),
]
