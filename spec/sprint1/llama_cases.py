"""Shapes, weights and transformers' names of small Llamas, for the tests that share them."""

from __future__ import annotations

import math
from typing import Any

SMALL = {"vocab_size": 13, "block_size": 10, "n_layer": 2, "n_head": 4, "n_embd": 16, "n_hidden": 20}
GPT2 = {"norm": "layer", "activation": "gelu", "positions": "learned", "bias": True, "tied": True}


def shapes(shape: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, as the contract has them."""
    d, h, V = shape["n_embd"], shape["n_hidden"], shape["vocab_size"]
    kv = d // shape["n_head"] * (shape.get("n_kv_head") or shape["n_head"])
    plain = shape.get("activation", "swiglu") in ("gelu", "relu")
    mlp = {"fc": (h, d), "proj": (d, h)} if plain else {"gate_proj": (h, d), "up_proj": (h, d), "down_proj": (d, h)}
    attention = {"q_proj": (d, d), "k_proj": (kv, d), "v_proj": (kv, d), "out_proj": (d, d)}
    layered = shape.get("norm", "rms") == "layer"
    found: dict[str, tuple[int, ...]] = {"token_embedding.weight": (V, d)}
    if shape.get("positions", "rotary") == "learned":
        found["position_embedding.weight"] = (shape["block_size"], d)
    for i in range(shape["n_layer"]):
        at = f"blocks.{i}"
        found |= {f"{at}.norm1.weight": (d,), f"{at}.norm2.weight": (d,)}
        matrices = {f"{at}.attention.{name}": size for name, size in attention.items()}
        matrices |= {f"{at}.mlp.{name}": size for name, size in mlp.items()}
        found |= {f"{name}.weight": size for name, size in matrices.items()}
        if shape.get("bias", False):
            found |= {f"{name}.bias": size[:1] for name, size in matrices.items()}
            found |= {f"{at}.norm1.bias": (d,), f"{at}.norm2.bias": (d,)} if layered else {}
    found["norm.weight"] = (d,)
    if layered and shape.get("bias", False):
        found["norm.bias"] = (d,)
    return found | ({} if shape.get("tied", False) else {"head.weight": (V, d)})


def drawn(draw: Any, shape: dict[str, Any], dtype: str = "float64") -> dict[str, Any]:
    """Matrices of unit gain, gains of norms about 1, biases that matter."""
    weights = {}
    for name, size in shapes(shape).items():
        if "norm" in name and name.endswith("weight"):
            weights[name] = draw.uniform(0.5, 1.5, *size, dtype=dtype)
        else:
            weights[name] = draw.normal(*size, dtype=dtype, scale=1 / math.sqrt(size[-1]) if len(size) > 1 else 0.5)
    return weights


def model(impl: Any, weights: dict[str, Any] | None = None, **changes: Any) -> Any:
    found = impl.models.Llama(impl.models.LlamaConfig(**{**SMALL, **changes}))
    if weights is not None:
        found.to(next(iter(weights.values())).dtype)
        found.load_state_dict(weights)
    return found


def problem(draw: Any, shape: dict[str, Any], batch: int = 3, time: int | None = None) -> tuple[Any, Any]:
    """Tokens and targets in which every token occurs, where there is room for them."""
    V, T = shape["vocab_size"], time or shape["block_size"]
    tokens, targets = draw.integers(0, V, batch, T), draw.integers(0, V, batch, T)
    order = draw.permutation(V)[: batch * T]
    tokens.view(-1)[: len(order)] = order
    return tokens, targets


def library(shape: dict[str, Any], draw: Any, dtype: str = "float64") -> tuple[Any, dict[str, str]]:
    """transformers' model of a shape, with weights at which everything matters, and its name of each parameter."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["n_embd"],
        intermediate_size=shape["n_hidden"],
        num_hidden_layers=shape["n_layer"],
        num_attention_heads=shape["n_head"],
        num_key_value_heads=shape.get("n_kv_head") or shape["n_head"],
        max_position_embeddings=shape["block_size"],
        rms_norm_eps=shape.get("eps", 1e-5),
        rope_parameters={"rope_type": "default", "rope_theta": shape.get("rope_base", 10000.0)},
        tie_word_embeddings=shape.get("tied", False),
        attention_bias=shape.get("bias", False),
        mlp_bias=shape.get("bias", False),
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="sdpa",  # its eager road makes the softmax in float32
    )
    found = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(draw.normal(*parameter.shape, scale=0.3).to(parameter.dtype))
    return found, {name: library_name(name) for name in shapes(shape)}


def library_name(name: str) -> str:
    """transformers' name of one of our parameters."""
    for ours, theirs in (
        ("token_embedding", "model.embed_tokens"), ("blocks", "model.layers"),
        ("attention.out_proj", "self_attn.o_proj"), ("attention", "self_attn"),
        ("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm"), ("head", "lm_head"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return "model.norm.weight" if name == "norm.weight" else name


def widened(theirs: Any) -> Any:
    """The library computes its norms and its angles in float32 whatever the model's dtype: here in float64."""
    import torch

    def norm(self: Any, x: Any) -> Any:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))

    def rotary(self: Any, x: Any, position_ids: Any) -> tuple[Any, Any]:
        d = 2 * self.inv_freq.shape[0]
        base = self.config.rope_parameters["rope_theta"]
        inverse = base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angles = position_ids[..., None].double() * inverse
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    for module in theirs.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = norm.__get__(module)
        if type(module).__name__ == "LlamaRotaryEmbedding":
            module.forward = rotary.__get__(module)
    return theirs
