"""Week 1: neurons, layers and networks of numbers that differentiate themselves, beside torch's."""

from __future__ import annotations

import gc
import math
import random
import tracemalloc
from itertools import pairwise

import pytest
import torch

from spec.refusals import naming
from spec.sprint2.toy_runs import forward, moons, twin
from touchstone import checks, proves, subject

VALUE, TENSOR, NEURON, LAYER, MLP, TRAIN = (
    f"autograd.{name}" for name in ("Value", "Tensor", "Neuron", "Layer", "MLP", "train")
)
WEEK, ROW, MICRO = "karpathy/week01/mlp", "nanochat/week00/neuron-mlp-backprop", "inference/0.7/micrograd"

pytestmark = subject(MLP)


def blocks(module, sizes):
    """torch's copy of the parameters: a row is a neuron's weights and its bias."""
    flat = torch.tensor([parameter.data for parameter in module.parameters()], dtype=torch.float64)
    parts = flat.split([outputs * (inputs + 1) for inputs, outputs in pairwise(sizes)])
    return [part.reshape(outputs, -1).clone().requires_grad_() for part, outputs in zip(parts, sizes[1:], strict=True)]


def close(found, wanted, within, floor=0.0):
    scale = max(floor, *map(abs, wanted))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert abs(one - other) <= within * scale


@proves("karpathy/week01/mlp#parity")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
@pytest.mark.parametrize("sizes", [[2, 5, 1], [3, 4, 4, 2], [1, 1, 1], [2, 3]], ids=str)
def test_forward_and_gradients_equal_torchs(impl, draw, sizes, activation):
    """Weights of every kind: the drawn ones, and others put in their place; biases that are not 0."""
    model = impl.autograd.MLP(sizes, activation=activation, seed=5)
    for parameter in model.parameters():
        parameter.data += draw.normal(1).item()
    layers = blocks(model, sizes)
    points = draw.normal(6, sizes[0])
    wanted = forward(layers, activation, points)
    weights = draw.normal(*wanted.shape)
    total = 0.0
    for x, row, by in zip(points.tolist(), wanted.tolist(), weights.tolist(), strict=True):
        outputs = model(x)
        assert isinstance(outputs, list)
        close([y.data for y in outputs], row, 1e-12)
        total = sum((y * c for y, c in zip(outputs, by, strict=True)), total)
    total.backward()
    (wanted * weights).sum().backward()
    gradients = [number for layer in layers for number in layer.grad.flatten().tolist()]
    close([parameter.grad for parameter in model.parameters()], gradients, 1e-10)


@proves("karpathy/week01/mlp#parity")
@checks("oracle", "gradient", "branches", "dtype", "magnitude", "invariance")
@subject(NEURON, LAYER)
@pytest.mark.parametrize("activation", [None, "tanh", "relu", "linear"])
def test_one_layer_and_one_neuron(impl, draw, activation):
    """The default is tanh; a layer is its neurons side by side; small and large weights; numbers of any kind."""
    options = {} if activation is None else {"activation": activation}
    bend = {None: torch.tanh, "tanh": torch.tanh, "relu": torch.relu, "linear": lambda x: x}[activation]
    for scale in (1e-3, 1.0, 30.0):
        layer = impl.autograd.Layer(3, 4, **options)
        neuron = impl.autograd.Neuron(3, **options)
        for module in (layer, neuron):
            for parameter, number in zip(module.parameters(), draw.normal(16).tolist(), strict=False):
                parameter.data = scale * number
        for module, outputs in ((layer, 4), (neuron, 1)):
            block = blocks(module, [3, outputs])[0]
            for x in (*draw.normal(3, 3).numpy(), [1, 0, -2], (True, 0.5, 2)):
                for parameter in module.parameters():
                    parameter.grad = 0.0
                block.grad = None
                wanted = bend(
                    torch.tensor([float(one) for one in x], dtype=torch.float64) @ block[:, :-1].T + block[:, -1]
                )
                found = module(x) if module is layer else [module(x)]
                assert isinstance(found, list)
                close([y.data for y in found], wanted.tolist(), 1e-12)
                sum((2 + k) * y for k, y in enumerate(found)).backward()
                (torch.arange(2.0, 2 + outputs).double() * wanted).sum().backward()
                gradients = [parameter.grad for parameter in module.parameters()]
                close(gradients, block.grad.flatten().tolist(), 1e-10, floor=1.0)  # where tanh is flat, 1 − y² rounds


