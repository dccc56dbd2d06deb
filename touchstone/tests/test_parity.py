from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from touchstone.judgement.calls import copy_tensor
from touchstone.judgement.parity import snake_case
from touchstone.tests.parity_subjects import (
    MUTANTS,
    LayerNorm,
    TwoLayers,
    attention,
    layer_norm,
    normal,
    parity_of,
    qkv,
    rotary,
    rotary_in_half_angles,
    scaled_by_d,
)

DTYPES = ["float64", "float32", "bfloat16", "float16"]


def test_names():
    names = ["MultiHeadAttention", "GELU", "KVCache", "LayerNorm", "GPT", "softmax", "Conv2d"]
    wanted = ["multi_head_attention", "gelu", "kv_cache", "layer_norm", "gpt", "softmax", "conv2d"]
    assert [snake_case(name) for name in names] == wanted


@pytest.mark.parametrize("dtype", DTYPES)
def test_accepts_what_is_right(dtype):
    recorded = []
    parity = parity_of(record=lambda *row: recorded.append(row))(
        attention=attention,
        rotary=rotary,
        softmax=torch.softmax,
        layer_norm=layer_norm,
        cross_entropy=torch.nn.functional.cross_entropy,
        gelu=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    )
    for options in ({}, {"is_causal": True}, {"scale": 0.3}):
        parity("r.attention", *qkv(dtype), gradients=True, within=1e-12, **options)
    parity("r.rotary", normal(3, 6, 8, dtype=dtype), torch.tensor([0, 1, 7, 500, 4097, 31]), gradients=True)
    parity("r.rotary", normal(4, 8, dtype=dtype), torch.arange(4), base=500, gradients=True)
    parity("r.softmax", normal(3, 40, dtype=dtype, scale=2), -1, gradients=True, upcast=True)
    weight, bias = normal(16, seed=1, dtype=dtype), normal(16, seed=2, dtype=dtype)
    parity("r.layer_norm", normal(4, 16, dtype=dtype), weight, bias, gradients=True)
    parity("r.layer_norm", normal(4, 16, dtype=dtype), gradients=True, eps=0.1)
    parity("r.cross_entropy", normal(8, 11, dtype=dtype), torch.arange(8), gradients=True)
    parity("r.gelu", normal(5, 9, dtype=dtype), gradients=True)
    assert len(recorded) == 20
    assert all(0 <= value <= limit for _, value, _, limit in recorded)
    assert {name.rsplit(" ", 2)[-1] for name, *_ in recorded} == {"error/allowed", "scale"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_modules_with_given_weights(dtype):
    weights = {"weight": normal(6, dtype=dtype), "bias": normal(6, seed=1, dtype=dtype)}
    parity = parity_of()(LayerNorm=LayerNorm, TwoLayers=TwoLayers)
    init = {"width": 6, "eps": 0.1}
    parity("r.LayerNorm", normal(4, 6, seed=2, dtype=dtype), init=init, weights=weights, gradients=True)
    if dtype in ("bfloat16", "float16"):
        return  # argsort of rounded values is not that of the exact ones
    shapes = {"first.weight": (6, 5), "first.bias": (6,), "second.weight": (2, 6)}
    weights = {name: normal(*shape, seed=len(name), dtype=dtype) for name, shape in shapes.items()}
    x = normal(4, 5, seed=2, dtype=dtype)
    parity("r.TwoLayers", x, init={"width": 5, "slope": 0.3}, weights=weights, gradients=True)
    parity("r.TwoLayers", x, init={"width": 5, "slope": 0.3}, weights=weights, call=called_twice, gradients=True)
    with pytest.raises(TypeError, match="depth"):  # the oracle has to know what the constructor was given
        parity("r.TwoLayers", x, init={"width": 5, "depth": 2}, weights=weights)


def called_twice(subject, x):
    subject(x + 1)
    return subject(x)


def failure(parity, *arguments, **options):
    with pytest.raises(AssertionError) as caught:
        parity(*arguments, **options)
    return str(caught.value)


def test_a_failure_explains_itself(tmp_path):
    parity = parity_of(
        seed=7,
        law="sprints/day001/attention#parity: equals the definition",
        failures_dir=tmp_path,
        mutants=lambda name: MUTANTS,
    )(attention=lambda *args, **kwargs: scaled_by_d(*args, **kwargs))
    said = failure(parity, "r.attention", *qkv("bfloat16"), is_causal=True, within=1e-12)
    for part in (
        "result: error",
        "r.attention (layer mine)",
        "sprints/day001/attention#parity: equals the definition",
        "that bfloat16 allows; worst at [",
        "bfloat16 (2, 5, 8), bfloat16 (2, 7, 8), bfloat16 (2, 7, 3), is_causal=True",
        "seed       7",
        "on 3 inputs it behaves like `scaled_by_d`: divides by d, not by √d",
        "from touchstone import load, replay_inputs",
    ):
        assert part in said
    assert "never_causal" not in said


@pytest.mark.parametrize(("name", "sentence", "subject"), MUTANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_mutant_is_refused_and_named(name, sentence, subject, dtype):
    def other_order(query, key, value, **options):
        return subject(query * 1.0, key, value + 0, **options).contiguous()

    parity = parity_of(mutants=lambda _: MUTANTS)(attention=other_order)
    said = failure(parity, "r.attention", *qkv(dtype), is_causal=True, gradients=True)
    assert f"`{name}`: {sentence}" in said
    assert said.count("`") == 2


def test_diagnosis_is_silent_or_says_why():
    quiet = parity_of(mutants=lambda _: MUTANTS)(attention=lambda q, k, v: attention(q, k, v) * 1.5)
    assert "diagnosis" not in failure(quiet, "r.attention", *qkv())
    tied = [*MUTANTS, ("twin", "is the same mistake", scaled_by_d)]
    assert "√d; or like `twin`" in failure(
        parity_of(mutants=lambda _: tied)(attention=scaled_by_d), "r.attention", *qkv(), gradients=True
    )

    def broken(name):
        raise RuntimeError("the mutants do not load")

    said = failure(parity_of(mutants=broken)(attention=scaled_by_d), "r.attention", *qkv())
    assert "(no diagnosis: RuntimeError: the mutants do not load)" in said

    def raises(*args, **kwargs):
        raise RuntimeError("a mutant that breaks")

    known = [("breaks", "raises", raises), *MUTANTS]
    said = failure(parity_of(mutants=lambda _: known)(attention=scaled_by_d), "r.attention", *qkv())
    assert "`scaled_by_d`" in said
    assert "breaks" not in said


def test_mistakes_of_half_precision_are_diagnosed_there():
    mutants = [("half_angles", "makes the angles in half precision", rotary_in_half_angles)]
    parity = parity_of(mutants=lambda _: mutants)(rotary=rotary_in_half_angles)
    parity("r.rotary", normal(4, 8, dtype="float32"), torch.arange(4) * 1001)
    said = failure(parity, "r.rotary", normal(4, 8, dtype="bfloat16"), torch.arange(4) * 1001)
    assert "`half_angles`" in said


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_held_too(dtype):
    x, weight, bias = normal(4, 6, dtype=dtype), normal(6, seed=1, dtype=dtype), normal(6, seed=2, dtype=dtype)
    said = failure(
        parity_of()(layer_norm=lambda x, w, b: layer_norm(x, w, b.detach())),
        "r.layer_norm",
        x,
        weight,
        bias,
        gradients=True,
    )
    assert "gradient of bias: there is none: autograd has no path to it" in said
    said = failure(
        parity_of()(layer_norm=lambda x, w, b: layer_norm(x, w.detach() + 0 * w, b)),
        "r.layer_norm",
        *(x, weight, bias),
        gradients=True,
    )
    assert "gradient of weight: error" in said
    assert "gradient of x" not in said
    no_graph = parity_of()(softmax=lambda x: torch.softmax(x, -1).detach())
    assert "gradient of x: there is none" in failure(no_graph, "r.softmax", x, gradients=True)
    no_graph("r.softmax", x)


def test_the_road_taken_when_gradients_are_asked_for_is_held_too():
    def two_roads(x):
        return torch.softmax(x, -1) * (1.1 if x.requires_grad else 1.0)

    parity = parity_of()(softmax=two_roads)
    parity("r.softmax", normal(3, 4))
    assert "result when gradients are asked for: error" in failure(parity, "r.softmax", normal(3, 4), gradients=True)


def test_inputs_are_the_callers_and_arrive_as_they_were():
    seen = {}

    def writes(x, dim=-1):
        seen["strides"], seen["requires"] = x.stride(), x.requires_grad
        result = torch.softmax(x, dim)
        x[..., 0] = 0.0
        return result

    x = normal(6, 10)[::2, 1::3]
    kept = x.clone()
    said = failure(parity_of()(softmax=writes), "r.softmax", x)
    assert "input [0] was changed by the call" in said
    assert torch.equal(x, kept)
    assert seen == {"strides": (20, 3), "requires": False}
    for given in (x, normal(3, 1).expand(3, 4), normal(4, 3).T, normal(2, 0), normal(3)[1:]):
        twin = copy_tensor(given)
        assert twin.stride() == given.stride()
        assert torch.equal(twin, given)
        assert not given.numel() or twin.data_ptr() != given.data_ptr()


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (lambda x: torch.softmax(x, -1).double(), "dtype float64, not float32"),
        (lambda x: torch.softmax(x, -1).T, "shape (4, 3), not (3, 4)"),
        (lambda x: (torch.softmax(x, -1),), "result is missing: result[0] came back"),
        (lambda x: None, "a NoneType, not a floating tensor"),
        (lambda x: torch.full_like(x, torch.nan), "not finite as promised"),
        (lambda x: torch.zeros_like(x), "error"),
        (lambda x: torch.softmax(x.bfloat16(), -1).float(), "that float32 allows"),
        (lambda x: torch.softmax(x, -1) * 1.0001, "that float32 allows"),
    ],
)
def test_refuses_what_is_not_promised(subject, reason):
    assert reason in failure(parity_of()(softmax=subject), "r.softmax", normal(3, 4, dtype="float32"))


