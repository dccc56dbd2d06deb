"""The calls that dense attention is held to: shapes, masks and switches, each away from its default somewhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Shapes and switches of one call; `batch` is one tuple for all inputs, or three for query, key and value."""

    batch: tuple = (2, 3)
    queries: int = 5
    keys: int = 7
    d_k: int = 8
    d_v: int = 6
    mask: str | None = None
    is_causal: bool = False
    scale: float | None = None

    def inputs(self, draw, dtype="float64"):
        """query, key, value, and the mask where there is one, in the order of the call."""
        batches = self.batch if self.batch and isinstance(self.batch[0], tuple) else (self.batch,) * 3
        q = draw.normal(*batches[0], self.queries, self.d_k, dtype=dtype)
        k = draw.normal(*batches[1], self.keys, self.d_k, dtype=dtype)
        v = draw.normal(*batches[2], self.keys, self.d_v, dtype=dtype)
        mask = self.drawn_mask(draw, dtype)
        return [q, k, v] if mask is None else [q, k, v, mask]

    def drawn_mask(self, draw, dtype):
        import torch

        every = (*self.batch, self.queries, self.keys)
        if self.mask is None:
            return None
        if self.mask == "boolean":  # every query keeps its own key and the first, so no row is empty
            return _keep_some(draw.booleans(self.queries, self.keys))
        if self.mask == "padding":  # (batch, 1, 1, keys): rows of different lengths, as a batch of prompts has
            lengths = torch.arange(self.batch[0]) % self.keys + 1
            return (torch.arange(self.keys) < lengths[:, None])[:, None, None, :]
        if self.mask == "blind":  # one query of one row sees nothing
            seen = _keep_some(draw.booleans(*every))
            seen.view(-1, self.queries, self.keys)[1, 2] = False
            return seen
        if self.mask == "additive":
            return draw.normal(self.queries, self.keys, dtype=dtype)
        if self.mask == "additive per head":
            return draw.normal(1, self.batch[1], self.queries, self.keys, dtype=dtype)
        if self.mask == "additive, some −inf":
            bias = draw.normal(self.queries, self.keys, dtype=dtype)
            bias = bias.masked_fill(~_keep_some(draw.booleans(self.queries, self.keys)), -torch.inf)
            return bias
        if self.mask == "additive, blind":
            bias = draw.normal(*every, dtype=dtype)
            bias.view(-1, self.queries, self.keys)[0, 1] = -torch.inf
            return bias
        if self.mask == "keys":  # one dimension, with two open keys at least
            seen = draw.booleans(self.keys)
            seen[:2] = True
            return seen
        assert self.mask == "queries", self.mask  # a column: some queries see everything, some nothing
        seen = draw.booleans(self.queries, 1)
        seen[0], seen[-1] = True, False
        return seen


def _keep_some(seen):
    """The same mask with the first key and the diagonal open."""
    seen[..., 0] = True
    seen.diagonal(dim1=-2, dim2=-1).fill_(True)
    return seen


CASES = {
    "plain": Case(keys=5, d_v=8),
    "cross": Case(),
    "causal": Case(keys=5, is_causal=True),
    "causal, more keys": Case(queries=3, is_causal=True),
    "causal, fewer keys": Case(queries=7, keys=4, is_causal=True),
    "boolean mask": Case(mask="boolean"),
    "boolean and causal": Case(mask="boolean", is_causal=True),
    "padding": Case(batch=(3, 2), mask="padding"),
    "padding and causal": Case(batch=(3, 2), keys=5, mask="padding", is_causal=True),
    "a query sees nothing": Case(mask="blind"),
    "additive mask": Case(mask="additive"),
    "additive, per head": Case(mask="additive per head"),
    "additive and causal": Case(mask="additive", is_causal=True),
    "additive with −inf": Case(mask="additive, some −inf", is_causal=True),
    "additive, blind": Case(mask="additive, blind"),
    "mask of keys": Case(mask="keys"),
    "mask of queries": Case(mask="queries"),
    "scale": Case(scale=0.8, mask="boolean"),
    "scale of zero": Case(scale=0.0),
    "no batch": Case(batch=(), mask="boolean"),
    "many batches": Case(batch=(2, 1, 3, 2), queries=3, keys=4, is_causal=True),
    "broadcast batches": Case(batch=((2, 1), (1, 3), (3,)), is_causal=True),
    "one of everything": Case(batch=(1,), queries=1, keys=1, d_k=1, d_v=1),
    "one query": Case(queries=1, is_causal=True),
    "one key": Case(keys=1),
    "odd sizes": Case(batch=(3,), queries=17, keys=33, d_k=5, d_v=3, is_causal=True),
}


def call(attention, case, inputs):
    return attention(*inputs, is_causal=case.is_causal, scale=case.scale)


def relative_error(got, want):
    """Largest difference, relative to the largest number wanted."""
    got, want = got.detach(), want.detach()
    return float((got - want).abs().max() / want.abs().max())


#: What a declared precision rounds to, and some: relative to the largest value.
_COARSE = {"tf32": 2e-3, "float16": 4e-3, "bfloat16": 4e-2}


def in_precision(impl, name, tensor, figure):
    """`figure`, a bound for results of the dtype of `tensor`, or the bound of a coarser precision that was declared.

    What an implementation declares it computes in matters in float32, where TF32 and bfloat16 products are in use.
    """
    declared = impl.declared(name).get("precision")
    if declared is None or str(tensor.dtype) != "torch.float32":
        return figure
    return max(figure, _COARSE[declared])
