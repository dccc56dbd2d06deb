"""Other roads to the synthetic tasks and to the transformer with a switch for its positions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from touchstone import alternative

IGNORED = -100
SCHEMES = ("none", "learned", "sinusoidal", "relative", "alibi", "rotary")


@alternative("data.copy_task", says="row by row, in slices")
def copy_by_rows(sources: Tensor, lengths: Tensor, *, separator: int) -> tuple[Tensor, Tensor]:
    """Padding first, then what each row has."""
    for ids in (sources, lengths):
        if ids.is_floating_point():
            raise TypeError(f"integers are wanted, not {ids.dtype}")
    if sources.ndim != 2 or lengths.shape != sources.shape[:1]:
        raise ValueError(f"{tuple(sources.shape)} and {tuple(lengths.shape)}")
    longest = sources.shape[1]
    tokens = torch.full((len(sources), 2 * longest), separator)
    targets = torch.full_like(tokens, IGNORED)
    for row, size in enumerate(lengths.tolist()):
        if not 0 < size <= longest:
            raise ValueError(f"a length of {size} for sources of {longest}")
        source = sources[row, :size]
        tokens[row, :size], tokens[row, size + 1 : 2 * size] = source, source[:-1]
        targets[row, size : 2 * size] = source
    return tokens, targets


@alternative("data.copy_accuracy", says="counts over the flattened places")
def counted_accuracy(predictions: Tensor, targets: Tensor) -> float:
    if predictions.shape != targets.shape:
        raise ValueError(f"{tuple(predictions.shape)} and {tuple(targets.shape)}")
    if predictions.is_floating_point():
        raise TypeError(f"predictions are {predictions.dtype}")
    places = int((targets != IGNORED).sum())
    if places == 0:
        raise ValueError("targets ask for nothing")
    return int(((predictions == targets) & (targets != IGNORED)).sum()) / places


@alternative("data.CopyTask", says="a generator of its own for every example")
class GeneratedCopies:
    def __init__(self, symbols: int, lengths: tuple[int, int], *, examples: int, seed: int = 0) -> None:
        if symbols < 1 or examples < 1 or not 1 <= lengths[0] <= lengths[1]:
            raise ValueError(f"symbols {symbols}, lengths {lengths}, examples {examples}")
        self.symbols, self.lengths, self.examples, self.seed = symbols, lengths, examples, seed
        self.separator, self.vocab_size = symbols, symbols + 1

    def __len__(self) -> int:
        return self.examples

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Seeded by both numbers."""
        rows, sizes = [], []
        for offset in offsets.tolist():
            if not 0 <= offset < self.examples:
                raise IndexError(f"offset {offset} of {self.examples}")
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + offset) % (1 << 62))
            sizes.append(int(torch.randint(self.lengths[0], self.lengths[1] + 1, (1,), generator=generator)))
            rows.append(torch.randint(self.symbols, (self.lengths[1],), generator=generator))
        longest = self.lengths[1]
        sources = torch.stack(rows) if rows else torch.empty(0, longest, dtype=torch.int64)
        return copy_by_rows(sources, torch.tensor(sizes, dtype=torch.int64), separator=self.separator)


class _Norm(nn.LayerNorm):
    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)


class _Heads(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(d, d) for _ in range(4))


class _MLP(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.fc, self.proj = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)


class _Block(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _Norm(d), _Norm(d)
        self.attention, self.mlp = _Heads(d), _MLP(d)


class _Table(nn.Module):
    def __init__(self, rows: int, width: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width) * std)


