"""Mistakes that people make on a formula sheet."""

from __future__ import annotations

from touchstone import Mutant


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the sheet."""
    return [Mutant(name, "workflow.formula_sheet", old, new, says) for name, says, old, new in patches]


MUTANTS = _of(
    (
        "scale_by_d",
        "divides scores by d, not by √d",
        '            {"power": 0.5},\n            _attention',
        '            {"power": 1.0},\n            _attention',
    ),
    (
        "eps_outside",
        "adds ε outside the root",
        '.mean(axis=-1, keepdims=True) + c["ε"]) ** c["power"] *',
        '.mean(axis=-1, keepdims=True) ** c["power"] + c["ε"]) *',
    ),
    (
        "sample_variance",
        "divides the variance by d − 1",
        "(centred**2).mean(axis=-1, keepdims=True)",
        "(centred**2).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)",
    ),
    (
        "tanh_gelu",
        "gives GELU's approximation for GELU",
        '(1 + _erf(x / c["√2"]))',
        '(1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)) + 0 * c["√2"])',
    ),
    (
        "sum_for_mean",
        "adds up the losses of a batch",
        "(top + spread - chosen).mean()",
        "(top + spread - chosen).sum()",
    ),
    (
        "neighbours",
        "pairs neighbours where halves are promised",
        "a, b = x[..., :half], x[..., half:]",
        "a, b = x[..., ::2], x[..., 1::2]",
    ),
    ("turned_back", "turns the other way", "angles = m[:, None]", "angles = -m[:, None]"),
    (
        "theta_without_two",
        "leaves out the 2 of θ's exponent",
        '{"base": 10000.0, "two": 2}',
        '{"base": 10000.0, "two": 1}',
    ),
    ("slopes_from_zero", "counts heads from 0", "np.arange(1, heads + 1)", "np.arange(heads)"),
    ("keys_only", "counts keys without values", '{"keys and values": 2}', '{"keys and values": 1}'),
    ("biases_forgotten", "counts 9 d of vectors a block for 13 d", '"vectors": 13', '"vectors": 9'),
    ("untied", "counts the head apart", "(vocabulary + context) * width", "(2 * vocabulary + context) * width"),
    ("last_micro_batch", "counts the tokens of one micro-batch", "sum(tokens)", "tokens[-1]"),
    (
        "hard_coded",
        "writes its constant into the formula, where nobody can change it",
        'c["base"] **',
        "10000.0 **",
    ),
    ("wrong_symbol", "names another implementation", '"nn.layer_norm"', '"nn.LayerNorm"'),
    ("entry_left_out", "leaves ALiBi out", '            "alibi",\n', '            "linear-bias",\n'),
    (
        "borrowed",
        "evaluates by the implementation itself",
        '    powers = c["e"] ** (x - x.max(axis=-1, keepdims=True))\n',
        "    powers = np.exp(x - x.max(axis=-1, keepdims=True))\n",
    ),
)
