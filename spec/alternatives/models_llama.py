"""Another road to Llama: heads in a loop, rotations as complex numbers, masks of large negative numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from touchstone import alternative

_GATES = {
    "glu": torch.sigmoid,
    "bilinear": lambda z: z,
    "reglu": lambda z: torch.where(z > 0, z, 0.0),
    "geglu": lambda z: 0.5 * z * torch.erfc(-z / math.sqrt(2)),
    "swiglu": lambda z: z * torch.sigmoid(z),
}
_CURVES = {
    "relu": _GATES["reglu"],
    "gelu": lambda z: z * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)),
}


class _Norm(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.centred, self.eps = config.norm == "layer", config.eps
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if self.centred and config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        z = x.to(torch.promote_types(x.dtype, torch.float32))
        z = z - z.mean(dim=-1, keepdim=True) if self.centred else z
        y = (z / (z.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt()).to(x.dtype) * self.weight
        return y if self.bias is None else y + self.bias


class _Part(nn.Module):
    """Linear layers by name."""

    def __init__(self, bias: bool, **sizes: tuple[int, int]) -> None:
        super().__init__()
        for name, (width_in, width_out) in sizes.items():
            setattr(self, name, nn.Linear(width_in, width_out, bias=bias))


def _turned(x: Tensor, places: Tensor, config: Any) -> Tensor:
    """One head, (batch, time, width), turned by its places (batch or 1, time)."""
    half = x.shape[-1] // 2
    angles = places[..., None].double() * config.rope_base ** (-torch.arange(half, device=x.device).double() / half)
    wide = x.double()
    pairs = wide.unflatten(-1, (2, half)).mT if config.pairing == "halves" else wide.unflatten(-1, (half, 2))
    spun = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    both = torch.view_as_real(spun)
    return (both.mT if config.pairing == "halves" else both).flatten(-2).to(x.dtype)


class _Block(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        d, self.config, self.gated = config.n_embd, config, config.activation in _GATES
        self.kv = config.n_kv_head or config.n_head
        narrow = d // config.n_head * self.kv
        self.norm1, self.norm2 = _Norm(config), _Norm(config)
        projections = {"q_proj": (d, d), "k_proj": (d, narrow), "v_proj": (d, narrow), "out_proj": (d, d)}
        self.attention = _Part(config.bias, **projections)
        h = config.n_hidden or (math.ceil((8 * d // 3) / 256) * 256 if self.gated else 4 * d)
        gated = {"gate_proj": (d, h), "up_proj": (d, h), "down_proj": (h, d)}
        self.mlp = _Part(config.bias, **(gated if self.gated else {"fc": (d, h), "proj": (h, d)}))

    def forward(self, x: Tensor, places: Tensor, seen: Tensor, cache: Any, layer: int) -> Tensor:
        own, config, a = self.attention, self.config, self.norm1(x)
        width = config.n_embd // config.n_head
        q, k, v = own.q_proj(a).split(width, -1), own.k_proj(a).split(width, -1), own.v_proj(a).split(width, -1)
        if config.positions == "rotary":
            q, k = [_turned(head, places, config) for head in q], [_turned(head, places, config) for head in k]
        keys, values = torch.stack(list(k), dim=1), torch.stack(list(v), dim=1)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)
        mixed = []
        wide = torch.promote_types(x.dtype, torch.float32)
        for i, head in enumerate(q):
            at = i * self.kv // config.n_head
            scores = head.to(wide) @ keys[:, at].to(wide).mT / math.sqrt(width)
            weights = self._drop(scores.masked_fill(~seen, -1e30).softmax(dim=-1))
            mixed.append((weights @ values[:, at].to(wide)).to(x.dtype))
        x = x + self._drop(own.out_proj(torch.cat(mixed, dim=-1)))
        b = self.norm2(x)
        if self.gated:
            y = self.mlp.down_proj(_GATES[config.activation](self.mlp.gate_proj(b)) * self.mlp.up_proj(b))
        else:
            y = self.mlp.proj(_CURVES[config.activation](self.mlp.fc(b)))
        return x + self._drop(y)

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.config.dropout, self.training)


@alternative("models.Llama", says="heads in a loop, rotations as complex numbers in float64, a large negative mask")
class LoopLlama(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        _refuse(config)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_layer))
        self.norm = _Norm(config)
        if not config.tied:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                ends = name.endswith(("out_proj.weight", "down_proj.weight", ".proj.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer) if ends else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        padding_mask: Tensor | None = None,
        cache: Any = None,
    ) -> tuple[Tensor, Tensor | None]:
        past = cache.length(0) if cache is not None else 0
        time = _time(tokens, targets, positions, padding_mask, past, self.config)
        real = torch.ones(len(tokens), past + time, dtype=torch.bool) if padding_mask is None else padding_mask
        if positions is None:
            positions = (real.long().cumsum(-1)[:, past:] - 1).clamp(min=0)
        places = positions if positions.ndim == 2 else positions[None]
        new, old = torch.arange(past, past + time), torch.arange(past + time)
        seen = (old <= new[:, None]) & real[:, None, :] | (old == new[:, None])
        x = self.token_embedding(tokens)
        if self.config.positions == "learned":
            x = x + self.position_embedding(places)
        x = nn.functional.dropout(x, self.config.dropout, self.training)
        for layer, block in enumerate(self.blocks):
            x = block(x, places, seen.to(x.device), cache, layer)
        head = self.token_embedding if self.config.tied else self.head
        logits = self.norm(x) @ head.weight.T
        if targets is None:
            return logits, None
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=-100)


def _refuse(config: Any) -> None:
    known = {
        "norm": ["rms", "layer"], "activation": [*_GATES, *_CURVES], "positions": ["rotary", "learned"],
        "pairing": ["halves", "interleaved"],
    }  # fmt: skip
    for name, choices in known.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} is {getattr(config, name)}, not one of {choices}")
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_kv_head", "n_hidden"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}")
    if config.n_embd % config.n_head or config.n_head % (config.n_kv_head or 1):
        raise ValueError(f"width {config.n_embd}, {config.n_head} heads, {config.n_kv_head} of keys do not divide")
    if config.positions == "rotary" and config.n_embd // config.n_head % 2:
        raise ValueError(f"a head of width {config.n_embd // config.n_head} has no pairs")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}")


def _time(
    tokens: Tensor, targets: Tensor | None, positions: Tensor | None, mask: Tensor | None, past: int, config: Any
) -> int:
    for name, ids in (("tokens", tokens), ("positions", positions)):
        if ids is not None and ids.is_floating_point():
            raise TypeError(f"{name} are {ids.dtype}")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"padding_mask is {mask.dtype}")
    if tokens.ndim != 2 or not tokens.numel():
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}")
    time, V, T = tokens.shape[1], config.vocab_size, config.block_size
    if past + time > T:
        raise ValueError(f"{past + time} tokens in a context of {T}")
    if targets is not None and targets.shape != tokens.shape:
        raise ValueError(f"targets {tuple(targets.shape)}")
    if positions is not None and positions.shape not in (tokens.shape, tokens.shape[1:]):
        raise ValueError(f"positions {tuple(positions.shape)}")
    if mask is not None and mask.shape != (len(tokens), past + time):
        raise ValueError(f"padding_mask {tuple(mask.shape)}, wanted {(len(tokens), past + time)}")
    for name, ids, end in (("tokens", tokens, V), ("targets", targets, V), ("positions", positions, T)):
        if ids is not None and not ids.is_meta:
            for wrong in ids[((ids < 0) | (ids >= end)) & ((ids != -100) | (name != "targets"))].tolist():
                raise ValueError(f"{name} hold {wrong}, outside {end}")
    return time