@alternative("models.PositionedTransformer", says="head by head, every encoding written out where it acts")
class SpelledOut(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        sizes = [getattr(config, name) for name in ("vocab_size", "max_positions", "n_layer", "n_head", "d_model")]
        if min(sizes) < 1 or config.d_model % config.n_head:
            raise ValueError(f"sizes {sizes}")
        if config.positions not in SCHEMES:
            raise ValueError(f"{config.positions!r} is none of {', '.join(SCHEMES)}")
        width = config.d_model // config.n_head if config.positions == "rotary" else config.d_model
        if config.positions in ("rotary", "sinusoidal") and width % 2:
            raise ValueError(f"an odd width of {width}")
        self.config, d = config, config.d_model
        self.token_embedding = _Table(config.vocab_size, d, d**-0.5)
        if config.positions == "learned":
            self.position_embedding = _Table(config.max_positions, d, d**-0.5)
        if config.positions == "relative":
            self.relative = _Table(32, config.n_head, 0.0)
        self.blocks = nn.ModuleList(_Block(d) for _ in range(config.n_layer))
        self.norm = _Norm(d)
        self.head = nn.Linear(d, config.vocab_size, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self._refuse("tokens", tokens)
        time, d = tokens.shape[1], self.config.d_model
        x = self.token_embedding.weight[tokens.long()]
        if self.config.positions == "learned":
            if time > self.config.max_positions:
                raise ValueError(f"position {time - 1} of {self.config.max_positions}")
            x = x + self.position_embedding.weight[:time]
        if self.config.positions == "sinusoidal":
            pairs = self._angles(time, d)
            table = torch.stack((pairs.sin(), pairs.cos()), dim=-1).flatten(-2)
            x = x + math.sqrt(2 / d) * table.to(x.dtype)
        scores = self._bias(time).to(x.device, x.dtype)
        for block in self.blocks:
            assert isinstance(block, _Block)
            x = x + self._mix(block.attention, block.norm1(x), scores)
            h = block.mlp.fc(block.norm2(x))
            x = x + block.mlp.proj(nn.functional.gelu(h, approximate="tanh"))
        logits = self.head(self.norm(x))
        if targets is None:
            return logits, None
        if targets.shape != tokens.shape:
            raise ValueError(f"targets {tuple(targets.shape)}, tokens {tuple(tokens.shape)}")
        self._refuse("targets", targets.masked_fill(targets == IGNORED, 0))
        kept = targets != IGNORED
        chosen = logits[kept].log_softmax(dim=-1).gather(-1, targets[kept].long()[:, None])
        return logits, -chosen.mean()

    def _mix(self, heads: _Heads, x: Tensor, scores: Tensor) -> Tensor:
        width = self.config.d_model // self.config.n_head
        found = []
        for head in range(self.config.n_head):
            own = slice(head * width, (head + 1) * width)
            q, k, v = (part(x)[..., own] for part in (heads.q_proj, heads.k_proj, heads.v_proj))
            if self.config.positions == "rotary":
                q, k = self._turn(q), self._turn(k)
            found.append(torch.softmax(q @ k.mT / math.sqrt(width) + scores[head], dim=-1) @ v)
        return heads.out_proj(torch.cat(found, dim=-1))

    def _angles(self, time: int, width: int) -> Tensor:
        steps = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        return torch.arange(time)[:, None] * steps

    def _turn(self, x: Tensor) -> Tensor:
        angles = self._angles(*x.shape[-2:])
        a, b = x.chunk(2, dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def _bias(self, time: int) -> Tensor:
        """(heads, time, time): the encoding's, and −∞ where a causal model may not look."""
        n, apart = self.config.n_head, torch.arange(time) - torch.arange(time)[:, None]
        bias = torch.zeros(n, time, time, dtype=torch.float64)
        if self.config.positions == "alibi":
            power = 2 ** math.floor(math.log2(n))
            exponents = [8 * i / power for i in range(1, power + 1)]
            exponents += [4 * i / power for i in range(1, 2 * power, 2)][: n - power]
            bias = -torch.tensor([2.0**-e for e in exponents], dtype=torch.float64)[:, None, None] * apart.abs()
        if self.config.positions == "relative":
            side = 32 if self.config.causal else 16
            r = (-apart).clamp(min=0) if self.config.causal else apart.abs()
            share = (r.clamp(min=side // 2).double() / (side // 2)).log() / math.log(256 / side)
            far = (side // 2 + (share * (side // 2) + 1e-9).floor().long()).clamp(max=side - 1)
            bucket = torch.where(r < side // 2, r, far)
            bucket = bucket if self.config.causal else bucket + 16 * (apart > 0)
            bias = self.relative.weight[bucket].permute(2, 0, 1)
        return bias.masked_fill(apart > 0, -torch.inf) if self.config.causal else bias

    def _refuse(self, name: str, ids: Tensor) -> None:
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name} are {ids.dtype}")
        if ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"{name} have shape {tuple(ids.shape)}")
        if ids.is_meta:
            return
        for value in (int(ids.min()), int(ids.max())):
            if not 0 <= value < self.config.vocab_size:
                raise ValueError(f"{name}: {value} of {self.config.vocab_size}")