def test_a_declared_precision_is_the_measure():
    def half_inside(x, dim=-1):
        return torch.softmax(x.bfloat16(), dim).float()

    x = normal(3, 40, dtype="float32")
    parity_of({"precision": "bfloat16"})(softmax=half_inside)("r.softmax", x, gradients=True)
    failure(parity_of({"precision": "tf32"})(softmax=half_inside), "r.softmax", x)
    failure(parity_of()(softmax=half_inside), "r.softmax", x)
    failure(parity_of({"precision": "bfloat16"})(softmax=lambda x: half_inside(x) * 1.05), "r.softmax", x)


def test_exact_results():
    def ones(queries, device=None):
        return torch.ones(queries, queries, dtype=torch.bool).tril()

    parity = parity_of()(mask=ones)
    parity("r.mask", 4)
    parity("r.mask", 4, device=None)
    one_more = parity_of()(mask=lambda n: ones(n) | (torch.arange(n * n).view(n, n) == 1))
    assert "1 of 16 values differ; worst at [0, 1]: got 1, want 0" in failure(one_more, "r.mask", 4)
    assert "dtype float32, not bool" in failure(parity_of()(mask=lambda n: ones(n).float()), "r.mask", 4)
    assert "dtype int64, not bool" in failure(parity_of()(mask=lambda n: ones(n).long()), "r.mask", 4)