@proves("karpathy/week01/mlp#property")
@checks("state", "resources")
@subject(NEURON, LAYER)
def test_parameters_are_the_nodes_themselves(impl):
    for inputs, outputs in ((1, 1), (3, 2), (2, 5)):
        layer, neuron = impl.autograd.Layer(inputs, outputs), impl.autograd.Neuron(inputs)
        assert len(layer.neurons) == outputs
        assert len(layer.parameters()) == outputs * (inputs + 1)
        assert len(neuron.parameters()) == inputs + 1
        assert [id(p) for p in neuron.parameters()] == [*map(id, neuron.weights), id(neuron.bias)]
        assert list(map(id, layer.parameters())) == [id(p) for one in layer.neurons for p in one.parameters()]
        assert len(set(map(id, layer.parameters()))) == len(layer.parameters())


@proves("karpathy/week01/mlp#parity")
@checks("gradient", "branches", "dtype")
@subject(MLP, uses=[VALUE])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradients_reach_the_inputs(impl, draw, activation):
    """Nodes, numbers, and both; the same node twice."""
    Value = impl.autograd.Value
    sizes = [3, 4, 2]
    model = impl.autograd.MLP(sizes, activation=activation, seed=2)
    layers = blocks(model, sizes)
    a, b = draw.normal(2).tolist()
    x, y = Value(a), Value(b)
    t = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    for mine, theirs in (
        ([x, y, x], torch.stack([t[0], t[1], t[0]])),
        ([x, 2, y * 2], torch.stack([t[0], torch.tensor(2.0).double(), t[1] * 2])),
        ((0.5, x, 1), torch.stack([torch.tensor(0.5).double(), t[0], torch.tensor(1.0).double()])),
    ):
        x.grad = y.grad = 0.0
        t.grad = None
        found, wanted = model(mine), forward(layers, activation, theirs[None])[0]
        (found[0] * 3 - found[1]).backward()
        (wanted[0] * 3 - wanted[1]).backward()
        close([x.grad, y.grad], t.grad.tolist(), 1e-10)


@proves("karpathy/week01/mlp#property")
@checks("oracle", "arguments", "gradient", "state")
@pytest.mark.parametrize(("hidden", "outputs"), [(16, 1), (5, 3), (1, 2)])
def test_parameters_are_counted_and_all_learn(impl, draw, hidden, outputs):
    """h (n_in + 1) + n_out (h + 1); each once; each has a gradient over 20 points."""
    for inputs in (1, 2, 4):
        model = impl.autograd.MLP([inputs, hidden, outputs], seed=1)
        parameters = model.parameters()
        assert len(parameters) == hidden * (inputs + 1) + outputs * (hidden + 1)
        assert len(set(map(id, parameters))) == len(parameters)
        assert list(map(id, parameters)) == list(map(id, model.parameters()))
        assert [id(p) for layer in model.layers for p in layer.parameters()] == list(map(id, parameters))
        neurons = [neuron for layer in model.layers for neuron in layer.neurons]
        assert [id(p) for neuron in neurons for p in [*neuron.weights, neuron.bias]] == list(map(id, parameters))
        widths = [[len(neuron.weights) for neuron in layer.neurons] for layer in model.layers]
        assert widths == [[inputs] * hidden, [hidden] * outputs]
        total = sum(y * y for x in draw.normal(20, inputs).tolist() for y in model(x))
        total.backward()
        assert all(parameter.grad != 0.0 for parameter in parameters)


@proves("nanochat/week00/neuron-mlp-backprop#parity-2")
@checks("arguments")
def test_the_stated_network_has_337_parameters(impl):
    assert len(impl.autograd.MLP([2, 16, 16, 1]).parameters()) == 337


