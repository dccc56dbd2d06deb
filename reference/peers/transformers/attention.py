"""transformers' attention and rotary functions behind the room's names: GPT-2's, Llama's and GPT-J's.

The adapters hand over weights, masks and the table of angles; the arithmetic is the package's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reference.peers.transformers.positions import RelativePositionBias, alibi_bias, relative_buckets

__all__ = [
    "MultiHeadAttention",
    "RelativePositionBias",
    "RotaryEmbedding",
    "alibi_bias",
    "apply_rotary",
    "relative_buckets",
]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class MultiHeadAttention(nn.Module):
    """GPT-2's attention (`GPT2Attention`), self and cross, with the room's parameters in its Conv1D layers."""

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model < 1 or n_heads < 1 or d_model % n_heads:
            raise ValueError(f"GPT-2 asks for embed_dim divisible by num_heads, got {d_model} and {n_heads}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.d_model, self.n_heads, self.dropout = d_model, n_heads, dropout
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The peer's forward on a flat batch, every mask as one that is added."""
        if value is not None and key is None:
            raise ValueError(f"value {tuple(value.shape)} was given without key")
        if value is not None and value is not key:
            raise NotImplementedError("GPT-2 projects keys and values from one input")
        memory = query if key is None else key
        if not query.numel():
            raise NotImplementedError("GPT-2 cannot reshape an input without tokens")
        self._check(query, memory, attn_mask, key_padding_mask)
        batch = query.shape[:-2]
        shape = (*batch, self.n_heads, query.shape[-2], memory.shape[-2])
        bias, dead = self._bias(shape, query, attn_mask, key_padding_mask, is_causal)
        peer = _gpt2(self.d_model, self.n_heads, self.dropout, key is not None, need_weights).train(self.training)
        flat = [(x.flatten(0, -3) if batch else x[None]).contiguous() for x in (query, memory)]  # GPT-2 views them
        extra = {} if key is None else {"encoder_hidden_states": flat[1], "encoder_attention_mask": bias}
        output, weights = torch.func.functional_call(
            peer, self._packed(key is not None), (flat[0],), {"attention_mask": bias, **extra}
        )
        output = output.reshape(*batch, *output.shape[-2:])
        if not dead.is_meta and bool((dead.any(-3) != dead.all(-3)).any()):
            raise NotImplementedError("GPT-2 gives NaN when one head of several sees no key")
        nothing = output.new_zeros(()) if self.out_proj.bias is None else self.out_proj.bias
        output = torch.where(dead[..., 0, :, :], nothing, output)
        return (output, weights.reshape(shape).masked_fill(dead, 0.0)) if need_weights else output

    def _check(self, query: Tensor, memory: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> None:
        if query.shape[:-2] != memory.shape[:-2] or {query.shape[-1], memory.shape[-1]} != {self.d_model}:
            raise ValueError(f"refused: query {tuple(query.shape)}, key {tuple(memory.shape)}, width {self.d_model}")
        if attn_mask is not None and attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
            raise TypeError(f"attn_mask must be boolean or floating, got {attn_mask.dtype}")
        if attn_mask is not None and attn_mask.ndim not in (2, query.ndim + 1):
            raise ValueError(f"attn_mask {tuple(attn_mask.shape)} does not fit query {tuple(query.shape)}")
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:
            raise TypeError(f"key_padding_mask must be boolean, got {key_padding_mask.dtype}")
        if key_padding_mask is not None and key_padding_mask.shape != memory.shape[:-1]:
            raise ValueError(f"key_padding_mask {tuple(key_padding_mask.shape)} does not fit {tuple(memory.shape)}")

    def _bias(
        self,
        shape: tuple[int, ...],
        query: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool,
    ) -> tuple[Tensor, Tensor]:
        """All masks as one to be added, (rows, heads, queries, keys), with dead rows opened; and those rows."""
        bias = torch.zeros((), dtype=query.dtype, device=query.device)
        if attn_mask is not None:
            bias = bias.expand(attn_mask.shape)
            bias = bias.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else bias + attn_mask
        try:
            bias = bias.expand(shape)
        except RuntimeError as error:
            raise ValueError(f"attn_mask {tuple(bias.shape)} does not fit the scores {shape}") from error
        if key_padding_mask is not None:
            bias = bias.masked_fill(~key_padding_mask[..., None, None, :], -torch.inf)
        if is_causal:
            late = torch.ones(shape[-2:], dtype=torch.bool, device=query.device).triu(shape[-1] - shape[-2] + 1)
            bias = bias.masked_fill(late, -torch.inf)
        dead = (bias == -torch.inf).all(dim=-1, keepdim=True)
        opened = bias.masked_fill(dead, 0.0)
        return (opened.flatten(0, -4) if len(shape) > 3 else opened[None]), dead

    def _packed(self, cross: bool) -> dict[str, Tensor]:
        """Our parameters under GPT-2's names: Conv1D holds its weight the other way round and always has a bias."""
        together = [self.k_proj, self.v_proj] if cross else [self.q_proj, self.k_proj, self.v_proj]
        groups = {"c_attn": together, "c_proj": [self.out_proj]} | ({"q_attn": [self.q_proj]} if cross else {})
        packed = {}
        for name, layers in groups.items():
            packed[f"{name}.weight"] = torch.cat([layer.weight for layer in layers]).T
            zero = layers[0].weight.new_zeros(self.d_model)
            packed[f"{name}.bias"] = torch.cat([zero if layer.bias is None else layer.bias for layer in layers])
        return packed


def _gpt2(d_model: int, n_heads: int, dropout: float, cross: bool, need_weights: bool) -> nn.Module:
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    config = GPT2Config(n_embd=d_model, n_head=n_heads, attn_pdrop=dropout, resid_pdrop=0.0)
    config._attn_implementation = "eager" if need_weights else "sdpa"
    with torch.device("meta"):
        return GPT2Attention(config, is_cross_attention=cross, layer_idx=0)


def apply_rotary(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """Llama's `apply_rotary_pos_emb` for halves, GPT-J's for interleaved pairs, on a table made in float64."""
    _check_rotary(x, positions, x.shape[:-1], base, pairing)
    rows, flat = positions.expand(x.shape[:-1]), x
    if x.ndim != 3:
        rows, flat = (y[None] if x.ndim == 2 else y.flatten(0, x.ndim - 3) for y in (rows, x))
    return _rotate(flat, rows, base, pairing).reshape(x.shape)


class RotaryEmbedding(nn.Module):
    """The same functions on queries and keys."""

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: str = "halves", max_positions: int | None = None
    ) -> None:
        super().__init__()
        _check_settings(head_dim, base, pairing)
        if max_positions is not None and max_positions < 1:
            raise ValueError(f"max_positions must be at least 1, got {max_positions}")
        self.head_dim, self.base, self.pairing, self.max_positions = head_dim, base, pairing, max_positions

    def forward(self, query: Tensor, key: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both rotated by (seq,) or (*batch, seq) positions."""
        for x in (query, key):
            if x.ndim < 3 or x.shape[-1] != self.head_dim:
                raise ValueError(f"refused: {tuple(x.shape)} for head_dim {self.head_dim}")
            _check_rotary(x, positions, (*x.shape[:-3], x.shape[-2]), self.base, self.pairing)
        if self.max_positions is not None and positions.numel() and int(positions.max()) >= self.max_positions:
            raise ValueError(f"positions must be below {self.max_positions}, got {int(positions.max())}")
        rows = positions if positions.ndim == 1 else positions.unsqueeze(-2)
        settings: dict[str, Any] = {"base": self.base, "pairing": self.pairing}
        return apply_rotary(query, rows, **settings), apply_rotary(key, rows, **settings)


def _rotate(x: Tensor, positions: Tensor, base: float, pairing: str) -> Tensor:
    """x (rows, seq, d) by positions (rows, seq), in float32 at least."""
    wide = x if x.dtype == torch.float64 else x.float()
    angles = positions[..., None] * _frequencies(x, base)
    cos, sin = angles.cos().to(wide.dtype), angles.sin().to(wide.dtype)
    if pairing == "halves":
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as of_llama

        turned, _ = of_llama(wide[:, None], wide[:, None], torch.cat((cos, cos), -1), torch.cat((sin, sin), -1))
        return turned[:, 0].to(x.dtype)
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as of_gptj

    return of_gptj(wide[:, :, None], sin, cos)[:, :, 0].to(x.dtype)


def _frequencies(x: Tensor, base: float) -> Tensor:
    exponents = torch.arange(0, x.shape[-1], 2, dtype=torch.float64, device=x.device) / -x.shape[-1]
    return base**exponents


def _check_settings(head_dim: int, base: float, pairing: str) -> None:
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"head_dim must be even and at least 2, got {head_dim}")
    if not (math.isfinite(base) and base > 0.0):
        raise ValueError(f"base must be finite and positive, got {base}")
    if pairing not in ("halves", "interleaved"):
        raise ValueError(f"pairing must be 'halves' or 'interleaved', got {pairing!r}")


def _check_rotary(x: Tensor, positions: Tensor, rows: tuple[int, ...], base: float, pairing: str) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x must be floating, got {x.dtype}")
    if positions.dtype not in _INTEGERS:
        raise TypeError(f"positions must be integers, got {positions.dtype}")
    if x.ndim < 2:
        raise ValueError(f"x must be (*batch, seq, head_dim), got {tuple(x.shape)}")
    _check_settings(x.shape[-1], base, pairing)
    if not positions.is_meta and positions.numel() and int(positions.min()) < 0:
        raise ValueError(f"positions must not be negative, got {int(positions.min())}")
    own = tuple(positions.shape)
    sizes = zip(reversed(own), reversed(rows), strict=False)
    if len(own) not in (1, len(rows)) or own[-1] != rows[-1] or any(size not in (1, full) for size, full in sizes):
        raise ValueError(f"positions {own} do not fit {tuple(x.shape)}")
