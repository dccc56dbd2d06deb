"""Day 8: fused bias-GELU, residual LayerNorm and MLP: the numbers of the unfused ones, with less kept."""

from __future__ import annotations

import math

import pytest
import torch

from spec.differences import slope_errors
from spec.layers import needs_tensors
from spec.sprint1.attention_cases import relative_error
from spec.sprint1.fused_cases import FUSED, GELU, MLP, NORM, composed, operands, outputs, unfused
from spec.sprint1.tensor_meter import metered, saved_bytes
from touchstone import checks, proves, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]

each_operation = pytest.mark.parametrize("name", [pytest.param(name, marks=subject(name)) for name in FUSED])


def options_of(name, form):
    return {} if name == NORM else {"approximate": form}


def one_number(dtype, width=1):
    """The smallest shape, in float64: one number alone may be all rounding in less, and shows nothing."""
    return [((1, 1), width)] if dtype == "float64" else []


# -- parity ------------------------------------------------------------------------------------------------------------


@proves("sprints/day008/fused-ops#parity")
@checks("oracle", "arguments", "gradient", "dtype", "purity", "edges", "branches")
@subject(GELU)
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_bias_gelu_equals_the_oracle(parity, draw, form):
    for dtype in DTYPES:
        for batch, width in (((2, 5), 6), ((), 9), ((700,), 3), *one_number(dtype)):
            inputs = operands(draw, GELU, batch, width, dtype)
            parity(GELU, *inputs, form, gradients=True, upcast=True, within={"float64": 1e-12})
    x, bias = operands(draw, GELU, (4,), 6)
    parity(GELU, x.T.contiguous().T, bias, form, gradients=True, within=1e-12)
    parity(GELU, 30 * x, -20 * bias, form, gradients=True, within=1e-12)


@proves("sprints/day008/fused-ops#parity")
@checks("oracle", "arguments", "gradient", "dtype", "purity", "edges", "magnitude", "branches")
@subject(NORM)
def test_add_layer_norm_equals_the_oracle(parity, draw):
    for dtype in DTYPES:
        # Wide rows: a narrow one may be nearly constant, and then half precision shows nothing.
        for batch, width in (((2, 5), 24), ((), 33), ((60,), 16), *one_number(dtype, 2)):
            inputs = operands(draw, NORM, batch, width, dtype)
            parity(NORM, *inputs, gradients=True, within={"float64": 1e-12})
            parity(NORM, *inputs, 0.1, gradients=True, within={"float64": 1e-12})
    x, residual, *parts = operands(draw, NORM, (4,), 6)
    strided = x.T.contiguous().T, residual.repeat(1, 2)[:, :6]
    parity(NORM, *strided, *parts, gradients=True, within=1e-12)
    for scale, eps in ((1e-3, 1e-5), (1e-3, 0.1), (1e4, 1e-5)):
        parity(NORM, scale * x, scale * residual, *parts, eps, gradients=True, within=1e-12)


@proves("sprints/day008/fused-ops#parity")
@checks("oracle", "arguments", "gradient", "dtype", "purity", "edges", "branches")
@subject(MLP)
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_mlp_equals_the_oracle(parity, draw, form):
    """Also of more rows than a panel may have, and not a multiple of one."""
    for dtype in DTYPES[:3]:
        for batch, width in (((2, 5), 6), ((), 9), *one_number(dtype)):
            inputs = operands(draw, MLP, batch, width, dtype)
            parity(MLP, *inputs, form, gradients=True, within={"float64": 1e-12})
    for rows in (512, 1300):
        parity(MLP, *operands(draw, MLP, (rows,), 3), form, gradients=True, within=1e-12)
    parity(MLP, *operands(draw, MLP, (700,), 3, "bfloat16"), form, gradients=True)
    parity(MLP, *operands(draw, MLP, (3,), 4, "float16"), form, gradients=True)
    x, *parts = operands(draw, MLP, (4,), 6)
    strided = [torch.stack([part, part.roll(1)], dim=-1)[..., 0] for part in (x, *parts)]
    parity(MLP, *strided, form, gradients=True, within=1e-12)


