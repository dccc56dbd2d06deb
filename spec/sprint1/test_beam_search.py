"""Beam search against exhaustive search on tiny models, and the schedule of the original Transformer."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from touchstone import checks, proves, subject

BEAM = subject("decoding.beam_search")
NOAM = subject("optim.noam_schedule")


def tiny(table):
    """A model of V ids whose next logits depend on the two tokens before; it counts what it is asked."""

    def next_logits(prefixes):
        next_logits.asked.append(len(prefixes))
        before = prefixes[:, -2] if prefixes.shape[1] > 1 else torch.zeros_like(prefixes[:, -1])
        return table[before, prefixes[:, -1]]

    next_logits.asked = []
    return next_logits


def log_probability(table, prompt, tokens):
    sequence, total = [0, *prompt, *tokens], 0.0
    for i in range(len(prompt) + 1, len(sequence)):
        total += table[sequence[i - 2], sequence[i - 1]].double().log_softmax(-1)[sequence[i]].item()
    return total


def exhaustive(table, prompt, length, end_id=None, alpha=0.0):
    """Every continuation that ends, and every one of full length that does not, by score."""
    found = []
    V = table.shape[-1]
    for n in range(1, length + 1):
        for tokens in itertools.product(range(V), repeat=n):
            if end_id in tokens[:-1] or (tokens[-1] != end_id and n < length):
                continue
            found.append((list(tokens), log_probability(table, prompt, tokens) / ((5 + n) / 6) ** alpha))
    return sorted(found, key=lambda each: -each[1])


def greedy(table, prompt, length, end_id=None):
    tokens = []
    for _ in range(length):
        sequence = [0, *prompt, *tokens]
        tokens.append(int(table[sequence[-2], sequence[-1]].argmax()))
        if tokens[-1] == end_id:
            break
    return tokens


@BEAM
@proves("nanochat/week04/vaswani-training#parity-2")
@checks("oracle", "arguments", "branches")
@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("end_id", [None, 1, 3])
def test_every_beam_is_exhaustive_search(end_id, alpha, impl, draw):
    V, length = 4, 4
    for prompt in ([2], [0, 3, 1]):
        table = draw.normal(V, V, V, scale=2.0)
        want = exhaustive(table, prompt, length, end_id, alpha)
        options = {"max_new_tokens": length, "end_id": end_id, "length_penalty": alpha}
        got = impl.decoding.beam_search(tiny(table), torch.tensor(prompt), n_beams=V**length, **options)
        wanted = {tuple(tokens): score for tokens, score in want}  # not their order: walks round a circle are equal
        assert {tuple(tokens) for tokens, _ in got} == wanted.keys()
        assert len(got) == len(want)
        for tokens, score in got:
            assert abs(score - wanted[tuple(tokens)]) <= 1e-12 * max(1.0, abs(score))
        assert [score for _, score in got] == sorted((score for _, score in got), reverse=True)


@BEAM
@proves("nanochat/week04/vaswani-training#parity-2")
@checks("oracle", "branches", "dtype")
@pytest.mark.parametrize("end_id", [None, 0, 4])
def test_one_beam_is_greedy(end_id, impl, draw):
    for dtype in ("float64", "float32", "float32", "bfloat16"):
        table = draw.normal(5, 5, 5, scale=2.0, dtype=dtype)
        prompt = torch.tensor([1, 2], dtype=torch.int32 if dtype == "float32" else torch.int64)
        (tokens, score), *rest = impl.decoding.beam_search(
            tiny(table), prompt, n_beams=1, max_new_tokens=7, end_id=end_id
        )
        assert not rest
        assert tokens == greedy(table, prompt.tolist(), 7, end_id)
        assert isinstance(score, float)
        assert abs(score - log_probability(table, prompt.tolist(), tokens)) <= 1e-12 * abs(score)


@BEAM
@proves("nanochat/week04/vaswani-training#parity-2")
@checks("oracle", "invariance")
def test_a_wider_beam_is_never_worse_on_this_model(impl):
    """On this one: in general a wider beam can lose what a narrow one found."""
    table = 2 * torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for end_id in (None, 2):
        scores = []
        for beams in (1, 2, 3, 4, 8, 16, 64, 256):
            best = impl.decoding.beam_search(
                tiny(table), torch.tensor([1]), n_beams=beams, max_new_tokens=4, end_id=end_id
            )[0]
            scores.append(best[1])
        assert scores == sorted(scores)
        assert scores[-1] == pytest.approx(exhaustive(table, [1], 4, end_id)[0][1], rel=1e-12)
        assert scores[-1] > scores[0], "greedy must not be the optimum here, or nothing was shown"


@BEAM
@checks("branches", "edges", "magnitude")
def test_what_ends_is_kept_and_not_extended(impl):
    """Ids 0 (end), 1, 2: ending at once has probability 0.4, then 1 leads to a certain end."""
    table = torch.full((3, 3, 3), -torch.inf, dtype=torch.float64)
    table[:, 2] = torch.tensor([0.4, 0.5, 0.1]).double().log()
    table[:, 1] = torch.tensor([1.0, 0.0, 0.0]).double().log()
    search = impl.decoding.beam_search
    options = {"end_id": 0, "max_new_tokens": 3}
    (first, p), (second, q) = search(tiny(table), torch.tensor([2]), n_beams=2, **options)
    assert (first, second) == ([1, 0], [0])
    assert (p, q) == (pytest.approx(math.log(0.5)), pytest.approx(math.log(0.4)))
    penalised = search(tiny(table), torch.tensor([2]), n_beams=2, length_penalty=1.0, **options)
    assert penalised[0][1] == pytest.approx(math.log(0.5) / (7 / 6))
    assert penalised[1][1] == pytest.approx(math.log(0.4))
    alone = torch.full((3, 3, 3), -1e4, dtype=torch.float64)
    alone[..., 0] = 0.0
    model = tiny(alone)
    assert search(model, torch.tensor([2]), n_beams=1, **options)[0][0] == [0]
    assert model.asked == [1], "with nothing left that could win it stops"
    assert search(tiny(table), torch.tensor([2]), n_beams=2, max_new_tokens=0, end_id=0) == [([], 0.0)]
    many = search(tiny(table), torch.tensor([2]), n_beams=50, **options)
    assert all(score > -math.inf for _, score in many), "what cannot happen is not a result"


@BEAM
@checks("branches", "oracle")
def test_a_longer_one_can_overtake_under_the_penalty(impl):
    """Ending now has the better sum; what goes on is certain, and a strong penalty prefers it."""
    table = torch.full((3, 3, 3), -torch.inf, dtype=torch.float64)
    table[:, 2] = torch.tensor([0.55, 0.45, 0.0]).double().log()
    table[:, 1] = torch.tensor([0.0, 1.0, 0.0]).double().log()
    options = {"end_id": 0, "max_new_tokens": 8, "n_beams": 1}
    assert impl.decoding.beam_search(tiny(table), torch.tensor([2]), **options)[0][0] == [0]
    tokens, score = impl.decoding.beam_search(tiny(table), torch.tensor([2]), length_penalty=1.0, **options)[0]
    assert tokens == [1] * 8
    assert score == pytest.approx(math.log(0.45) / (13 / 6))


@BEAM
@checks("resources", "purity", "invariance", "state")
def test_work_and_purity(impl, draw):
    table = draw.normal(6, 6, 6)
    prompt = torch.tensor([1, 4])
    kept, state, model = prompt.clone(), torch.get_rng_state(), tiny(table)
    found = impl.decoding.beam_search(model, prompt, n_beams=3, max_new_tokens=5)
    assert model.asked == [1, 3, 3, 3, 3], "one call a step, for the open prefixes together"
    assert found == impl.decoding.beam_search(tiny(table), prompt, n_beams=3, max_new_tokens=5)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert len({tuple(tokens) for tokens, _ in found}) == 3
    assert torch.equal(prompt, kept)
    assert torch.equal(state, torch.get_rng_state())
    shifted = impl.decoding.beam_search(tiny(table + 7.0), prompt, n_beams=3, max_new_tokens=5)
    assert [tokens for tokens, _ in shifted] == [tokens for tokens, _ in found]
    weights = table.clone().requires_grad_()
    assert isinstance(impl.decoding.beam_search(tiny(weights), prompt, n_beams=2, max_new_tokens=2)[0][1], float)
    equal = torch.zeros(4, 4, 4)
    first = impl.decoding.beam_search(tiny(equal), prompt % 4, n_beams=3, max_new_tokens=2)
    assert [tokens for tokens, _ in first] == [[0, 0], [0, 1], [0, 2]], "of equals the lower id"


@BEAM
@checks("edges", "arguments")
def test_what_the_search_refuses(impl, draw):
    table, prompt = draw.normal(3, 3, 3), torch.tensor([1])
    good = {"n_beams": 2, "max_new_tokens": 2}
    for changes, named in (
        ({"n_beams": 0}, r"n_beams.*0"),
        ({"max_new_tokens": -1}, r"max_new_tokens.*-1"),
        ({"length_penalty": -0.5}, r"length_penalty.*-0\.5"),
        ({"end_id": 3}, r"end_id.*3"),
        ({"end_id": -1}, r"end_id.*-1"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.decoding.beam_search(tiny(table), prompt, **{**good, **changes})
    for wrong in (prompt[:0], prompt[None]):
        with pytest.raises(ValueError, match="prompt"):
            impl.decoding.beam_search(tiny(table), wrong, **good)
    with pytest.raises(TypeError, match="float"):
        impl.decoding.beam_search(tiny(table), prompt.double(), **good)
    with pytest.raises(ValueError, match="NaN"):
        impl.decoding.beam_search(tiny(table * math.nan), prompt, **good)
    with pytest.raises(ValueError, match="next_logits"):
        impl.decoding.beam_search(lambda prefixes: table, prompt, **good)


# -- the schedule ------------------------------------------------------------------------------------------------------


@NOAM
@proves("nanochat/week04/vaswani-training#parity", "nanochat/week04/vaswani-training#threshold")
@checks("oracle", "arguments", "branches")
def test_the_schedule_is_its_formula(impl, oracle):
    rate = impl.optim.noam_schedule
    for d, w, factor in ((512, 4000, 1.0), (64, 10, 2.0), (7, 1, 0.5)):
        for step in [*range(1, 50), w - 1, w, w + 1, 10 * w, 10**6]:
            if step >= 1:
                want = factor * d**-0.5 * min(step**-0.5, step * w**-1.5)
                got = rate(step, d_model=d, warmup=w, factor=factor)
                assert got == pytest.approx(want, rel=1e-14)
                slow = oracle.optim.noam_schedule(step, d_model=d, warmup=w, factor=factor)
                assert got == pytest.approx(slow, rel=1e-14)
    rates = [rate(step, d_model=512, warmup=4000) for step in range(1, 12_001)]
    assert max(rates) == rates[3999] == pytest.approx(6.98771e-4, rel=1e-6)
    assert all(a < b for a, b in itertools.pairwise(rates[:4000]))
    assert all(a > b for a, b in itertools.pairwise(rates[3999:]))
    assert rates[0] == pytest.approx(rates[3999] / 4000, rel=1e-12)


@NOAM
@checks("edges", "arguments")
def test_what_the_schedule_refuses(impl):
    good = {"step": 1, "d_model": 8, "warmup": 2}
    for changes, named in (
        ({"step": 0}, r"step.*0"),
        ({"d_model": 0}, r"d_model.*0"),
        ({"warmup": 0}, r"warmup.*0"),
        ({"factor": 0.0}, r"factor.*0"),
        ({"factor": math.inf}, r"factor.*inf"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.optim.noam_schedule(**{**good, **changes})