def test_parameter_names_and_shapes_are_the_contracts():
    weights = {"weight": normal(6), "beta": normal(6)}
    parity = parity_of()(LayerNorm=LayerNorm)
    with pytest.raises(TypeError, match="beta"):
        parity("r.LayerNorm", normal(4, 6), init={"width": 6}, weights=weights)
    said = failure(parity, "r.LayerNorm", normal(4, 6), init={"width": 6}, weights={"weight": normal(6)})
    assert "only here: ['bias']" in said
    said = failure(
        parity, "r.LayerNorm", normal(4, 6), init={"width": 7}, weights={"weight": normal(6), "bias": normal(6)}
    )
    assert "parameter weight is (7,), the contract gives (6,)" in said


def test_without_an_oracle_nothing_is_held():
    parity = parity_of()(other=torch.exp, mask=torch.exp)
    with pytest.raises(LookupError, match=r"no oracle for r.other: looked for r.other"):
        parity("r.other", normal(3))
    with pytest.raises(LookupError, match=r"the oracle has no r\.mask_backward"):
        parity("r.mask", 3, gradients=True)
    parity_of()(other=torch.softmax)("r.other", normal(3), -1, against="r.softmax")


def test_what_the_subject_raises_is_not_caught():
    def todo(x):
        raise NotImplementedError("softmax")

    with pytest.raises(NotImplementedError):
        parity_of()(softmax=todo)("r.softmax", normal(3))


def test_infinities_pass_only_where_allowed():
    parity = parity_of()(log_softmax=lambda x: torch.log_softmax(x, -1))
    x = torch.tensor([[1.0, -torch.inf, 0.5], [0.0, 1.0, 2.0]])
    parity("r.log_softmax", x, allow_inf=True)
    assert "allow_inf was not given" in failure(parity, "r.log_softmax", x)


def test_the_snippet_repeats_the_failure_in_a_fresh_interpreter(tmp_path):
    parity = parity_of(failures_dir=tmp_path)(attention=scaled_by_d)
    said = failure(parity, "r.attention", *qkv("bfloat16"), is_causal=True, gradients=True)
    code = said.split("paste into Python:\n")[1].replace("load('r.attention', 'mine')", "scaled_by_d")
    path = tmp_path / "subject.py"
    path.write_text(
        "def scaled_by_d(query, key, value, *, is_causal=False, scale=None):\n"
        "    scores = query @ key.mT / query.shape[-1]\n"
        "    allowed = scores.new_ones(scores.shape[-2:]).bool().tril(scores.shape[-1] - scores.shape[-2])\n"
        "    return scores.masked_fill(~allowed, float('-inf')).softmax(-1) @ value\n"
    )
    lines = "from subject import scaled_by_d\n" + "\n".join(line.strip() for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    first = said.split("found      result: error ")[1].split()[0]
    assert f"result: error {float(first):.3g}"[:18] in done.stdout
    assert "gradient of key: error" in done.stdout
    assert "allowed" in done.stdout