@checks("dtype", "gradient")
@subject(MLP)
def test_gradients_of_weights_are_summed_in_float32(impl):
    """Equal rows: each sum is 16,384 times a number, and in bfloat16 a running sum of many parts drifts off it."""
    x = torch.full((16384, 2), 1.0, dtype=torch.bfloat16)
    parts = [torch.full(shape, 0.3, dtype=torch.bfloat16).requires_grad_() for shape in ((8, 2), (8,), (3, 8), (3,))]
    grad = torch.full((16384, 3), 0.7, dtype=torch.bfloat16)
    sums = torch.autograd.grad(impl.kernels.fused_mlp(x, *parts), parts, grad)
    one = torch.autograd.grad(impl.kernels.fused_mlp(x[:1], *parts), parts, grad[:1])
    for whole, single in zip(sums, one, strict=True):
        assert (whole.double() / (16384 * single.double()) - 1).abs().max() <= 2.0**-7


@proves("sprints/day008/fused-ops#parity")
@checks("oracle", "gradient")
@each_operation
def test_forward_and_backward_equal_the_unfused_composition(impl, draw, name):
    for form in ("none", "tanh"):
        inputs = [x.requires_grad_() for x in operands(draw, name, (3, 7), 10)]
        options = options_of(name, form)
        got, want = outputs(impl[name](*inputs, **options)), outputs(unfused(name)(*inputs, **options))
        weights = [draw.normal(*part.shape) for part in want]
        ours, theirs = (torch.autograd.grad(found, inputs, weights) for found in (got, want))
        for a, b in zip((*got, *ours), (*want, *theirs), strict=True):
            assert relative_error(a, b) <= 1e-12


def error(found, truth):
    """Root mean square over all of the results."""
    return math.sqrt(sum(float((a.double() - b).square().sum()) for a, b in zip(found, truth, strict=True)))


@proves("sprints/day008/fused-ops#parity")
@checks("dtype", "magnitude")
@each_operation
def test_float32_errs_no_more_than_unfused(impl, draw, record, name):
    """1.5 times the smaller of what elementary operations and torch's own layers err by; forward and backward apart."""
    inputs = operands(draw, name, (600,), 48, "float32")
    weights = [draw.normal(*part.shape, dtype="float32") for part in outputs(unfused(name)(*inputs))]

    def both(operation, wide):
        leaves = [(x.double() if wide else x.clone()).requires_grad_() for x in inputs]
        found = outputs(operation(*leaves))
        arriving = [weight.double() if wide else weight for weight in weights]
        return [x.detach() for x in found], list(torch.autograd.grad(found, leaves, arriving))

    truth = both(unfused(name), True)
    others = [both(other(name), False) for other in (unfused, composed)]
    for place, what in enumerate(("forward", "backward")):
        allowed = 1.5 * max(error(other[place], truth[place]) for other in others)
        found = error(both(impl[name], False)[place], truth[place])
        record(f"{name} {what} error over unfused", 1.5 * found / allowed, "", 1.5)
        assert found <= allowed


@proves("sprints/day008/fused-ops#parity")
@checks("magnitude", "dtype")
@subject(NORM)
def test_rows_far_from_zero_keep_their_digits(impl, draw, record):
    """Mean 1e3, variance 1: E[x²] − E[x]² in float32 is a difference of numbers near 1e6 and off by per cents."""
    x = draw.normal(64, 512, dtype="float32") + 1e3
    zeros, ones = torch.zeros_like(x), torch.ones(512)
    y, _ = impl.kernels.fused_add_layer_norm(x, zeros, ones, zeros[0], 1e-5)
    want = torch.nn.functional.layer_norm(x.double(), (512,), eps=1e-5)
    found = float((y.double() - want).abs().max())
    record("error of rows around 1e3", found, "", 1e-3)
    assert found <= 1e-3
    naive = (x - x.mean(-1, keepdim=True)) * (
        x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square()
    ).rsqrt()
    assert not float((naive.double() - want).abs().max()) <= 1e-3  # the bound tells them apart


# -- gradient ----------------------------------------------------------------------------------------------------------


