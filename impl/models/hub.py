"""How transformers names, shapes and configures what this house calls GPT and Llama."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from impl.models.gpt import GPTConfig
from impl.models.llama import LlamaConfig


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint: the parameters of ours that it holds, stacked by rows, and how it is stored.

    `transposed`: (in, out), as GPT-2's Conv1D keeps its matrices.  `turned`: the heads whose rows are rotary pairs.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    turned: int | None = None


def gpt_entries(config: GPTConfig) -> Iterator[Entry]:
    """transformers' GPT-2, without the prefix that old files lack."""
    yield Entry("wte.weight", ("token_embedding.weight",))
    yield Entry("wpe.weight", ("position_embedding.weight",))
    for i in range(config.n_layer):
        for kind in ("weight", "bias"):
            matrix, us, them = kind == "weight", f"blocks.{i}", f"h.{i}"
            three = tuple(f"{us}.attention.{part}_proj.{kind}" for part in "qkv")
            yield Entry(f"{them}.ln_1.{kind}", (f"{us}.norm1.{kind}",))
            yield Entry(f"{them}.attn.c_attn.{kind}", three, transposed=matrix)
            yield Entry(f"{them}.attn.c_proj.{kind}", (f"{us}.attention.out_proj.{kind}",), transposed=matrix)
            yield Entry(f"{them}.ln_2.{kind}", (f"{us}.norm2.{kind}",))
            yield Entry(f"{them}.mlp.c_fc.{kind}", (f"{us}.mlp.fc.{kind}",), transposed=matrix)
            yield Entry(f"{them}.mlp.c_proj.{kind}", (f"{us}.mlp.proj.{kind}",), transposed=matrix)
    for kind in ("weight", "bias"):
        yield Entry(f"ln_f.{kind}", (f"norm.{kind}",))
    if not config.tied:
        yield Entry("lm_head.weight", ("head.weight",))


def llama_entries(config: LlamaConfig) -> Iterator[Entry]:
    """transformers' Llama, whose rotary pairs are halves."""
    kinds = ("weight", "bias") if config.bias else ("weight",)
    kv = config.n_kv_head or config.n_head
    yield Entry("model.embed_tokens.weight", ("token_embedding.weight",))
    for i in range(config.n_layer):
        us, them = f"blocks.{i}", f"model.layers.{i}"
        yield Entry(f"{them}.input_layernorm.weight", (f"{us}.norm1.weight",))
        yield Entry(f"{them}.post_attention_layernorm.weight", (f"{us}.norm2.weight",))
        for kind in kinds:
            for ours, theirs, heads in (
                ("q", "q", config.n_head),
                ("k", "k", kv),
                ("v", "v", None),
                ("out", "o", None),
            ):
                turned = heads if config.pairing == "interleaved" else None
                place = (f"{us}.attention.{ours}_proj.{kind}",)
                yield Entry(f"{them}.self_attn.{theirs}_proj.{kind}", place, turned=turned)
            for part in ("gate", "up", "down"):
                yield Entry(f"{them}.mlp.{part}_proj.{kind}", (f"{us}.mlp.{part}_proj.{kind}",))
    yield Entry("model.norm.weight", ("norm.weight",))
    if not config.tied:
        yield Entry("lm_head.weight", ("head.weight",))


def to_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of a projection whose rotary pairs are neighbours, so that they become halves: even ones, then odd ones."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(rows.shape)


# -- configurations ---------------------------------------------------------------------------------------------------


def gpt_config(told: dict[str, Any]) -> GPTConfig:
    """Read a GPT-2 `config.json`; what would make it another function is refused."""
    _refuse_other(
        told,
        activation_function=("gelu_new", "gelu_pytorch_tanh", "gelu"),
        layer_norm_epsilon=(1e-5,),
        scale_attn_weights=(True,),
        scale_attn_by_inverse_layer_idx=(False,),
        add_cross_attention=(False,),
    )
    width = _size(told, "n_embd")
    _refuse_other(told, n_inner=(None, 4 * width))
    return GPTConfig(
        vocab_size=_size(told, "vocab_size"),
        block_size=_size(told, "n_positions"),
        n_layer=_size(told, "n_layer"),
        n_head=_size(told, "n_head"),
        n_embd=width,
        tied=_flag(told, "tie_word_embeddings", True),
        approximate="none" if told.get("activation_function") == "gelu" else "tanh",
    )


def llama_config(told: dict[str, Any]) -> LlamaConfig:
    """Read a Llama `config.json`, old or new; what would make it another function is refused."""
    _refuse_other(told, hidden_act=("silu", "swish"), rope_scaling=(None,))
    rope = told.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"config.json: rope_parameters must be a table, got {rope!r}")
    _refuse_other(rope, rope_type=("default",), partial_rotary_factor=(1.0,))
    width, heads = _size(told, "hidden_size"), _size(told, "num_attention_heads")
    _refuse_other(told, head_dim=(None, width // heads))
    bias = _flag(told, "attention_bias", False)
    if bias != _flag(told, "mlp_bias", False):
        raise ValueError("config.json: attention_bias and mlp_bias must be the same")
    return LlamaConfig(
        vocab_size=_size(told, "vocab_size"),
        block_size=_size(told, "max_position_embeddings"),
        n_layer=_size(told, "num_hidden_layers"),
        n_head=heads,
        n_embd=width,
        bias=bias,
        tied=_flag(told, "tie_word_embeddings", False),
        n_kv_head=_size(told, "num_key_value_heads", heads),
        n_hidden=_size(told, "intermediate_size"),
        rope_base=_number(rope if "rope_theta" in rope else told, "rope_theta", 10000.0),
        eps=_number(told, "rms_norm_eps", 1e-6),
    )


def told_gpt(config: GPTConfig) -> dict[str, Any]:
    """What `config.json` says of a GPT."""
    if not config.bias:
        raise ValueError("config: bias = False, but GPT-2 in transformers always has biases")
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "activation_function": "gelu_new" if config.approximate == "tanh" else "gelu",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def told_llama(config: LlamaConfig, n_hidden: int) -> dict[str, Any]:
    """What `config.json` says of a Llama."""
    for name, wanted in (("norm", "rms"), ("activation", "swiglu"), ("positions", "rotary")):
        if getattr(config, name) != wanted:
            raise ValueError(f"config: {name} = {getattr(config, name)!r}, Llama in transformers has {wanted!r} only")
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.block_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head or config.n_head,
        "hidden_size": config.n_embd,
        "intermediate_size": n_hidden,
        "hidden_act": "silu",
        "rms_norm_eps": config.eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tied,
    }


def _refuse_other(told: dict[str, Any], **known: tuple[Any, ...]) -> None:
    for name, values in known.items():
        if name in told and told[name] not in values:
            raise ValueError(
                f"config.json: {name} = {told[name]!r} is another model; known: {', '.join(map(str, values))}"
            )


def _size(told: dict[str, Any], name: str, default: int | None = None) -> int:
    value = told.get(name, default)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ValueError(f"config.json: {name} must be a positive integer, got {value!r}")
    return value


def _number(told: dict[str, Any], name: str, default: float) -> float:
    value = told.get(name, default)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"config.json: {name} must be a positive number, got {value!r}")
    return float(value)


def _flag(told: dict[str, Any], name: str, default: bool) -> bool:
    value = told.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {name} must be true or false, got {value!r}")
    return value
