"""Day 4: greedy decoding of a ragged batch over a cache, and its throughput as the batch grows."""

from __future__ import annotations

import time

import pytest
import torch

from touchstone import checks, proves, subject

GENERATE = "decoding.generate"
SAMPLE = "decoding.sample"
BENCHMARK = "experiments.benchmark_decode"
GPT = ("models.GPT", "models.GPTConfig")

VOCABULARY, CONTEXT = 17, 40
BATCHES = [1, 2, 4, 8, 16]


#: How far each kind of weight is moved from its start: strong attention and positions, weak biases.  With strong biases
#: greedy text is one letter repeated, which shows nothing.
SPREAD = {"norm": 0.05, "bias": 0.1, "token_embedding": 0.3, "position_embedding": 1.0, "proj": 1.0, "": 0.5}


def model_of(impl, draw, dtype="float64", bias=True, tied=True, n_layer=2, n_head=2, n_embd=16):
    """A GPT whose next token depends on all that was said and on where it was said; without biases, of the other form
    of GELU as well."""
    form = "tanh" if bias else "none"
    config = impl.models.GPTConfig(VOCABULARY, CONTEXT, n_layer, n_head, n_embd, bias=bias, tied=tied, approximate=form)
    model = impl.models.GPT(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            scale = next(scale for part, scale in SPREAD.items() if part in name)
            parameter.add_(draw.normal(*parameter.shape, scale=scale).to(parameter.dtype))
    return model


def prompts_of(draw, lengths):
    return [draw.integers(0, VOCABULARY, length) for length in lengths]


def alone(impl, model, prompt, new):
    """The whole context computed again for every token."""
    return impl.decoding.sample(model, prompt[None], new, temperature=0)[0, len(prompt) :]


@proves("sprints/day004/decode-batch-bench#parity")
@checks("oracle", "invariance", "arguments", "branches", "edges", "state")
@subject(GENERATE, SAMPLE, *GPT)
@pytest.mark.parametrize("bias, tied", [(True, True), (False, False)])
@pytest.mark.parametrize("lengths", [(5,), (3, 3), (1, 7, 4), (9, 2, 5), (12, 1, 1, 2, 30), (2, 9, 9, 4, 6, 1, 8, 3)])
@pytest.mark.process
def test_a_ragged_batch_equals_each_prompt_alone(impl, draw, lengths, bias, tied):
    model, prompts = model_of(impl, draw, bias=bias, tied=tied), prompts_of(draw, lengths)
    new = CONTEXT - max(lengths)  # to the last position
    found = impl.decoding.generate(model, prompts, new)
    assert (found.dtype, found.shape) == (torch.int64, (len(lengths), new))
    for row, prompt in enumerate(prompts):
        assert torch.equal(found[row], alone(impl, model, prompt, new)), f"row {row} is not what it is alone"
        assert torch.equal(impl.decoding.generate(model, [prompt], new)[0], found[row])
    assert len(found.unique()) > 2, "a text of one letter shows nothing"
    order = draw.permutation(len(lengths)).tolist()
    assert torch.equal(impl.decoding.generate(model, [prompts[row] for row in order], new), found[order])
    assert torch.equal(impl.decoding.generate(model, prompts, min(3, new)), found[:, :3])
    assert impl.decoding.generate(model, prompts, 0).shape == (len(lengths), 0)


@pytest.mark.process  # imports transformers
@proves("sprints/day004/decode-batch-bench#parity")
@checks("oracle")
@subject(GENERATE, *GPT)
def test_equals_the_generation_of_transformers(impl, peers, needs, draw):
    """The library's own loop, with its cache: prompts padded on the left, and a mask that says so."""
    needs.peer("transformers")
    model, prompts = model_of(impl, draw), prompts_of(draw, (1, 7, 4))
    shaped = peers.transformers.models.GPT(peers.transformers.models.GPTConfig(VOCABULARY, CONTEXT, 2, 2, 16)).double()
    shaped.load_state_dict(model.state_dict())
    library = shaped._library.module.double().eval()
    library.load_state_dict(shaped.library())
    padded, real = torch.zeros(3, 7, dtype=torch.int64), torch.zeros(3, 7, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        padded[row, 7 - len(prompt) :], real[row, 7 - len(prompt) :] = prompt, 1
    theirs = library.generate(
        padded,
        attention_mask=real,
        max_new_tokens=20,
        do_sample=False,
        use_cache=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(impl.decoding.generate(model, prompts, 20), theirs[:, 7:])


@checks("purity", "dtype")
@subject(GENERATE, *GPT)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_generation_leaves_everything_as_it_was(impl, draw, dtype):
    model, prompts = model_of(impl, draw, dtype), prompts_of(draw, (2, 5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = [prompt.clone() for prompt in prompts]
    state = torch.get_rng_state()
    first = impl.decoding.generate(model.train(), prompts, 6)
    assert model.training
    assert torch.equal(first, impl.decoding.generate(model.eval(), prompts, 6))
    assert torch.equal(first, impl.decoding.generate(model, [prompt.int() for prompt in prompts], 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, prompts, kept))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@checks("branches", "magnitude")
@subject(GENERATE, *GPT)
def test_the_lowest_of_equal_logits(impl, draw):
    model = model_of(impl, draw, tied=False)
    with torch.no_grad():
        model.get_parameter("head.weight").zero_()
    assert (impl.decoding.generate(model, prompts_of(draw, (3, 1)), 4) == 0).all()


@checks("resources")
@subject(GENERATE, *GPT)
def test_each_token_is_read_once(impl, draw):
    """Operations as torch counts them: not one more row passes the feed-forward than there are tokens and padding."""
    from torch.utils.flop_counter import FlopCounterMode

    model = model_of(impl, draw)
    counts = []
    for new in (11, 21):
        with FlopCounterMode(display=False) as counter:
            impl.decoding.generate(model, prompts_of(draw, (6, 6)), new)
        counts.append(counter.get_total_flops())
    d, ten = 16, 2 * 10
    row = 2 * (12 * d * d * 2 + VOCABULARY * d)  # both layers and the head, a multiply-add counting two
    scores = sum(2 * 2 * (4 * (6 + t) * d) for t in range(11, 21))
    assert counts[1] - counts[0] <= 1.05 * (ten * row + scores)


@checks("edges")
@subject(GENERATE, *GPT)
def test_what_generation_refuses(impl, draw):
    model, (good,) = model_of(impl, draw), prompts_of(draw, (5,))
    for prompts, new, named in (
        ([], 3, "prompts"),
        ([good, good[:0]], 3, r"prompts\[1\]"),
        ([good[None]], 3, "1, 5"),
        ([good], -1, "-1"),
        ([good, good], CONTEXT - 4, r"(?s)(?=.*\b41\b)(?=.*\b40\b)|(?=.*\b36\b)(?=.*\b40\b)"),
        ([good, torch.tensor([3, VOCABULARY])], 3, r"(?s)(?=.*\b17\b)"),
        ([torch.tensor([3, -2])], 3, "-2"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.decoding.generate(model, prompts, new)
    with pytest.raises(TypeError, match="float"):
        impl.decoding.generate(model, [good.double()], 3)


# -- throughput --------------------------------------------------------------------------------------------------------


class Ticks:
    """A clock that jumps by 1, 2, 3 … seconds: every difference tells which two readings it is of."""

    def __init__(self):
        self.readings = []

    def __call__(self):
        self.readings.append((self.readings[-1] if self.readings else 0.0) + len(self.readings) + 1.0)
        return self.readings[-1]


@proves("sprints/day004/decode-batch-bench#artifact", "sprints/day004/decode-batch-bench#parity")
@checks("oracle", "arguments", "branches", "state", "invariance")
@subject(BENCHMARK, GENERATE, SAMPLE, *GPT)
@pytest.mark.process
def test_rows_say_what_was_timed(impl, draw):
    """On a clock of our own: the columns are the clock's differences, and only generated tokens are counted."""
    model, prompts = model_of(impl, draw), prompts_of(draw, [1 + (5 * i) % 9 for i in range(16)])
    ticks, new = Ticks(), 6
    rows = impl.experiments.benchmark_decode(model, prompts, new_tokens=new, clock=ticks)
    assert [row["batch"] for row in rows] == BATCHES
    readings = set(ticks.readings)
    for row in rows:
        batch, steps, prefill = row["batch"], row["step_seconds"], row["prefill_seconds"]
        assert row["prompt_tokens"] == sum(len(prompt) for prompt in prompts[:batch])
        assert row["generated_tokens"] == batch * new
        assert len(steps) == new
        # Steps follow each other and the prefill: their differences on this clock count up by one.
        assert steps == [prefill + 1 + i for i in range(new)]
        assert row["decode_seconds"] == sum(steps)
        assert row["tokens_per_second"] == pytest.approx(batch * new / sum(steps), rel=1e-12)
        assert row["seconds_per_token"] == pytest.approx(sum(steps) / new, rel=1e-12)
        assert row["seconds_per_token"] == pytest.approx(batch / row["tokens_per_second"], rel=1e-12)
        for tokens, prompt in zip(row["tokens"], prompts[:batch], strict=True):
            assert tokens == alone(impl, model, prompt, 1 + new).tolist(), "what was timed is not what it should give"
    assert len(readings) >= 5 * (new + 2)
    (only,) = impl.experiments.benchmark_decode(model, prompts, batch_sizes=[3], new_tokens=2, clock=Ticks())
    assert (only["batch"], only["generated_tokens"], len(only["step_seconds"])) == (3, 6, 2)
    assert torch.equal(impl.decoding.generate(model, prompts[:3], 3), torch.tensor(only["tokens"]))


@proves("sprints/day004/decode-batch-bench#artifact", "sprints/day004/decode-batch-bench#budget")
@checks("resources")
@subject(BENCHMARK, *GPT)
@pytest.mark.process
def test_eight_rows_are_twice_as_fast_as_one(impl, draw, record):
    """In processor time, which a neighbour does not lengthen, of one thread; measured 4.9 times as fast."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = model_of(impl, draw, "float32", n_layer=4, n_head=4, n_embd=128)
    prompts = prompts_of(draw, [8] * 16)
    rows = impl.experiments.benchmark_decode(model, prompts, new_tokens=24, clock=time.process_time)
    torch.set_num_threads(threads)
    record.series(
        "decode throughput", BATCHES, [row["tokens_per_second"] for row in rows], "batch", "tokens a CPU second"
    )
    for row in rows:
        assert min(row["step_seconds"]) > 0 < row["prefill_seconds"]
        assert row["seconds_per_token"] == pytest.approx(row["batch"] / row["tokens_per_second"], rel=0.01)
        assert sum(row["step_seconds"]) == pytest.approx(row["decode_seconds"], rel=1e-6)
        record(f"prefill, batch {row['batch']}", row["prefill_seconds"], "s")
        record(f"latency of a token, batch {row['batch']}", row["seconds_per_token"], "s")
    by_batch = {row["batch"]: row["tokens_per_second"] for row in rows}
    record("throughput at batch 8 over batch 1", by_batch[8] / by_batch[1], "", 2.0)
    assert by_batch[8] >= 2 * by_batch[1]


@checks("edges")
@subject(BENCHMARK, *GPT)
def test_what_the_benchmark_refuses(impl, draw):
    model, prompts = model_of(impl, draw), prompts_of(draw, (4, 4))
    for options, named in (
        ({"batch_sizes": [1, 3]}, r"(?s)(?=.*\b3\b)(?=.*\b2\b)"),
        ({"batch_sizes": [0]}, r"\b0\b"),
        ({"batch_sizes": [2], "new_tokens": 0}, "new_tokens.*0"),
        ({"batch_sizes": [2], "new_tokens": 36}, str(CONTEXT)),
    ):
        with pytest.raises(ValueError, match=named):
            impl.experiments.benchmark_decode(model, prompts, **options)
