"""PyTorch's own attention behind the room's names.

What the adapters bring: masks of the room's polarity and bottom-right alignment, zeros for a query that may attend to
nothing (PyTorch gives NaN there), and ValueError where PyTorch raises RuntimeError.  The arithmetic is PyTorch's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """`F.scaled_dot_product_attention`: its causal path where both lengths agree, an explicit mask elsewhere."""
    _check_types(attn_mask, query=query, key=key, value=value)
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    given = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    try:
        batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        query, key, value = (x.expand(*batch, *x.shape[-2:]) for x in (query, key, value))
        shape = (*batch, query.shape[-2], key.shape[-2])
        mask, dead = (None, None) if attn_mask is None else _open(_joined(attn_mask, is_causal, shape))
        if mask is None and is_causal and shape[-2] != shape[-1]:
            mask, dead = _open(_lower_right(shape, query.device))
        output = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=is_causal and mask is None, scale=scale
        )
    except RuntimeError as error:
        masked = "" if attn_mask is None else f", mask {tuple(attn_mask.shape)}"
        raise ValueError(f"refused: {given}{masked}: {error}") from error
    return output if dead is None else output.masked_fill(dead, 0.0)


def attention_weights(
    query: Tensor, key: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """The operator never shows its weights; applied to the unit vectors as values it returns them."""
    unit = torch.eye(key.shape[-2], dtype=query.dtype, device=query.device)
    return scaled_dot_product_attention(query, key, unit, attn_mask, is_causal=is_causal, scale=scale)


class MultiHeadAttention(nn.Module):
    """`nn.MultiheadAttention(batch_first=True)` with the room's parameters put into its packed ones."""

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model < 1 or n_heads < 1 or d_model % n_heads:
            raise ValueError(f"torch asks for embed_dim divisible by num_heads, got {d_model} and {n_heads}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        with torch.device("meta"):  # a form to pour our weights into; in a tuple, so that it registers nothing
            self._peer = (nn.MultiheadAttention(d_model, n_heads, dropout=dropout, bias=bias, batch_first=True),)

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
        """The peer's forward on rows of a flat batch; its masks mean the opposite of ours."""
        if key is None and value is not None:
            raise ValueError(f"value {tuple(value.shape)} was given without key")
        key = query if key is None else key
        value = key if value is None else value
        _check_types(attn_mask, query=query, key=key, value=value)
        peer = self._peer[0].train(self.training)
        batch, heads = query.shape[:-2], peer.num_heads
        shape = (*batch, heads, query.shape[-2], key.shape[-2])
        widths = {x.shape[-1] for x in (query, key, value)}
        if value.shape[:-1] != key.shape[:-1] or key.shape[:-2] != batch or widths != {peer.embed_dim}:
            raise ValueError(
                f"refused: query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)} "
                f"for width {peer.embed_dim}"
            )
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:
            raise TypeError(f"key_padding_mask must be boolean, got {key_padding_mask.dtype}")
        if key_padding_mask is not None and key_padding_mask.shape != key.shape[:-1]:
            raise ValueError(f"key_padding_mask {tuple(key_padding_mask.shape)} does not fit key {tuple(key.shape)}")
        if attn_mask is not None and (attn_mask.ndim not in (2, len(shape)) or not _expands(attn_mask, shape)):
            raise ValueError(f"attn_mask {tuple(attn_mask.shape)} does not fit the scores {shape}")

        mask, dead = None, None
        if attn_mask is not None or key_padding_mask is not None or is_causal:
            seen = torch.ones((), dtype=torch.bool, device=query.device) if attn_mask is None else attn_mask
            if key_padding_mask is not None:
                real = key_padding_mask[..., None, None, :]
                seen = seen & real if seen.dtype == torch.bool else torch.where(real, seen, -torch.inf)
            mask, dead = _open(_joined(seen, is_causal, shape))
            mask = mask.expand(shape).flatten(0, -3)
            mask = ~mask if mask.dtype == torch.bool else mask
        output, weights = torch.func.functional_call(
            peer,
            self._packed(),
            tuple(x.flatten(0, -3) if batch else x[None] for x in (query, key, value)),
            {"attn_mask": mask, "need_weights": need_weights, "average_attn_weights": False},
        )
        output = output.reshape(*batch, *output.shape[-2:])
        if dead is not None:
            if not dead.is_meta and bool((dead.any(-3) != dead.all(-3)).any()):
                raise NotImplementedError("nn.MultiheadAttention gives NaN when one head of several sees no key")
            nothing = output.new_zeros(()) if self.out_proj.bias is None else self.out_proj.bias
            output = torch.where(dead[..., 0, :, :], nothing, output)
        if not need_weights:
            return output
        weights = weights.reshape(shape)
        return output, weights if dead is None else weights.masked_fill(dead, 0.0)

    def _packed(self) -> dict[str, Tensor]:
        """Our parameters under the peer's names, differentiably."""
        inputs = (self.q_proj, self.k_proj, self.v_proj)
        packed = {"in_proj_weight": torch.cat([p.weight for p in inputs]), "out_proj.weight": self.out_proj.weight}
        if self.out_proj.bias is not None:
            packed["in_proj_bias"] = torch.cat([p.bias for p in inputs])
            packed["out_proj.bias"] = self.out_proj.bias
        return packed


def _check_types(attn_mask: Tensor | None, **inputs: Tensor) -> None:
    for name, tensor in inputs.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating, got {tensor.dtype}")
        if tensor.dtype != inputs["query"].dtype:
            raise TypeError(f"{name} is {tensor.dtype}, query {inputs['query'].dtype}")
        if tensor.ndim < 2 or tensor.shape[-1] == 0:
            raise ValueError(f"{name} must be (*batch, length, width), got {tuple(tensor.shape)}")
    if attn_mask is not None and attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise TypeError(f"attn_mask must be boolean or floating, got {attn_mask.dtype}")


def _expands(mask: Tensor, shape: tuple[int, ...]) -> bool:
    try:
        mask.expand(shape)
    except RuntimeError:
        return False
    return True


def _lower_right(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """True where a query may see a key, the last query aligned with the last key; the full shape of the scores."""
    queries, keys = shape[-2:]
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries).expand(shape)


def _joined(mask: Tensor, is_causal: bool, shape: tuple[int, ...]) -> Tensor:
    mask = mask.expand(shape)  # RuntimeError where it does not fit
    if not is_causal:
        return mask
    causal = _lower_right(shape, mask.device)
    return mask & causal if mask.dtype == torch.bool else torch.where(causal, mask, -torch.inf)


def _open(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mask with its dead rows opened, which PyTorch would answer with NaN, and those rows (…, queries, 1)."""
    if mask.dtype == torch.bool:
        dead = ~mask.any(dim=-1, keepdim=True)
        return mask | dead, dead
    dead = (mask == -torch.inf).all(dim=-1, keepdim=True)
    return mask.masked_fill(dead, 0.0), dead
