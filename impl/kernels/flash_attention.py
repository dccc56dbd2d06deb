"""FlashAttention's forward in Triton (Dao 2023): a program takes a tile of queries through the keys it may see.

The plain version that it must equal is `attention.flash_attention`.  Keys that every query of the tile sees are taken
without a mask, which leaves it to the diagonal and the last tile.  Exponentials are powers of two, as GPUs have them.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:  # not on this system: what is called says so
    triton = None

_TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
_WIDTHS = (16, 128)


class FlashBinary(NamedTuple):
    """What the compiler made: the kernel's PTX, and the bytes of shared memory that a program of it needs."""

    ptx: str
    shared: int


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale · Q Kᵀ) V on a GPU, or in Triton's interpreter; forward only."""
    _check(query, key, value, scale)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        raise RuntimeError("kernels.flash_attention has no backward: call it under torch.no_grad(), or detach")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if triton is None:
        raise RuntimeError("kernels.flash_attention needs the package triton, which is not installed")
    if query.device.type != "cuda" and not interpreted:
        raise RuntimeError(f"kernels.flash_attention needs a GPU, or TRITON_INTERPRET=1; got tensors on {query.device}")
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    heads = math.prod(batch)
    q, k, v = (x.expand(*batch, *x.shape[-2:]).reshape(heads, *x.shape[-2:]) for x in (query, key, value))
    (_, queries, d_k), (_, keys, d_v) = q.shape, v.shape
    out = torch.empty(heads, queries, d_v, dtype=query.dtype, device=query.device)
    if out.numel():
        capability = (7, 5) if interpreted else torch.cuda.get_device_capability(query.device)
        made = _meta(d_k, d_v, query.dtype, 10 * capability[0] + capability[1])
        options = made.pop("num_warps"), made.pop("num_stages")
        # The heads are the grid's first dimension: it is the one that may be longer than 65,535.
        grid = (heads, -(-queries // made["QUERY_TILE"]))
        _forward[grid](
            *(q, k, v, out), *(q.stride() + k.stride() + v.stride() + out.stride()), *(queries, keys, d_k, d_v),
            factor * math.log2(math.e), CAUSAL=is_causal, **made, num_warps=options[0], num_stages=options[1],
        )  # fmt: skip
    return out.view(*batch, queries, d_v)


def compile_flash_attention(
    capability: int, *, head_dim: int = 64, dtype: torch.dtype = torch.float16, is_causal: bool = True
) -> FlashBinary:
    """The same kernel compiled for sm_`capability`, with or without a GPU."""
    if dtype not in _TYPES:
        raise TypeError(f"dtype must be float16, bfloat16 or float32, got {dtype}")
    if not _WIDTHS[0] <= head_dim <= _WIDTHS[1]:
        raise ValueError(f"head_dim must lie in {_WIDTHS[0]} … {_WIDTHS[1]}, got {head_dim}")
    if isinstance(capability, bool) or not isinstance(capability, int) or capability < 75:
        raise ValueError(f"capability must be at least 75 (Turing), as in sm_75, got {capability!r}")
    if triton is None:
        raise RuntimeError("kernels.compile_flash_attention needs the package triton, which is not installed")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("the interpreter compiles nothing: unset TRITON_INTERPRET before triton is imported")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"CAUSAL": is_causal} | _meta(head_dim, head_dim, dtype, capability)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    names = _forward.arg_names
    pointers = dict.fromkeys(names[:4], f"*{_TYPES[dtype]}")
    integers = {name: "i32" for name in names[4:] if name != "scale" and name not in constants}
    signature = {name: (pointers | integers | {"scale": "fp32"}).get(name, "constexpr") for name in names}
    # What a launch would find out of its arguments: pointers are aligned, rows are contiguous.
    unit = {name: 1 for name in names if name.endswith("_stride_d")}
    signature |= dict.fromkeys(unit, "constexpr")
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(4)}
    source = ASTSource(fn=_forward, signature=signature, constexprs=constants | unit, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return FlashBinary(made.asm["ptx"], made.metadata.shared)


def _meta(d_k: int, d_v: int, dtype: torch.dtype, capability: int) -> dict[str, int]:
    """Sides of the tiles and what the compiler is told: as large as a multiprocessor's shared memory lets them be.

    Turing has 64 KiB and loads without a queue; wide rows of four bytes leave room for short tiles only.
    """
    wide = max(d_k, d_v) > 64
    large = dtype == torch.float32
    queries, keys = (64, 32) if wide and large else (128, 64) if capability >= 80 and not large else (64, 64)
    if capability < 80:
        queries, keys = (32, 32) if wide and large else (64, 32) if wide or large else (64, 64)
    return {
        "QUERY_TILE": queries,
        "KEY_TILE": keys,
        "D_K": max(16, 1 << (d_k - 1).bit_length()),
        "D_V": max(16, 1 << (d_v - 1).bit_length()),
        "num_warps": 8 if wide and queries == 128 else 4,
        "num_stages": 1 if capability < 80 else 2,
    }


def _check(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dtype not in _TYPES:
            raise TypeError(f"{name} must be float16, bfloat16 or float32, got {tensor.dtype}")
        if tensor.dtype != query.dtype or tensor.device != query.device:
            raise TypeError(
                f"{name} must have the dtype and the device of query, got {tensor.dtype} on {tensor.device} "
                f"and {query.dtype} on {query.device}"
            )
        if tensor.ndim < 2:
            raise ValueError(f"{name} must have at least two dimensions (length, width), got {tuple(tensor.shape)}")
        if not _WIDTHS[0] <= tensor.shape[-1] <= _WIDTHS[1]:
            raise ValueError(f"the width of {name} must lie in {_WIDTHS[0]} … {_WIDTHS[1]}, got {tuple(tensor.shape)}")
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(f"query and key must have one width, key and value one length: {shapes}")
    if scale is not None and not abs(scale) < math.inf:
        raise ValueError(f"scale must be finite, got {scale}")
    try:
        torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    except RuntimeError:
        raise ValueError(f"leading dimensions do not broadcast: {shapes}") from None


# -- the kernel --------------------------------------------------------------------------------------------------------


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _forward(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr,
    q_stride_h, q_stride_t, q_stride_d, k_stride_h, k_stride_t, k_stride_d,
    v_stride_h, v_stride_t, v_stride_d, out_stride_h, out_stride_t, out_stride_d,
    queries, keys, d_k, d_v, scale,
    CAUSAL: tl.constexpr, QUERY_TILE: tl.constexpr, KEY_TILE: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head.  `scale` holds log₂ e, so that 2^{score} is e^{s}."""
    head = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * QUERY_TILE + tl.arange(0, QUERY_TILE)  # (QUERY_TILE,)
    in_k, in_v = tl.arange(0, D_K), tl.arange(0, D_V)
    q = tl.load(
        q_ptr + head * q_stride_h + row[:, None].to(tl.int64) * q_stride_t + in_k[None, :] * q_stride_d,
        mask=(row[:, None] < queries) & (in_k[None, :] < d_k),
        other=0.0,
    )  # (QUERY_TILE, D_K)
    offset = keys - queries  # query i sees keys up to i + offset
    end, open_end = keys, keys
    if CAUSAL:
        end = tl.minimum(keys, (tl.program_id(1) + 1) * QUERY_TILE + offset)
        open_end = tl.minimum(keys, tl.program_id(1) * QUERY_TILE + offset + 1)
    open_end = tl.maximum(open_end, 0) // KEY_TILE * KEY_TILE
    peak = tl.full((QUERY_TILE,), float("-inf"), tl.float32)
    total = tl.zeros((QUERY_TILE,), tl.float32)
    mixed = tl.zeros((QUERY_TILE, D_V), tl.float32)
    peak, total, mixed = _take(
        q, peak, total, mixed, k_ptr + head * k_stride_h, v_ptr + head * v_stride_h, k_stride_t, k_stride_d,
        v_stride_t, v_stride_d, 0, open_end, row + offset, keys, d_k, d_v, scale, False, False, KEY_TILE, D_K, D_V,
    )  # fmt: skip
    peak, total, mixed = _take(
        q, peak, total, mixed, k_ptr + head * k_stride_h, v_ptr + head * v_stride_h, k_stride_t, k_stride_d,
        v_stride_t, v_stride_d, open_end, end, row + offset, keys, d_k, d_v, scale, True, CAUSAL, KEY_TILE, D_K, D_V,
    )  # fmt: skip
    # A query that sees no key has 0 / 1.  Others are divided by what they have, be it 0 or NaN: that must show.
    blind = keys == 0
    if CAUSAL:
        blind = row + offset < 0
    mixed = mixed / tl.where(blind, 1.0, total)[:, None]
    tl.store(
        out_ptr + head * out_stride_h + row[:, None].to(tl.int64) * out_stride_t + in_v[None, :] * out_stride_d,
        mixed.to(out_ptr.dtype.element_ty),
        mask=(row[:, None] < queries) & (in_v[None, :] < d_v),
    )


@_jit
def _take(  # type: ignore[no-untyped-def]
    q, peak, total, mixed, k_ptr, v_ptr, k_stride_t, k_stride_d, v_stride_t, v_stride_d,
    begin, end, last_seen, keys, d_k, d_v, scale,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, KEY_TILE: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
):  # fmt: skip
    """Merge the keys from `begin` to `end` into the state; without MASKED every query sees all of them."""
    in_k, in_v = tl.arange(0, D_K), tl.arange(0, D_V)
    for start in range(begin, end, KEY_TILE):
        column = start + tl.arange(0, KEY_TILE)  # (KEY_TILE,)
        k = tl.load(
            k_ptr + column[None, :].to(tl.int64) * k_stride_t + in_k[:, None] * k_stride_d,
            mask=(column[None, :] < keys) & (in_k[:, None] < d_k),
            other=0.0,
        )  # (D_K, KEY_TILE): transposed as it is read
        scores = tl.dot(q, k, input_precision="ieee") * scale
        if MASKED:
            seen = column[None, :] < keys
            if CAUSAL:
                seen = seen & (column[None, :] <= last_seen[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(peak - base)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(
            v_ptr + column[:, None].to(tl.int64) * v_stride_t + in_v[None, :] * v_stride_d,
            mask=(column[:, None] < keys) & (in_v[None, :] < d_v),
            other=0.0,
        )  # (KEY_TILE, D_V)
        mixed = mixed * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        peak = higher
    return peak, total, mixed
