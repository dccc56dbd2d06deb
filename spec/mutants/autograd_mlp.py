"""Mistakes that people make in a network of numbers and in its training."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


NEURON = _of(
    "autograd.Neuron",
    (
        "truncated",
        "reads as many inputs as it has weights, or fewer",
        "        if len(x) != len(self.weights):\n",
        "        x = x[: len(self.weights)]\n        if not len(x):\n",
    ),
    ("no_bias", "adds no bias", "for one in x], self.bias)", "for one in x], Value(0.0))"),
    ("bias_forgotten", "does not list its bias", "return [*self.weights, self.bias]", "return [*self.weights]"),
    ("bias_first", "lists its bias first", "return [*self.weights, self.bias]", "return [self.bias, *self.weights]"),
    (
        "always_bent",
        "bends a linear neuron too",
        'return total.relu() if self.activation == "relu" else total',
        "return total.relu()",
    ),
    (
        "always_tanh",
        "bends by tanh whatever is asked for",
        'if self.activation == "tanh":',
        'if self.activation != "linear":',
    ),
    (
        "copies",
        "lists copies of its weights",
        "return [*self.weights, self.bias]",
        "return [*(Value(one.data) for one in self.weights), self.bias]",
    ),
    (
        "equal_weights",
        "draws one weight for all inputs",
        "[Value(pick.uniform(-1, 1)) for _ in range(inputs)]",
        "[Value(number) for number in [pick.uniform(-1, 1)] for _ in range(inputs)]",
    ),
    (
        "any_activation",
        "takes any activation for a linear one",
        "if activation not in ACTIVATIONS:",
        "if not activation:",
    ),
    (
        "detached",
        "takes the numbers out of its inputs",
        "[one if isinstance(one, Value) else float(one) for one in x]",
        "[one.data if isinstance(one, Value) else float(one) for one in x]",
    ),
    ("drawn_bias", "draws its bias", "self.bias = Value(0.0)", "self.bias = Value(pick.uniform(-1, 1))"),
)

LAYER = _of(
    "autograd.Layer",
    (
        "one_seed",
        "gives every neuron the same seed: they stay equal",
        "activation=activation, seed=pick) for _ in range(outputs)]",
        "activation=activation, seed=1) for _ in range(outputs)]",
    ),
    (
        "one_neuron",
        "is one neuron many times",
        "[Neuron(inputs, activation=activation, seed=pick) for _ in range(outputs)]",
        "[Neuron(inputs, activation=activation, seed=pick)] * outputs",
    ),
    (
        "first_neuron",
        "lists the parameters of the first neuron",
        "for neuron in self.neurons for parameter",
        "for neuron in self.neurons[:1] for parameter",
    ),
    (
        "activation_lost",
        "does not hand its activation on",
        "[Neuron(inputs, activation=activation, seed=pick)",
        "[Neuron(inputs, seed=pick)",
    ),
    (
        "number_for_list",
        "gives a number for a list of one",
        "return [neuron(x) for neuron in self.neurons]",
        "found = [neuron(x) for neuron in self.neurons]\n        return found if len(found) > 1 else found[0]",
    ),
    ("empty_layers", "may be empty", "        if outputs < 1:\n", "        if outputs < 0:\n"),
    (
        "global_seed",
        "seeds the caller's generator",
        "        pick = _generator(seed)\n        self.neurons",
        "        random.seed(seed if isinstance(seed, int) else 0)\n"
        "        pick = random.Random(random.random())\n"
        "        self.neurons",
    ),
)

MLP = _of(
    "autograd.MLP",
    ("bent_output", "bends the output too", '+ ["linear"]', "+ [activation]"),
    (
        "never_bent",
        "has no bend between layers",
        "kinds = [activation] * (len(pairs) - 1)",
        'kinds = ["linear"] * (len(pairs) - 1)',
    ),
    (
        "activation_ignored",
        "bends by tanh whatever is asked for",
        "kinds = [activation] * (len(pairs) - 1)",
        'kinds = ["tanh"] * (len(pairs) - 1)',
    ),
    (
        "last_layer_only",
        "lists the parameters of the last layer",
        "for layer in self.layers for parameter",
        "for layer in self.layers[-1:] for parameter",
    ),
    (
        "layers_of_one_seed",
        "starts every layer from the same seed",
        "Layer(inputs, outputs, activation=kind, seed=pick)",
        "Layer(inputs, outputs, activation=kind, seed=seed)",
    ),
    (
        "seed_ignored",
        "ignores the seed",
        "        pairs = list(",
        "        pick = _generator(0)\n        pairs = list(",
    ),
    (
        "time_seed",
        "draws other weights every time",
        "        pairs = list(",
        "        pick = random.Random()\n        pairs = list(",
    ),
    ("no_layers", "lets a network have no layers", "        if len(sizes) < 2:\n", "        if len(sizes) < 1:\n"),
    (
        "network_truncates",
        "cuts inputs to length",
        "        if len(x) != len(self.weights):\n",
        "        if len(x) < len(self.weights):\n",
    ),
    ("positive_weights", "draws weights from 0 to 1", "pick.uniform(-1, 1)", "pick.uniform(0, 1)"),
    (
        "number_for_one_output",
        "gives a number when there is one output",
        "        return list(x)\n",
        "        return list(x) if len(x) > 1 else x[0]\n",
    ),
    (
        "inner_neuron_without_bias",
        "has biases in the output only",
        "        self.bias = Value(0.0)\n",
        '        self.bias = Value(0.0) if activation == "linear" else Value(0.0)\n'
        '        self.weights[0].data += 0.0 if activation == "linear" else self.bias.data + 1.0\n',
    ),
)

TRAIN = _of(
    "autograd.train",
    (
        "not_zeroed",
        "does not zero the gradients of the step before",
        "                parameter.grad = 0.0\n",
        "                pass\n",
    ),
    (
        "zeroed_once",
        "zeroes gradients before the first step only",
        "            for parameter in parameters:\n                parameter.grad = 0.0\n",
        "            for parameter in parameters if not losses else []:\n                parameter.grad = 0.0\n",
    ),
    ("ascent", "goes uphill", "parameter.data -= learning_rate", "parameter.data += learning_rate"),
    ("sum_for_mean", "adds up the losses of the points", "    loss = total / len(signs)\n", "    loss = total * 1.0\n"),
    (
        "loss_after",
        "logs the loss after the update",
        "            losses.append(loss.data)\n",
        "            losses.append(_loss(model, inputs, signs, weight_decay, parameters).data)\n",
    ),
    (
        "labels_as_signs",
        "takes labels 0 and 1 for signs",
        "signs = [1 if label == 1 else -1 for label in labels]",
        "signs = [int(label) for label in labels]",
    ),
    ("turned_labels", "turns the classes round", "[1 if label == 1 else -1 for", "[-1 if label == 1 else 1 for"),
    ("perceptron_loss", "has no margin", "(1 - scores[0] * sign).relu()", "(-(scores[0] * sign)).relu()"),
    ("no_hinge", "pulls at points beyond the margin", "(1 - scores[0] * sign).relu()", "(1 - scores[0] * sign)"),
    ("half_decay", "has half the decay", "loss + squares * weight_decay", "loss + squares * (weight_decay / 2)"),
    (
        "decay_by_points",
        "divides the decay by the number of points",
        "loss + squares * weight_decay",
        "loss + squares * (weight_decay / len(signs))",
    ),
    ("decay_ignored", "ignores the decay", "    if weight_decay:\n", "    if False:\n"),
    ("a_step_too_few", "takes a step less", "for _ in range(steps):", "for _ in range(steps - 1):"),
    (
        "rate_over_steps",
        "lowers the rate as it goes",
        "learning_rate * parameter.grad",
        "learning_rate * parameter.grad * (1 - len(losses) / (10 * steps))",
    ),
    (
        "one_point",
        "leaves the last point out",
        "    for x, sign in zip(inputs, signs, strict=True):",
        "    for x, sign in list(zip(inputs, signs, strict=True))[: max(1, len(signs) - 1)]:",
    ),
    (
        "biases_stay",
        "does not move the last parameter",
        "            for parameter in parameters:\n                parameter.data",
        "            for parameter in parameters[:-1]:\n                parameter.data",
    ),
    ("any_labels", "takes every other label for 0", "        if label not in (0, 1):\n", "        if label is None:\n"),
    (
        "any_number_of_labels",
        "cuts points to the labels",
        "    if not len(inputs) == len(labels) > 0:\n",
        "    if not len(labels) > 0:\n",
    ),
    (
        "first_output",
        "trains the first output of several",
        "        if len(scores) != 1:\n",
        "        if len(scores) < 1:\n",
    ),
    ("no_collector", "leaves Python without its collector of cycles", "        if searching:\n", "        if False:\n"),
    (
        "losses_are_nodes",
        "logs nodes, and keeps every graph",
        "            losses.append(loss.data)\n",
        "            losses.append(loss)\n",
    ),
)

MUTANTS = [*NEURON, *LAYER, *MLP, *TRAIN]
