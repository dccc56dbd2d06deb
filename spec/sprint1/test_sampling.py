"""From logits to tokens: the distribution by oracle and by transformers' warpers, the draws by chi-square."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from spec.refusals import naming
from spec.statistics import chi_square_p
from touchstone import checks, proves, subject

pytestmark = subject("decoding.next_token_probabilities")
SAMPLE = subject("decoding.sample")

# Every argument alone and all together, on both sides of its neutral value.
ARGUMENTS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 6},
    {"top_k": 50},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 1.0},
    {"temperature": 0.7, "top_k": 6, "top_p": 0.8},
    {"temperature": 1.8, "top_k": 9, "top_p": 0.6},
    {"temperature": 0.0},
]


@checks("oracle", "arguments", "branches", "dtype", "edges", "purity")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(3, 11), (2, 3, 7), (7, 7), (13,), (2, 1)])
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_equals_the_oracle(arguments, shape, dtype, parity, draw):
    parity("decoding.next_token_probabilities", draw.normal(*shape, dtype=dtype, scale=2.0), within=1e-12, **arguments)


@checks("oracle", "magnitude", "edges", "branches")
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_large_logits_ties_and_forbidden_tokens(arguments, parity, impl, draw):
    logits = draw.normal(4, 12, scale=2.0)
    logits[0] += 1e4
    logits[1] *= 200
    logits[2, ::2] = -float("inf")
    logits[3] = torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, 1.0, -3.0, 2.0, 0.0, 1.0, -3.0, -9.0])
    parity("decoding.next_token_probabilities", logits, within=1e-12, **arguments)
    p = impl.decoding.next_token_probabilities(logits, **arguments)
    assert (p[2, ::2] == 0).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(4, dtype=p.dtype), rtol=0, atol=1e-12)


@checks("branches", "edges")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_mass_that_reaches_p_exactly_is_enough(size, dtype, impl):
    """Equal logits: k of them have the mass k/size in any arithmetic, and the nucleus of p = k/size is the first k."""
    logits = torch.full((3, size), 2.5, dtype=getattr(torch, dtype))
    for k in range(1, size):
        p = impl.decoding.next_token_probabilities(logits, top_p=k / size)
        assert torch.equal(p > 0, (torch.arange(size) < k).expand(3, size))
        torch.testing.assert_close(p[:, :k], torch.full_like(p[:, :k], 1 / k))


@checks("magnitude", "dtype")
@pytest.mark.parametrize(("dtype", "temperature"), [("float64", 1e-307), ("float32", 1e-38), ("float16", 1e-3)])
def test_a_tiny_temperature_is_the_limit_and_no_overflow(dtype, temperature, impl, draw):
    """Logits of a hundred, divided by it, are more than the dtype holds."""
    logits = draw.uniform(50.0, 90.0, 6, 9, dtype=dtype)
    logits[torch.arange(6), draw.integers(0, 9, 6)] = 100.0
    p = impl.decoding.next_token_probabilities(logits, temperature=temperature)
    assert p.dtype == logits.dtype
    assert torch.equal(p, (logits == 100.0).to(p.dtype))


@pytest.mark.process  # imports transformers
@proves("sprints/day047/sampling#parity", "karpathy/week08/sampling#parity")
@checks("oracle", "arguments")
@pytest.mark.parametrize("arguments", [one for one in ARGUMENTS if one.get("temperature") != 0.0], ids=str)
def test_equals_the_warpers_of_transformers(arguments, impl, needs, draw):
    needs.peer("transformers")
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = draw.normal(50, 19, scale=3.0)
    logits[:10, 3:9] = -float("inf")
    logits[10:14, 5] = logits[10:14, 6] = logits[10:14].amax(-1)  # two that tie for the first place
    scores = TemperatureLogitsWarper(arguments.get("temperature", 1.0))(None, logits)
    if "top_k" in arguments:
        scores = TopKLogitsWarper(arguments["top_k"])(None, scores)
    if "top_p" in arguments:
        scores = TopPLogitsWarper(arguments["top_p"])(None, scores)
    got = impl.decoding.next_token_probabilities(logits, **arguments)
    want = scores.softmax(-1)
    if "top_p" in arguments:  # which of two tokens of equal probability the nucleus drops is open in the library
        got[10:14], want[10:14] = got[10:14].sort(-1).values, want[10:14].sort(-1).values
    assert (got - want).abs().max() <= 1e-12
    assert ((got == 0) == (want == 0)).all()


@proves(
    "sprints/day047/sampling#property",
    "karpathy/week08/sampling#property",
    "karpathy/week08/sampling#property-2",
    "colab/day061/decoding-strategies#property",
    "inference/0.7/generation#property",
)
@checks("invariance", "branches")
def test_the_nucleus_is_the_smallest_that_reaches_p(impl, draw):
    logits = draw.normal(200, 23, scale=2.0)
    whole = logits.softmax(-1)
    ordered = whole.sort(-1, descending=True).values
    for p in (1e-9, 0.2, 0.5, 0.95, 0.999):
        kept = impl.decoding.next_token_probabilities(logits, top_p=p) > 0
        mass = (whole * kept).sum(-1)
        size = kept.sum(-1)
        assert (size >= 1).all()
        assert (mass >= p - 1e-12).all(), "the token that crosses p is kept"
        last = ordered.gather(-1, size[:, None] - 1)[:, 0]
        assert (mass - last < p).all(), "without its last member the nucleus must fall short"
        assert (torch.where(kept, whole, 1.0).amin(-1) >= torch.where(kept, 0.0, whole).amax(-1)).all()
    neutral = impl.decoding.next_token_probabilities(logits)
    torch.testing.assert_close(neutral, whole, rtol=1e-12, atol=0)
    for arguments in ({"top_p": 1.0}, {"top_k": 23}, {"top_k": 1000}, {"temperature": 1.0, "top_k": 23, "top_p": 1.0}):
        assert torch.equal(impl.decoding.next_token_probabilities(logits, **arguments), neutral), arguments
    greedy = torch.nn.functional.one_hot(logits.argmax(-1), 23).double()
    for arguments in ({"top_k": 1}, {"temperature": 0.0}, {"temperature": 1e-13}, {"top_p": 1e-9}):
        assert torch.equal(impl.decoding.next_token_probabilities(logits, **arguments), greedy), arguments
    # Temperature acts before the nucleus is taken: hot, the same p needs more tokens.
    hot = (impl.decoding.next_token_probabilities(logits, temperature=4.0, top_p=0.5) > 0).sum(-1)
    cold = (impl.decoding.next_token_probabilities(logits, temperature=0.25, top_p=0.5) > 0).sum(-1)
    assert (hot >= cold).all()
    assert hot.sum() > 2 * cold.sum()


@proves(
    "sprints/day047/sampling#robustness", "karpathy/week08/sampling#robustness", "inference/0.7/generation#robustness"
)
@checks("edges")
def test_what_is_no_distribution_is_refused(impl, draw):
    probabilities = impl.decoding.next_token_probabilities
    logits = draw.normal(2, 5)
    for temperature in (-1.0, -0.001, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=naming("temperature", temperature)):
            probabilities(logits, temperature=temperature)
    for k in (0, -3):
        with pytest.raises(ValueError, match=naming("top_k", k)):
            probabilities(logits, top_k=k)
    assert torch.equal(probabilities(logits, top_k=6), probabilities(logits))  # a vocabulary smaller than k: clamped
    for p in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match=naming("top_p", p)):
            probabilities(logits, top_p=p)
    for value, said in ((float("nan"), "(?i)nan"), (float("inf"), r"(?i)\binf")):
        bad = logits.clone()
        bad[1, 2] = value
        for arguments in ({}, {"temperature": 0.0}):
            with pytest.raises(ValueError, match=said):
                probabilities(bad, **arguments)
    logits[1] = -float("inf")
    with pytest.raises(ValueError, match="-inf"):
        probabilities(logits)


# -- whole texts -----------------------------------------------------------------------------------------------------


class Table(torch.nn.Module):
    """A bigram table as a model: what follows depends on the last token only, so its distribution is known."""

    def __init__(self, logits, block_size=8):
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(logits)
        self.config = SimpleNamespace(block_size=block_size)
        self.lengths, self.modes, self.grad = [], [], []

    def forward(self, tokens, targets=None):
        assert tokens.shape[1] <= self.config.block_size
        self.lengths.append(tokens.shape[1])
        self.modes.append(self.training)
        self.grad.append(torch.is_grad_enabled())
        return self.table(tokens), None


class Memory(torch.nn.Module):
    """Says the first token it sees: shows which part of a text a model was given."""

    def __init__(self, block_size):
        super().__init__()
        self.config = SimpleNamespace(block_size=block_size)

    def forward(self, tokens, targets=None):
        return 50.0 * torch.nn.functional.one_hot(tokens[:, :1].expand_as(tokens), 9).double(), None


@subject("decoding.sample", "decoding.next_token_probabilities")
@proves(
    "nanochat/week04/train-shakespeare#property-2",
    "sprints/day047/sampling#property",
    "karpathy/week08/sampling#property-2",
    "colab/day061/decoding-strategies#property",
    "inference/0.7/generation#property",
)
@checks("oracle", "arguments")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.7},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.9},
    ],
    ids=str,
)
@pytest.mark.process
def test_draws_follow_the_distribution(arguments, impl, record):
    """100,000 draws, p > 0.001 in one of two tries under fixed seeds: a false alarm has a probability below 1e-6.

    Rejects a temperature that is off by 5 % with a power above 0.999: χ² then exceeds its mean by 50 (top_k 3) or more.
    """
    logits = torch.linspace(-2.0, 2.0, 8, dtype=torch.float64)[torch.tensor([3, 0, 6, 1, 7, 4, 2, 5])]
    model = Table(logits.expand(8, 8).clone())
    want = impl.decoding.next_token_probabilities(logits, **arguments)
    allowed = want > 0
    found = []
    for seed in (0, 1):
        drawn = impl.decoding.sample(
            model,
            torch.zeros(20_000, 1, dtype=torch.long),
            5,
            generator=torch.Generator().manual_seed(seed),
            **arguments,
        )
        counts = torch.bincount(drawn[:, 1:].flatten(), minlength=8)
        assert counts[~allowed].sum() == 0, "a token outside top-k or the nucleus was drawn"
        found.append(chi_square_p(counts[allowed], 100_000 * want[allowed]))
    record(f"p of draws, {arguments or 'as they are'}", max(found))
    assert max(found) > 0.001


@SAMPLE
@proves(
    "nanochat/week04/train-shakespeare#property-2",
    "sprints/day047/sampling#property",
    "inference/0.7/generation#robustness",
)
@checks("oracle", "branches", "invariance", "dtype")
def test_rows_follow_their_own_last_token(impl, draw):
    logits = draw.normal(9, 9, scale=3.0)
    model = Table(logits)
    prompt = draw.integers(0, 9, 4, 3)
    kept, state = prompt.clone(), torch.get_rng_state()
    found = impl.decoding.sample(model, prompt, 12, temperature=0.0)
    assert torch.equal(torch.get_rng_state(), state), "greedy decoding draws nothing"
    assert torch.equal(prompt, kept)
    assert found.dtype == torch.int64
    assert found.shape == (4, 15)
    assert torch.equal(found[:, :3], prompt)
    for t in range(3, 15):
        assert torch.equal(found[:, t], logits.argmax(-1)[found[:, t - 1]])
    nothing = impl.decoding.sample(model, prompt, 0)
    assert torch.equal(nothing, prompt)
    nothing += 1  # a text is its caller's own
    assert torch.equal(prompt, kept)
    assert torch.equal(impl.decoding.sample(model, prompt.int(), 12, temperature=0.0), found)
    assert torch.equal(impl.decoding.sample(model, prompt, 12, top_k=1), found)
    tied = Table(torch.tensor([[0.0, 5.0, 5.0, 1.0]] * 4))
    assert (
        impl.decoding.sample(tied, torch.zeros(1, 1, dtype=torch.long), 5, temperature=0.0)[0, 1:].tolist() == [1] * 5
    )


@SAMPLE
@checks("purity", "state", "branches", "resources")
def test_seeds_modes_and_the_window(impl, draw):
    model = Table(draw.normal(9, 9), block_size=5)
    prompt = draw.integers(0, 9, 2, 3)

    def text(seed):
        return impl.decoding.sample(model, prompt, 20, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(text(1), text(1))
    assert not torch.equal(text(1), text(2))
    assert torch.equal(torch.get_rng_state(), state), "with a generator the global one is left alone"
    torch.manual_seed(4)
    first = impl.decoding.sample(model, prompt, 20)
    torch.manual_seed(4)
    assert torch.equal(impl.decoding.sample(model, prompt, 20), first)
    for mode in (True, False):
        model.train(mode)
        model.modes.clear()
        text(0)
        assert not any(model.modes), "dropout must be off"
        assert model.training is mode
        assert not any(model.grad)
    model.train()
    model.table.eval()  # a frozen part stays frozen, whatever the rest does
    text(0)
    assert (model.training, model.table.training) == (True, False)
    model.lengths.clear()
    text(0)
    assert model.lengths == [3, 4] + [5] * 18, "one pass of the model a token, over no more than its window"
    # Past the window the model sees the last block_size tokens: a model that repeats its first input then goes round.
    found = impl.decoding.sample(Memory(3), torch.tensor([[1, 2, 3, 4]]), 6, temperature=0.0)
    assert found.tolist() == [[1, 2, 3, 4, 2, 3, 4, 2, 3, 4]]


@SAMPLE
@proves("inference/0.7/gpt#robustness")
@checks("edges")
def test_impossible_texts_are_refused(impl, draw):
    model = Table(draw.normal(9, 9))
    with pytest.raises(ValueError, match="prompt"):
        impl.decoding.sample(model, torch.zeros(1, 0, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="prompt"):
        impl.decoding.sample(model, torch.zeros(4, dtype=torch.long), 3)
    prompt = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match=naming("max_new_tokens", -1)):
        impl.decoding.sample(model, prompt, -1)
    for name, wrong in (("temperature", -1.0), ("top_k", 0), ("top_p", 1.5)):
        with pytest.raises(ValueError, match=naming(name, wrong)):
            impl.decoding.sample(model, prompt, 3, **{name: wrong})
    assert model.training  # a refused call leaves the mode too