@proves("karpathy/week01/mlp#property-2")
@checks("purity", "arguments", "state")
@subject(NEURON, LAYER, MLP)
def test_seeds(impl):
    def numbers(seed, sizes=(2, 8, 1)):
        return [parameter.data for parameter in impl.autograd.MLP(sizes, seed=seed).parameters()]

    state = random.getstate()
    assert numbers(3) == numbers(3)
    assert random.getstate() == state, "the caller's generator is left alone"
    assert numbers(3) != numbers(4)
    assert numbers(0) == [p.data for p in impl.autograd.MLP((2, 8, 1)).parameters()]
    model = impl.autograd.MLP([2, 8, 8, 1], seed=7)
    rows = [tuple(weight.data for weight in neuron.weights) for layer in model.layers for neuron in layer.neurons]
    assert len(set(rows)) == len(rows), "hidden units differ"
    shared = random.Random(5)
    first, second = (impl.autograd.Neuron(4, seed=shared) for _ in range(2))
    again = impl.autograd.Layer(4, 2, seed=5)
    assert [p.data for p in (*first.parameters(), *second.parameters())] == [p.data for p in again.parameters()]
    assert [p.data for p in impl.autograd.Neuron(4, seed=5).parameters()] == [p.data for p in first.parameters()]
    drawn = [w.data for neuron in impl.autograd.Layer(50, 40, seed=1).neurons for w in neuron.weights]
    assert -1 <= min(drawn) < -0.98
    assert 0.98 < max(drawn) <= 1
    # 2,000 uniform numbers: the mean is within 5σ of 0, σ = 1/√(3·2000); the mean square within 5σ of 1/3
    assert abs(sum(drawn)) / 2000 < 5 / math.sqrt(6000)
    assert abs(sum(x * x for x in drawn) / 2000 - 1 / 3) < 5 * math.sqrt(4 / 45 / 2000)
    assert {neuron.bias.data for neuron in impl.autograd.Layer(3, 5).neurons} == {0.0}
    wide = [neuron for layer in impl.autograd.MLP([20, 20, 2], seed=3).layers for neuron in layer.neurons]
    drawn = [weight.data for neuron in wide for weight in neuron.weights]
    assert -1 <= min(drawn) < -0.9
    assert 0.9 < max(drawn) <= 1
    assert {neuron.bias.data for neuron in wide} == {0.0}
    assert isinstance(impl.autograd.Layer(2, 1)([0.5, 1]), list), "a list, also of one"


# -- the neuron by hand ----------------------------------------------------------------------------------------------

STATED_BIAS = 6.8813735870195432


@proves("nanochat/week00/neuron-mlp-backprop#parity")
@checks("oracle", "gradient", "arguments", "magnitude")
@subject(NEURON, uses=[VALUE])
def test_the_stated_neuron_by_hand(impl):
    """o = tanh(−3·2 + 1·0 + b), 1 − o² = ½: ∂o/∂w = x/2, ∂o/∂x = w/2, ∂o/∂b = ½."""
    Value = impl.autograd.Value
    neuron = impl.autograd.Neuron(2)
    for weight, number in zip(neuron.weights, (-3, 1), strict=True):
        weight.data = float(number)
    neuron.bias.data = STATED_BIAS
    x = [Value(2), Value(0)]
    o = neuron(x)
    o.backward()
    assert o.data == pytest.approx(math.sqrt(0.5), rel=1e-12)
    by_hand = 1 - math.tanh(STATED_BIAS - 6) ** 2
    assert by_hand == pytest.approx(0.5, rel=1e-12)
    wanted = [2 * by_hand, 0 * by_hand, by_hand, -3 * by_hand, 1 * by_hand]
    assert wanted == pytest.approx([1, 0, 0.5, -1.5, 0.5], rel=1e-12, abs=1e-12)
    assert [one.grad for one in (*neuron.parameters(), *x)] == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@proves("nanochat/week00/neuron-mlp-backprop#parity")
@checks("gradient", "invariance")
@subject(VALUE)
def test_tanh_of_primitives_has_the_same_gradients(impl, draw):
    Value = impl.autograd.Value
    for numbers in [(2.0, 0.0, -3.0, 1.0, STATED_BIAS), *map(tuple, draw.normal(10, 5).tolist())]:
        ends = []
        for bend in (lambda n: n.tanh(), lambda n: ((2 * n).exp() - 1) / ((2 * n).exp() + 1)):
            x1, x2, w1, w2, b = nodes = [Value(number) for number in numbers]
            o = bend(x1 * w1 + x2 * w2 + b)
            o.backward()
            ends.append([o.data, *(node.grad for node in nodes)])
        assert ends[0] == pytest.approx(ends[1], rel=1e-12, abs=1e-12)
        if numbers[-1] == STATED_BIAS:
            assert ends[0] == pytest.approx([math.sqrt(0.5), -1.5, 0.5, 1, 0, 0.5], rel=1e-12, abs=1e-12)