@proves("sprints/day008/fused-ops#gradient")
@checks("gradient")
@each_operation
def test_gradients_are_slopes(impl, draw, name):
    for form in ("none", "tanh"):
        inputs = operands(draw, name, (2, 3), 5)
        leaves = {str(place): x.requires_grad_() for place, x in enumerate(inputs)}

        def run(leaves=leaves, form=form):
            found = outputs(impl[name](*leaves.values(), **options_of(name, form)))
            return torch.cat([part.flatten() for part in found])

        errors = slope_errors(run, leaves, draw)
        assert max(errors.values()) <= 1e-7, errors


@checks("gradient")
@each_operation
def test_gradients_of_one_input_alone(impl, draw, name):
    inputs = operands(draw, name)
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = outputs(impl[name](*leaves))
    weights = [draw.normal(*part.shape) for part in found]
    want = torch.autograd.grad(found, leaves, weights)
    for place in range(len(inputs)):
        some = [x.clone().requires_grad_(i == place) for i, x in enumerate(inputs)]
        found = outputs(impl[name](*some))
        tracked = [(part, weight) for part, weight in zip(found, weights, strict=True) if part.requires_grad]
        parts, arriving = zip(*tracked, strict=True)
        (got,) = torch.autograd.grad(parts, some[place], arriving)
        assert relative_error(got, want[place]) <= 1e-12
    if name == NORM:  # through each of the two results alone
        for kept in (0, 1):
            leaves = [x.clone().requires_grad_() for x in inputs]
            others = [x.clone().requires_grad_() for x in inputs]
            part, plain = impl[name](*leaves)[kept], unfused(name)(*others)[kept]
            got = torch.autograd.grad(part, leaves, weights[kept], allow_unused=True)
            want = torch.autograd.grad(plain, others, weights[kept], allow_unused=True)
            for a, b in zip(got, want, strict=True):
                assert relative_error(a, b) <= 1e-12 if b is not None else a is None or (a == 0).all()


@proves("sprints/day008/fused-ops#gradient")
@checks("gradient")
@each_operation
def test_a_second_derivative_is_right_or_raises(impl, draw, name):
    """Along a random direction of all inputs; zeros, or half of the truth, would be silently wrong."""
    inputs = [x.requires_grad_() for x in operands(draw, name)]
    found = outputs(unfused(name)(*inputs))
    weights, directions = [draw.normal(*part.shape) for part in found], [draw.normal(*x.shape) for x in inputs]

    def second(operation):
        first = torch.autograd.grad(outputs(operation(*inputs)), inputs, weights, create_graph=True)
        # The last term only makes sure that something can be derived: a first derivative that is cut off gives zeros.
        along = sum((a * b).sum() for a, b in zip(first, directions, strict=True)) + sum(0.0 * x.sum() for x in inputs)
        return torch.autograd.grad(along, inputs, allow_unused=True)

    want = second(unfused(name))
    assert want[0].abs().max() > 1e-3
    needs_tensors(impl, name, "its backward is not torch's to derive")
    impl[name](*inputs)  # a stub is a todo: NotImplementedError is a RuntimeError
    try:
        got = second(impl[name])
    except RuntimeError:
        return
    for a, b in zip(got, want, strict=True):
        if b is not None and b.abs().max() > 1e-9:
            assert a is not None and relative_error(a, b) <= 1e-9


# -- resources ---------------------------------------------------------------------------------------------------------


@proves("sprints/day008/fused-ops#budget")
@checks("resources")
@each_operation
def test_less_is_kept_for_the_backward(impl, draw, record, name):
    """Saved tensors by hooks, whatever they are; parameters are kept anyway and not counted."""
    needs_tensors(impl, name, "its memory is not torch's")
    rows, width = 640, 32
    _, *others = inputs = [part.requires_grad_() for part in operands(draw, name, (rows,), width, "float32")]
    parameters = others[1:] if name == NORM else others
    ours, shapes, _ = saved_bytes(lambda: impl[name](*inputs), parameters)
    theirs, _, _ = saved_bytes(lambda: unfused(name)(*inputs), parameters)
    record(f"{name} bytes kept over unfused", ours / theirs, "", 1.0)
    assert ours < theirs
    large = [shape for shape in shapes if math.prod(shape) >= rows * width]
    small = sum(math.prod(shape) for shape in shapes if math.prod(shape) < rows * width)
    if name == MLP:  # x and one hidden layer; torch's own layers keep two
        assert sorted(math.prod(shape) for shape in large) == [rows * width, 4 * rows * width]
        assert ours < saved_bytes(lambda: composed(name)(*inputs), parameters)[0]
    else:  # one tensor, and for LayerNorm two vectors beside it
        assert [math.prod(shape) for shape in large] == [rows * width]
        assert small <= (2 * rows if name == NORM else width)


