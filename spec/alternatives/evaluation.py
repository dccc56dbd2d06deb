"""Other roads to attention maps and to what they show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone import alternative


@alternative("evaluation.attention_maps", says="hooks on the projections while the model runs, and a softmax by hand")
def hooked_maps(
    model: nn.Module, tokens: Tensor, *, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> Tensor:
    """The model's own forward checks its tokens."""
    config = model.config
    for what, chosen, count in (("layer", layers, config.n_layer), ("head", heads, config.n_head)):
        for index in chosen or ():
            if index not in range(count):
                raise ValueError(f"{what} {index}: the last one is {count - 1}")
    seen: dict[tuple[int, str], Tensor] = {}
    hooks = []
    for layer, block in enumerate(model.blocks):
        for part in ("q_proj", "k_proj"):
            place = (layer, part)
            module = getattr(block.attention, part)
            hooks.append(module.register_forward_hook(lambda m, i, out, place=place: seen.update({place: out})))
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(tokens)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    late = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    found = []
    for layer in range(config.n_layer) if layers is None else layers:
        q, k = (seen[layer, part].unflatten(-1, (config.n_head, -1)).transpose(1, 2) for part in ("q_proj", "k_proj"))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(late, -torch.inf)
        e = (scores - scores.amax(dim=-1, keepdim=True)).exp()
        maps = e / e.sum(dim=-1, keepdim=True)
        found.append(maps if heads is None else maps[:, list(heads)])
    return torch.stack(found, dim=1)


@alternative(
    "evaluation.head_scores", says="each kind of look as a mask of pairs, and one mean over the pairs' weights"
)
def masked_scores(maps: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Masks (batch, time, time)."""
    if maps.ndim != 5 or maps.shape[-1] != maps.shape[-2] or maps.shape[-1] < 2:
        raise ValueError(f"maps of shape {tuple(maps.shape)}")
    if tokens.shape != maps[:, 0, 0, 0].shape:
        raise ValueError(f"tokens {tuple(tokens.shape)}, maps {tuple(maps.shape)}")
    t, j = torch.arange(maps.shape[-1])[:, None], torch.arange(maps.shape[-1])[None, :]
    before = F.pad(tokens, (1, -1), value=-1)
    masks = {
        "previous": (j == t - 1).expand(len(tokens), -1, -1),
        "first": ((j == 0) & (t > 0)).expand(len(tokens), -1, -1),
        "induction": (before[:, None, :] == tokens[:, :, None]) & (j >= 1) & (j <= t),
    }
    found = {}
    for name, mask in masks.items():
        queries = mask.any(dim=-1).sum()
        found[name] = torch.einsum("blhtj,btj->lh", maps, mask.to(maps.dtype)) / queries
    return found


@alternative("evaluation.head_diversity", says="cosine_similarity of every pair of heads")
def pairwise_diversity(maps: Tensor) -> Tensor:
    """A mean over pairs."""
    if maps.ndim != 5 or maps.shape[3] != maps.shape[4] or maps.shape[2] < 2:
        raise ValueError(f"maps of shape {tuple(maps.shape)}")
    flat = maps.permute(1, 2, 0, 3, 4).flatten(2)
    pairs = combinations(range(flat.shape[1]), 2)
    return 1 - torch.stack([F.cosine_similarity(flat[:, a], flat[:, b], dim=-1) for a, b in pairs]).mean(dim=0)