@proves("karpathy/week02/tensor#gradient")
@checks("gradient", "invariance")
@subject(MLP, TENSOR)
def test_both_engines_agree_on_the_same_network(impl, draw):
    """An MLP of 3-4-2 over numbers, and the same over arrays: outputs and all gradients, 1e-12."""
    model, Tensor = impl.autograd.MLP([3, 4, 2], seed=3), impl.autograd.Tensor
    points = draw.normal(7, 3).numpy()
    blocks_of = [
        [Tensor([[w.data for w in neuron.weights] for neuron in layer.neurons], requires_grad=True),
         Tensor([neuron.bias.data for neuron in layer.neurons], requires_grad=True)]
        for layer in model.layers
    ]  # fmt: skip
    (w1, b1), (w2, b2) = blocks_of
    y = (Tensor(points) @ w1.transpose() + b1).tanh() @ w2.transpose() + b2
    (y * y).mean().backward()
    outputs = [model(x) for x in points.tolist()]
    (sum(one * one for row in outputs for one in row) / 14).backward()
    close([one.data for row in outputs for one in row], y.data.reshape(-1).tolist(), 1e-12)
    for layer, (w, b) in zip(model.layers, blocks_of, strict=True):
        close([one.grad for neuron in layer.neurons for one in neuron.weights], w.grad.reshape(-1).tolist(), 1e-12)
        close([neuron.bias.grad for neuron in layer.neurons], b.grad.tolist(), 1e-12)


# -- training, a few steps -------------------------------------------------------------------------------------------