@proves("sprints/day008/fused-ops#budget")
@checks("resources")
@each_operation
def test_fewer_tensors_and_bytes_are_made(impl, draw, record, name):
    """Counted below autograd: passes that write a new tensor, and the most that lives at once, without gradients."""
    needs_tensors(impl, name, "its memory is not torch's")
    inputs = operands(draw, name, (4096,), 16, "float32")
    tallies = {}
    with torch.no_grad():
        for which, operation in (("fused", impl[name]), ("unfused", unfused(name))):
            with metered() as tally:
                kept = operation(*inputs)
            tallies[which] = tally
            del kept
    for figure in ("made", "peak"):
        fused, plain = (getattr(tallies[which], figure) for which in ("fused", "unfused"))
        record(f"{name} {figure} over unfused", fused / plain, "", 1.0)
    # A panel's tensors are small: what counts is how much, of which MLP has little at once.
    assert tallies["fused"].peak <= (0.25 if name == MLP else 0.8) * tallies["unfused"].peak
    if name != MLP:
        assert tallies["fused"].made < tallies["unfused"].made


# -- invariance, edges -------------------------------------------------------------------------------------------------


@checks("invariance", "edges", "purity")
@each_operation
def test_rows_do_not_meet(impl, draw, name):
    """A row is what it is alone; no rows give none; a call leaves the generator as it was."""
    inputs = operands(draw, name, (1100,), 4)
    tensors = 2 if name == NORM else 1
    state = torch.get_rng_state()
    whole = outputs(impl[name](*inputs))
    for place in (0, 511, 512, 1099):
        alone = outputs(impl[name](*(x[place : place + 1] for x in inputs[:tensors]), *inputs[tensors:]))
        assert all(relative_error(a, b[place : place + 1]) <= 1e-12 for a, b in zip(alone, whole, strict=True))
    none = [x[:0].requires_grad_() for x in inputs[:tensors]]
    found = outputs(impl[name](*none, *inputs[tensors:]))
    assert all(part.shape[0] == 0 and part.shape[1:] == full.shape[1:] for part, full in zip(found, whole, strict=True))
    assert torch.autograd.grad(sum(part.sum() for part in found), none)[0].shape == none[0].shape
    assert torch.equal(torch.get_rng_state(), state)


@checks("edges", "arguments")
@each_operation
def test_bad_input_is_refused(impl, draw, name):
    needs_tensors(impl, name, "it has one floating dtype")
    inputs = operands(draw, name)
    with pytest.raises(ValueError, match="int64"):
        impl[name](inputs[0].long(), *inputs[1:])
    for place in range(1, len(inputs)):
        wrong = list(inputs)
        wrong[place] = inputs[place].float()
        with pytest.raises(TypeError, match="float32"):
            impl[name](*wrong)
        wrong[place] = torch.cat([inputs[place], inputs[place]], dim=-1)
        with pytest.raises(ValueError, match=str(wrong[place].shape[-1])):
            impl[name](*wrong)
    if name == NORM:
        with pytest.raises(ValueError, match=r"-0\.5"):
            impl[name](*inputs, -0.5)
        with pytest.raises(ValueError, match="2, 5, 6"):  # a broadcast residual would need a sum in the backward
            impl[name](inputs[0], inputs[1][:1], *inputs[2:])
    else:
        with pytest.raises(ValueError, match="sigmoid"):
            impl[name](*inputs, "sigmoid")
    if name == MLP:
        with pytest.raises(ValueError, match="24"):
            impl[name](inputs[0], inputs[1][0], *inputs[2:])
