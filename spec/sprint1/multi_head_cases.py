"""Multi-head attention's calls: injected weights, inputs and masks, each switch away from its default somewhere."""

from __future__ import annotations

D, H = 12, 3  # the width and the number of heads, unless a case has its own
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def drawn_weights(draw, d_model=D, bias=True, dtype="float64"):
    """Every weight and bias at random, none of them small: a bias that is left out shows."""
    shape, scale = (d_model, d_model), d_model**-0.5
    weights = {f"{name}.weight": draw.normal(*shape, dtype=dtype, scale=scale) for name in PROJECTIONS}
    if bias:
        weights |= {f"{name}.bias": draw.normal(d_model, dtype=dtype) for name in PROJECTIONS}
    return weights


def loaded(kind, weights, n_heads=H, dropout=0.0):
    """A module of that class with these weights, in evaluation mode."""
    matrix = weights["q_proj.weight"]
    module = kind(len(matrix), n_heads, bias="q_proj.bias" in weights, dropout=dropout).to(matrix.dtype)
    module.load_state_dict(weights)
    return module.eval()


def linear(x, weights, name):
    bias = weights.get(f"{name}.bias")
    return x @ weights[f"{name}.weight"].T + (0.0 if bias is None else bias)


def reals(*lengths, keys):
    """True at the real keys of each row."""
    import torch

    return torch.arange(keys) < torch.tensor(lengths)[:, None]


# Each away from the defaults somewhere; `drawn_call` makes tensors of it.
CASES = {
    "self": {},
    "self, causal": {"is_causal": True},
    "self, padded": {"key_padding_mask": (5, 3)},
    "self, padded and causal": {"key_padding_mask": (2, 5), "is_causal": True},
    "self, boolean mask": {"attn_mask": "boolean"},
    "self, boolean mask and padding": {"attn_mask": "boolean", "key_padding_mask": (5, 3)},
    "self, every mask, boolean": {"attn_mask": "boolean", "key_padding_mask": (4, 5), "is_causal": True},
    "self, every mask": {"attn_mask": "additive", "key_padding_mask": (4, 3), "is_causal": True},
    "a row of padding only": {"key_padding_mask": (0, 5)},
    "cross": {"keys": 7},
    "cross, own values": {"keys": 7, "values": True},
    "cross, equal lengths": {"keys": 5, "values": True},
    "cross, causal": {"keys": 7, "is_causal": True},
    "cross, padded": {"keys": 7, "values": True, "key_padding_mask": (7, 2), "attn_mask": "per head"},
    "fewer keys, causal": {"keys": 3, "is_causal": True},
    "weights": {"need_weights": True, "keys": 7, "key_padding_mask": (6, 4)},
    "weights, blind": {"need_weights": True, "key_padding_mask": (0, 2), "is_causal": True},
    "no bias": {"bias": False, "keys": 7, "is_causal": True},
    "one head": {"n_heads": 1, "need_weights": True},
    "as many heads as channels": {"n_heads": 12, "is_causal": True},
    "no batch": {"batch": (), "keys": 7, "attn_mask": "additive"},
    "several batches": {"batch": (2, 1, 3), "is_causal": True, "need_weights": True},
    "one token": {"batch": (1,), "queries": 1, "need_weights": True, "is_causal": True},
}


def drawn_call(draw, case, dtype="float64"):
    """(inputs, keyword arguments, constructor arguments) of a case."""
    import torch

    options = dict(case)
    batch, queries, keys = options.pop("batch", (2,)), options.pop("queries", 5), options.pop("keys", None)
    init = {"d_model": D, "n_heads": options.pop("n_heads", H), "bias": options.pop("bias", True)}
    inputs = [draw.normal(*batch, queries, D, dtype=dtype)]
    if keys is not None:
        inputs.append(draw.normal(*batch, keys, D, dtype=dtype))
    if options.pop("values", False):
        inputs.append(draw.normal(*batch, keys, D, dtype=dtype))
    keys = queries if keys is None else keys
    if "key_padding_mask" in options:
        options["key_padding_mask"] = reals(*options["key_padding_mask"], keys=keys)
    if options.get("attn_mask") == "boolean":
        options["attn_mask"] = draw.booleans(queries, keys) | torch.eye(queries, keys, dtype=torch.bool)
    elif options.get("attn_mask") == "additive":
        options["attn_mask"] = draw.normal(queries, keys, dtype=dtype)
    elif options.get("attn_mask") == "per head":
        options["attn_mask"] = draw.normal(1, init["n_heads"], queries, keys, dtype=dtype)
    return inputs, options, init
