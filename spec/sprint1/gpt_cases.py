"""Weights for feed-forward layers, blocks and whole GPTs, ours and the library's: given, never left to chance."""

from __future__ import annotations

import math

SMALL = {"vocab_size": 11, "block_size": 7, "n_layer": 2, "n_head": 2, "n_embd": 8}


def feed_forward_shapes(d, bias=True):
    found = {"fc.weight": (4 * d, d), "fc.bias": (4 * d,), "proj.weight": (d, 4 * d), "proj.bias": (d,)}
    return {name: shape for name, shape in found.items() if bias or not name.endswith("bias")}


def block_shapes(d, bias=True):
    found = {"norm1.weight": (d,), "norm1.bias": (d,), "norm2.weight": (d,), "norm2.bias": (d,)}
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        found |= {f"attention.{part}.weight": (d, d), f"attention.{part}.bias": (d,)}
    found |= {f"mlp.{name}": shape for name, shape in feed_forward_shapes(d).items()}
    return {name: shape for name, shape in found.items() if bias or not name.endswith("bias")}


def drawn(draw, shapes, dtype="float64"):
    """Weights of unit gain, gains of norms about 1, biases that matter."""
    import torch

    weights = {}
    for name, shape in shapes.items():
        if "norm" in name and name.endswith("weight"):
            weights[name] = (1.0 + 0.3 * draw.normal(*shape)).to(getattr(torch, dtype))
        else:
            weights[name] = draw.normal(*shape, dtype=dtype, scale=1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.5)
    return weights


def loaded(module, weights):
    module.to(next(iter(weights.values())).dtype)
    module.load_state_dict(weights)
    return module


def dead(weights):
    """The same weights with both projections that end a branch at zero."""
    import torch

    ends = ("out_proj.weight", "out_proj.bias", "mlp.proj.weight", "mlp.proj.bias")
    return {name: torch.zeros_like(value) if name.endswith(ends) else value for name, value in weights.items()}


def library_names(i=None):
    """Of each of our parameters of a block: the library's name, whether it is transposed, which third it is."""
    ours, theirs = ("", "") if i is None else (f"blocks.{i}.", f"transformer.h.{i}.")
    found = {}
    for kind in ("weight", "bias"):
        matrix = kind == "weight"
        found[f"{ours}norm1.{kind}"] = (f"{theirs}ln_1.{kind}", False, None)
        found[f"{ours}norm2.{kind}"] = (f"{theirs}ln_2.{kind}", False, None)
        for third, part in enumerate(("q_proj", "k_proj", "v_proj")):
            found[f"{ours}attention.{part}.{kind}"] = (f"{theirs}attn.c_attn.{kind}", matrix, third)
        found[f"{ours}attention.out_proj.{kind}"] = (f"{theirs}attn.c_proj.{kind}", matrix, None)
        found[f"{ours}mlp.fc.{kind}"] = (f"{theirs}mlp.c_fc.{kind}", matrix, None)
        found[f"{ours}mlp.proj.{kind}"] = (f"{theirs}mlp.c_proj.{kind}", matrix, None)
    return found


def from_library(values, names):
    """The library's tensors under our names and in our layout."""
    found = {}
    for ours, (theirs, transposed, third) in names.items():
        value = values[theirs] if third is None else values[theirs].chunk(3, dim=-1)[third]
        found[ours] = (value.T if transposed else value).detach().clone()
    return found


def shake(module, draw):
    """Weights at which everything matters: the library's initial ones are nearly linear, its biases zero."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(draw.normal(*parameter.shape, scale=0.3).to(parameter.dtype))


def slopes(module, function, draw, within=1e-6):
    """Central differences along a random direction in every parameter, against autograd; all of a tensor at once."""
    import torch

    gradients = torch.autograd.grad(function(), list(module.parameters()))
    scale = max(gradient.norm() for gradient in gradients)
    for (name, parameter), gradient in zip(module.named_parameters(), gradients, strict=True):
        direction, step = draw.normal(*parameter.shape), 1e-5
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(sign * step * direction)
                values.append(function().item())
                parameter.sub_(sign * step * direction)
        slope = (values[0] - values[1]) / (2 * step)
        assert abs(slope - (gradient * direction).sum().item()) <= within * scale * direction.norm(), name


def shapes(shape):
    """Name and shape of every parameter, as the contract has them."""
    d, bias = shape["n_embd"], shape.get("bias", True)
    found = {"token_embedding.weight": (shape["vocab_size"], d), "position_embedding.weight": (shape["block_size"], d)}
    for i in range(shape["n_layer"]):
        found |= {f"blocks.{i}.{name}": size for name, size in block_shapes(d, bias).items()}
    found |= {"norm.weight": (d,)} | ({"norm.bias": (d,)} if bias else {})
    return found | ({} if shape.get("tied", True) else {"head.weight": (shape["vocab_size"], d)})


def model(impl, weights=None, **changes):
    found = impl.models.GPT(impl.models.GPTConfig(**{**SMALL, **changes}))
    return found if weights is None else loaded(found, weights)


def problem(draw, shape, batch=3, time=None):
    """Tokens and targets in which every token and position occurs, where there is room for them."""
    V, T = shape["vocab_size"], time or shape["block_size"]
    tokens, targets = draw.integers(0, V, batch, T), draw.integers(0, V, batch, T)
    order = draw.permutation(V)[: batch * T]
    tokens.view(-1)[: len(order)] = order
    return tokens, targets
