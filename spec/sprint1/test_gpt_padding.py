"""Rows of unequal length in one batch of a GPT: padding on either side, and positions that are given."""

from __future__ import annotations

import pytest
import torch

from spec.refusals import naming
from spec.sprint1.gpt_cases import SMALL, drawn, model, shapes
from touchstone import checks, subject

pytestmark = subject("models.GPT", "models.GPTConfig")

WIDEST, LENGTHS = 7, (4, 7, 1, 0)
UNTIED = {**SMALL, "tied": False}


def strong(impl, draw):
    """An untied model in float64 whose positions and attention matter."""
    weights = drawn(draw, {**shapes(SMALL), "head.weight": (SMALL["vocab_size"], SMALL["n_embd"])})
    return model(impl, weights, **UNTIED).eval()


def padded(draw, side):
    """Tokens (batch, time), which of them are real, and each row's slice of real ones."""
    tokens = draw.integers(0, SMALL["vocab_size"], len(LENGTHS), WIDEST)
    where = [slice(WIDEST - n, WIDEST) if side == "left" else slice(0, n) for n in LENGTHS]
    real = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, places in enumerate(where):
        real[row, places] = True
    return tokens, real, where


@checks("oracle", "branches")
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_row_is_what_it_is_alone(impl, draw, side):
    gpt = strong(impl, draw)
    tokens, real, where = padded(draw, side)
    kept = tokens.clone(), real.clone()
    with torch.no_grad():
        together = gpt(tokens, padding_mask=real)[0]
        for row, places in enumerate(where[:3]):
            alone = gpt(tokens[row : row + 1, places])[0][0]
            assert (together[row, places] - alone).abs().max() <= 1e-10 * alone.abs().max()
        assert together.isfinite().all(), "also where there is only padding"
        other = torch.where(real, tokens, draw.integers(0, SMALL["vocab_size"], *tokens.shape))
        again = gpt(other, padding_mask=real)[0]
    assert torch.equal(together[real], again[real]), "what stands at padding does not matter"
    assert torch.equal(tokens, kept[0]) and torch.equal(real, kept[1])


@checks("invariance")
def test_a_mask_of_real_tokens_alone_changes_nothing(impl, draw):
    gpt, tokens = strong(impl, draw), draw.integers(0, SMALL["vocab_size"], 2, 5)
    with torch.no_grad():
        plain, masked = gpt(tokens)[0], gpt(tokens, padding_mask=torch.ones(2, 5, dtype=torch.bool))[0]
    assert (plain - masked).abs().max() <= 1e-12 * plain.abs().max()


@checks("gradient")
@pytest.mark.parametrize("side", ["left", "right"])
def test_nothing_is_learned_from_padding(impl, draw, side):
    """Padding has an id of its own here, whose row of the embedding gets no gradient."""
    gpt = strong(impl, draw)
    tokens, real, _ = padded(draw, side)
    pad = SMALL["vocab_size"] - 1
    tokens = torch.where(real, tokens % pad, pad)
    targets = torch.where(real, draw.integers(0, pad, *tokens.shape), -100)
    loss = gpt(tokens, targets, padding_mask=real)[1]
    loss.backward()
    assert (gpt.token_embedding.weight.grad[pad] == 0).all()
    assert (gpt.token_embedding.weight.grad[tokens[real].unique()].abs().amax(dim=-1) > 0).all()
    assert all(value.grad.isfinite().all() for value in gpt.parameters())
    with torch.no_grad():
        logits = gpt(tokens, padding_mask=real)[0][real]
        wanted = torch.nn.functional.cross_entropy(logits, targets[real])
    assert abs(loss.item() - wanted.item()) <= 1e-12 * wanted.item(), "a mean over real targets"


@checks("branches", "arguments", "dtype")
def test_positions_choose_rows(impl, draw):
    """One row of positions for all texts, or one each; what is given stands above what the mask counts."""
    gpt, tokens = strong(impl, draw), draw.integers(0, SMALL["vocab_size"], 2, 3)
    rows = gpt.position_embedding.weight.detach().clone()

    def shown(chosen):
        """The logits with the position table put in the order that is asked for, counted from 0, a row at a time."""
        found = []
        for text, places in zip(tokens, torch.as_tensor(chosen).broadcast_to(2, 3), strict=True):
            gpt.position_embedding.weight[:3] = rows[places]
            found.append(gpt(text[None])[0])
            gpt.position_embedding.weight.copy_(rows)
        return torch.cat(found)

    with torch.no_grad():
        for chosen in ([2, 3, 4], [[4, 5, 6], [0, 1, 2]]):
            for dtype in (torch.int64, torch.int32):
                given = torch.tensor(chosen, dtype=dtype)
                found = gpt(tokens, positions=given)[0]
                assert (found - shown(chosen)).abs().max() <= 1e-10 * found.abs().max()
        counted = gpt(tokens, positions=torch.arange(3))[0]
        assert (counted - gpt(tokens)[0]).abs().max() <= 1e-12 * counted.abs().max()
        real = torch.tensor([[False, True, True], [True, True, True]])
        both = gpt(tokens, positions=torch.tensor([[3, 4, 5], [1, 2, 3]]), padding_mask=real)[0]
        gpt.position_embedding.weight[:2] = rows[4:6]
        assert (both[0, 1:] - gpt(tokens[:1, 1:])[0][0]).abs().max() <= 1e-10 * both.abs().max()


REFUSED = {
    "a mask of numbers": ({"padding_mask": torch.ones(2, 4)}, TypeError, ("padding_mask", "float32")),
    "a mask of integers": ({"padding_mask": torch.ones(2, 4).long()}, TypeError, ("padding_mask", "int64")),
    "a mask for one row": ({"padding_mask": torch.ones(1, 4).bool()}, ValueError, ("padding_mask", (2, 4), (1, 4))),
    "a mask too long": ({"padding_mask": torch.ones(2, 5).bool()}, ValueError, ("padding_mask", (2, 4), (2, 5))),
    "positions that are floating": ({"positions": torch.arange(4.0)}, TypeError, ("positions", "float32")),
    "too few positions": ({"positions": torch.arange(3)}, ValueError, ("positions", (3,))),
    "positions of three texts": ({"positions": torch.zeros(3, 4).long()}, ValueError, ("positions", (3, 4))),
    "a position behind the table": ({"positions": torch.arange(4) + 4}, ValueError, ("positions", 7)),
    "a negative position": ({"positions": torch.arange(4) - 1}, ValueError, ("positions", -1)),
}


@checks("edges")
@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_named(impl, draw, what):
    options, error, names = REFUSED[what]
    gpt = strong(impl, draw)
    with pytest.raises(error, match=naming(*names)):
        gpt(draw.integers(0, SMALL["vocab_size"], 2, 4), **options)
