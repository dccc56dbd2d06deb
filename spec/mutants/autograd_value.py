"""Mistakes that people make in a number that differentiates itself."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


VALUE = _of(
    "autograd.Value",
    (
        "overwritten",
        "the last path to an operand overwrites those before",
        "operand._arrived += part",
        "operand._arrived = part",
    ),
    (
        "second_overwrites",
        "a second backward overwrites the gradients",
        "node.grad += node._arrived",
        "node.grad = node._arrived",
    ),
    (
        "compounding",
        "a second backward passes on what the first had left in the nodes",
        "node._arrived = 0.0\n        self._arrived = 1.0",
        "node._arrived = node.grad\n            node.grad = 0.0\n        self._arrived = 1.0",
    ),
    ("no_seed", "the root's gradient is not 1", "self._arrived = 1.0\n", "self._arrived = self.data\n"),
    (
        "root_added",
        "adds 1 to the root's gradient on every path",
        "self._arrived = 1.0\n",
        "self._arrived = self.grad + 1.0\n",
    ),
    ("operands_first", "goes through the graph from the leaves", "for node in reversed(order):", "for node in order:"),
    (
        "as_they_come",
        "walks in breadth: a node passes its gradient on before it has all of it",
        "        order = topological_sort(self)\n        for node in order:\n            node._arrived",
        "        order, seen = [self], {self}\n"
        "        for node in order:\n"
        "            for operand in node.operands:\n"
        "                if operand not in seen:\n"
        "                    seen.add(operand)\n"
        "                    order.append(operand)\n"
        "        order.reverse()\n"
        "        for node in order:\n"
        "            node._arrived",
    ),
    (
        "recursive",
        "finds the order by recursion",
        "        order = topological_sort(self)\n        for node in order:\n            node._arrived",
        "        order, seen = [], set()\n"
        "\n"
        "        def visit(node):\n"
        "            if node not in seen:\n"
        "                seen.add(node)\n"
        "                for operand in node.operands:\n"
        "                    visit(operand)\n"
        "                order.append(node)\n"
        "\n"
        "        visit(self)\n"
        "        for node in order:\n"
        "            node._arrived",
    ),
    (
        "twice_fired",
        "fires a node once for each of its users",
        "            parts = node._way(node._arrived)\n",
        "            node._way(node._arrived)\n            parts = node._way(node._arrived)\n",
    ),
    (
        "half_done",
        "adds to gradients before a wrong operation is found",
        "operand._arrived += part",
        "operand._arrived += part\n                operand.grad += 0.5",
    ),
    (
        "parts_cut",
        "drops parts that have no operand",
        "if len(parts) != len(operands):",
        "if len(parts) < len(operands):",
    ),
    (
        "zero_here_only",
        "zero_grad forgets all but the node itself",
        "for node in topological_sort(self):\n            node.grad = 0.0",
        "self.grad = 0.0",
    ),
    (
        "zero_leaves_only",
        "zero_grad forgets the inner nodes",
        "            node.grad = 0.0\n",
        "            node.grad = node.grad if node.operands else 0.0\n",
    ),
    (
        "minus_forgotten",
        "a difference passes its gradient on unchanged to both",
        "lambda g: (g, -g)",
        "lambda g: (g, g)",
    ),
    (
        "own_factor",
        "each factor's gradient is multiplied by itself",
        "lambda g: (g * b, g * a)",
        "lambda g: (g * a, g * b)",
    ),
    ("plain_factor", "a plain factor is lost on the way back", "lambda g: (g * factor,)", "lambda g: (g,)"),
    ("quotient_once", "the gradient of a divisor lacks one division", "-g * y / b)", "-g * y)"),
    ("reflected_minus", "takes 2 - v for v - 2", "left is None else left - self", "left is None else self - left"),
    ("reflected_quotient", "takes 2 / v for v / 2", "left is None else left / self", "left is None else self / left"),
    ("reflected_power", "takes 2 ** v for v ** 2", "left is None else left**self", "left is None else self**left"),
    ("negation_lost", "the gradient of −v is not negated", "lambda g: (-g,)", "lambda g: (g,)"),
    ("exp_of_x", "exp's derivative is x", 'lambda g: (g * y,), "exp"', 'lambda g: (g * self.data,), "exp"'),
    ("log_of_itself", "log's gradient is multiplied", "lambda g: (g / x,)", "lambda g: (g * x,)"),
    (
        "log_of_abs",
        "takes the logarithm of a negative number's size",
        "        if x <= 0:\n",
        "        x = abs(x)\n        if x == 0:\n",
    ),
    ("tanh_linear", "tanh's derivative is 1 − tanh", "g * (1 - y * y)", "g * (1 - y)"),
    ("relu_at_zero", "relu's gradient at 0 is 1", "g if x > 0 else 0.0", "g if x >= 0 else 0.0"),
    ("relu_open", "relu passes every gradient on", "lambda g: (g if x > 0 else 0.0,)", "lambda g: (g,)"),
    (
        "complex_powers",
        "lets a power be complex",
        "    if base < 0 and not exponent.is_integer():\n",
        "    if base < -1e9:\n",
    ),
    ("power_kept", "does not lower the exponent", "exponent * base ** (exponent - 1)", "exponent * base**exponent"),
    (
        "exponent_lost",
        "does not multiply by the exponent",
        "exponent * base ** (exponent - 1)",
        "base ** (exponent - 1)",
    ),
    ("log_forgotten", "the gradient of an exponent lacks ln a", "y * math.log(a) if a > 0", "y if a > 0"),
    ("no_exponent", "gives exponents no gradient", "(g * slope, g * growth)", "(g * slope, 0.0)"),
    ("zero_to_the_zero", "0 ** 0 has no derivative", "    if exponent == 0:\n        return 0.0\n", ""),
    (
        "infinite_sign",
        "an infinite derivative is always positive",
        "math.copysign(math.inf, -exponent if odd else exponent)",
        "math.inf",
    ),
    (
        "any_base",
        "gives a negative base an exponent's gradient of 0",
        "    if a < 0:\n        raise",
        "    if a < -1e9:\n        raise",
    ),
    (
        "not_as_python",
        "a division by zero is no ZeroDivisionError",
        "class _DivisionByZero(ZeroDivisionError, ValueError):",
        "class _DivisionByZero(ValueError):",
    ),
    (
        "as_python_only",
        "a division by zero is no ValueError",
        "class _DivisionByZero(ZeroDivisionError, ValueError):",
        "class _DivisionByZero(ZeroDivisionError):",
    ),
    (
        "infinite_quotient",
        "a division by zero is infinite",
        "        if b == 0:\n            raise",
        "        if b == 0:\n            return Value(math.inf)\n            raise",
    ),
    (
        "no_names",
        "does not name the operands of a division",
        'f"{a!r} / {b!r}: division by zero"',
        '"division by zero"',
    ),
    (
        "infinite_exp",
        "exp overflows to infinity",
        'raise OverflowError(f"exp({self.data!r}) is too large for a float") from None',
        "y = math.inf",
    ),
    (
        "text_is_read",
        "takes text for the number in it",
        "if not isinstance(data, Real):",
        "if not isinstance(data, Real | str):",
    ),
    (
        "no_numpy",
        "does not know NumPy's numbers",
        "    return isinstance(other, Real)\n",
        "    return type(other) in (int, float)\n",
    ),
    ("integers_stay", "keeps an integer as it is", "self.data = float(data)", "self.data = data"),
    (
        "operands_as_a_set",
        "records an operand that is taken twice once",
        "operands, result.operation, result._way = tuple(operands), operation, backward",
        "operands, result.operation, result._way = tuple(dict.fromkeys(operands)), operation, backward",
    ),
    (
        "any_operand",
        "lets operands be plain numbers",
        "if not isinstance(operand, Value):",
        "if isinstance(operand, str):",
    ),
)

SORT = _of(
    "autograd.topological_sort",
    ("users_first", "users before operands", "    return order\n", "    return order[::-1]\n"),
    (
        "before_operands",
        "a node when it is met, not when the walk comes back",
        "            seen.add(node)\n            waiting.append((node, True))\n",
        "            seen.add(node)\n            order.append(node)\n",
    ),
    (
        "seen_too_soon",
        "marks an operand as seen when it is put on the list: another path to it may be done before it",
        "                    waiting.append((operand, False))\n",
        "                    waiting.append((operand, False))\n                    seen.add(operand)\n",
    ),
    ("twice_met", "has a node as often as it is met", "        elif node not in seen:\n", "        else:\n"),
    (
        "leaves_twice",
        "has a leaf as often as it is taken",
        "                    seen.add(operand)\n                    order.append(operand)",
        "                    order.append(operand)",
    ),
    ("no_leaves", "leaves the leaves out", "                    order.append(operand)\n", "                    pass\n"),
    ("root_forgotten", "leaves the root out", "    return order\n", "    return order[:-1]\n"),
    (
        "recursion",
        "walks by recursion",
        "    waiting: list[tuple[AnyNode, bool]] = [(root, False)]\n",
        "    def visit(node):\n"
        "        if node not in seen:\n"
        "            seen.add(node)\n"
        "            for operand in node.operands:\n"
        "                visit(operand)\n"
        "            order.append(node)\n"
        "\n"
        "    visit(root)\n"
        "    return order\n"
        "    waiting: list[tuple[AnyNode, bool]] = [(root, False)]\n",
    ),
    (
        "looked_up_in_a_list",
        "looks for what it has seen in a list",
        "            for operand in node.operands:\n"
        "                if operand in seen:\n"
        "                    continue\n",
        "            for operand in node.operands:\n"
        "                known = False\n"
        "                for other in order:\n"
        "                    known = known or other is operand\n"
        "                if known or operand in seen:\n"
        "                    continue\n",
    ),
)

EXPORT = _of(
    "autograd.export_graph",
    (
        "turned_edges",
        "edges run from a result to its operands",
        "n{number[operand]} -> n{place};",
        "n{place} -> n{number[operand]};",
    ),
    ("edges_twice", "an operand taken twice gives two edges", "in dict.fromkeys(node.operands):", "in node.operands:"),
    (
        "first_operand",
        "draws the edge of the first operand only",
        "in dict.fromkeys(node.operands):",
        "in node.operands[:1]:",
    ),
    (
        "no_leaf_nodes",
        "draws no leaves",
        "    for node, place in number.items():\n        label",
        "    for node, place in number.items():\n        if not node.operands:\n            continue\n        label",
    ),
    ("rounded", "rounds the numbers", "data {node.data!r}", "data {node.data:.4f}"),
    ("no_gradient", "shows the value for the gradient", "grad {node.grad!r}", "grad {node.data!r}"),
    ("unescaped", "does not escape quotes", ".replace('\"', '\\\\\"')", ""),
    ("line_breaks", "breaks lines inside a label", '.replace("\\n", "\\\\n")', ""),
    ("from_one", "numbers the nodes from 1", "in enumerate(order)", "in enumerate(order, 1)"),
    ("no_end", "does not close the graph", '[*lines, "}", ""]', '[*lines, ""]'),
    (
        "by_value",
        "takes nodes of equal value for one",
        "number = {node: place for place, node in enumerate(order)}",
        "first = {}\n    number = {node: first.setdefault(node.data, place) for place, node in enumerate(order)}",
    ),
)

MUTANTS = [*VALUE, *SORT, *EXPORT]