@proves("nanochat/week00/neuron-mlp-backprop#parity-2", "karpathy/week01/train-toy#property-2")
@checks("oracle", "state", "gradient")
@subject(TRAIN, uses=[MLP])
@pytest.mark.parametrize(("activation", "decay"), [("tanh", 0.0), ("relu", 1e-2)])
def test_training_equals_torchs_step_by_step(impl, activation, decay):
    """2-16-16-1, 50 steps: losses and parameters to 1e-9; gradients left from before count for nothing."""
    points, labels = moons(8, 0.1, 3)
    model = impl.autograd.MLP([2, 16, 16, 1], activation=activation, seed=4)
    start = [parameter.data for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = 100.0
    options = {"steps": 50, "learning_rate": 0.07, "weight_decay": decay}
    losses = impl.autograd.train(model, points, labels, **options)
    wanted, end = twin([2, 16, 16, 1], activation, start, points, labels, **options)
    assert losses == pytest.approx(wanted, rel=1e-9)
    assert [parameter.data for parameter in model.parameters()] == pytest.approx(end, rel=1e-9, abs=1e-9)
    assert losses[-1] < 0.7 * losses[0]


@checks("branches", "arguments", "invariance", "purity", "dtype")
@subject(TRAIN, uses=[MLP])
def test_training_in_pieces_is_training_at_once(impl):
    points, labels = moons(10, 0.1, 1)
    kept = [list(point) for point in points], list(labels)
    ends = []
    for pieces in ([6], [1, 5], [2, 2, 2]):
        model = impl.autograd.MLP([2, 3, 1], seed=0)
        losses = []
        for steps in pieces:
            losses += impl.autograd.train(model, points, labels, steps=steps, learning_rate=0.5)
        assert {type(loss) for loss in losses} == {float}
        assert len(losses) == 6
        ends.append((losses, [parameter.data for parameter in model.parameters()]))
    assert ends[0] == ends[1] == ends[2]
    assert gc.isenabled()
    assert (points, labels) == kept


@checks("magnitude", "edges")
@subject(TRAIN, uses=[MLP])
def test_points_beyond_the_margin_do_not_pull(impl):
    """The hinge is flat from 1 on; a point inside moves the weights by rate · y x / n; decay by 2 rate λ w."""
    model = impl.autograd.MLP([1, 1], seed=0)
    (weight, bias) = model.parameters()
    weight.data, bias.data = 2.0, 0.0
    assert impl.autograd.train(model, [[1.0], [-1.0]], [1, 0], steps=3, learning_rate=0.5) == [0.0] * 3
    assert (weight.data, bias.data) == (2.0, 0.0)
    assert impl.autograd.train(model, [[0.25], [4.0]], [1, 1], steps=1, learning_rate=0.5) == [0.25]
    assert (weight.data, bias.data) == (2.0 + 0.5 * 0.25 / 2, 0.25)
    weight.data, bias.data = 2.0, 0.5
    losses = impl.autograd.train(model, [[1.0]], [1], steps=1, learning_rate=0.1, weight_decay=0.3)
    assert losses == pytest.approx([0.3 * 4.25], rel=1e-14)
    assert (weight.data, bias.data) == pytest.approx((2.0 - 0.1 * 0.6 * 2.0, 0.5 - 0.1 * 0.6 * 0.5), rel=1e-14)


@checks("resources")
@subject(TRAIN, uses=[MLP])
def test_labels_may_be_any_integers_of_numpy(impl, draw):
    import numpy as np

    ends = []
    for points, labels in (
        ([[0.5, 1.0], [-1.0, 0.2]], [1, 0]),
        (np.array([[0.5, 1.0], [-1.0, 0.2]]), np.array([1, 0])),
    ):
        model = impl.autograd.MLP([2, 3, 1], seed=0)
        ends.append(impl.autograd.train(model, points, labels, steps=2, learning_rate=0.5))
    assert ends[0] == ends[1]


@checks("resources")
@subject(TRAIN, uses=[MLP])
def test_the_graph_of_a_step_goes_with_it(impl):
    """Nodes are alive for one step: their number at any time is that of one graph."""
    points, labels = moons(10, 0.1, 1)
    alive = []
    for steps in (1, 12):
        tracemalloc.start()
        impl.autograd.train(impl.autograd.MLP([2, 4, 1]), points, labels, steps=steps, learning_rate=0.1)
        alive.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert alive[1] < 3 * alive[0]


# -- refusals --------------------------------------------------------------------------------------------------------


@proves("karpathy/week01/mlp#robustness", "nanochat/week00/neuron-mlp-backprop#robustness")
@checks("edges", "arguments")
@subject(NEURON, LAYER, MLP)
@pytest.mark.parametrize("length", [0, 1, 3])
def test_another_length_is_named_with_the_declared_one(impl, length):
    room = impl.autograd
    for thing in (room.Neuron(2), room.Layer(2, 3), room.MLP([2, 4, 1])):
        with pytest.raises(ValueError, match=naming(length, 2)):
            thing([0.5] * length)


@proves("nanochat/week00/neuron-mlp-backprop#robustness")
@checks("edges", "arguments")
@subject(NEURON, LAYER, MLP)
def test_networks_that_are_none(impl):
    room = impl.autograd
    for sizes in ([2], []):
        with pytest.raises(ValueError, match=naming("sizes", sizes)):
            room.MLP(sizes)
    for make, name, value in (
        (lambda: room.Neuron(0), "inputs", 0),
        (lambda: room.Neuron(-2), "inputs", -2),
        (lambda: room.Layer(2, 0), "outputs", 0),
        (lambda: room.Layer(0, 2), "inputs", 0),
        (lambda: room.MLP([2, 0, 1]), "outputs", 0),
        (lambda: room.Neuron(2, activation="sine"), "activation", "sine"),
        (lambda: room.Layer(2, 1, activation="sine"), "activation", "sine"),
        (lambda: room.MLP([2, 2, 1], activation="sine"), "activation", "sine"),
    ):
        with pytest.raises(ValueError, match=naming(name, value)):
            make()


@checks("edges", "arguments")
@subject(TRAIN, uses=[MLP])
def test_training_that_cannot_be(impl):
    good = {"steps": 1, "learning_rate": 0.1}
    model = impl.autograd.MLP([2, 2, 1])
    before = [parameter.data for parameter in model.parameters()]
    for inputs, labels, said in (
        ([], [], "inputs"),
        ([[0.0, 1.0]] * 3, [0, 1, 0, 1, 0], naming(3, 5)),
        ([[0.0, 1.0]] * 3, [0, 1, 2], naming("labels[2]", 2)),
        ([[0.0, 1.0]], [-1], naming("labels[0]", -1)),
        ([[0.0, 1.0, 2.0]], [1], naming(3, 2)),
    ):
        with pytest.raises(ValueError, match=said):
            impl.autograd.train(model, inputs, labels, **good)
    for name, value in (
        ("steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("weight_decay", math.inf),
    ):
        with pytest.raises(ValueError, match=naming(name, value)):
            impl.autograd.train(model, [[0.0, 1.0]], [1], **{**good, name: value})
    assert [parameter.data for parameter in model.parameters()] == before
    with pytest.raises(ValueError, match=naming("outputs", 2)):
        impl.autograd.train(impl.autograd.MLP([2, 2]), [[0.0, 1.0]], [1], **good)
