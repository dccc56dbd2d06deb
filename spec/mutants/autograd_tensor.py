"""Mistakes that people make in an array that differentiates itself."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


UNBROADCAST = _of(
    "autograd.unbroadcast",
    ("ones_stay", "does not sum the axes that were 1", "if n == 1 and front.shape[axis] != 1", "if False"),
    ("ones_are_dropped", "drops the axes that were 1", "sum(axis=ones, keepdims=True)", "sum(axis=ones)"),
    ("front_stays", "sums one leading axis only", "axis=tuple(range(extra))", "axis=tuple(range(min(extra, 1)))"),
    ("mean_for_sum", "takes means over repeated axes", "front.sum(axis=ones", "front.mean(axis=ones"),
    ("anything_fits", "accepts any shape that has no more axes", "n in (1, m) for", "True for"),
    ("number_for_array", "gives a NumPy number for an array without axes", "np.asarray(front.sum(", "(front.sum("),
)

TENSOR = _of(
    "autograd.Tensor",
    (
        "leaf_overwritten",
        "a second backward overwrites the gradient",
        "arrived if node.grad is None else node.grad + arrived",
        "arrived",
    ),
    (
        "path_overwritten",
        "the last path to an operand overwrites those before",
        "part if known is None else known + part",
        "part",
    ),
    (
        "aliased",
        "hands one array to several gradients",
        "np.array(arrived if node.grad is None else node.grad + arrived)",
        "np.asarray(arrived if node.grad is None else node.grad + arrived)",
    ),
    (
        "breadth_first",
        "goes through the graph by distance: a node passes on its gradient before it has all of it",
        "        return reversed(order)",
        "        order, seen = [self], {id(self)}\n"
        "        for node in order:\n"
        "            for operand in node._operands:\n"
        "                if operand.requires_grad and id(operand) not in seen:\n"
        "                    seen.add(id(operand))\n"
        "                    order.append(operand)\n"
        "        return order",
    ),
    (
        "recursive",
        "finds the order by recursion",
        "        order: list[Tensor] = []\n",
        "        order: list[Tensor] = []\n\n"
        "        def visit(node, known):\n"
        "            if id(node) not in known:\n"
        "                known.add(id(node))\n"
        "                for operand in node._operands:\n"
        "                    visit(operand, known)\n\n"
        "        visit(self, set())\n",
    ),
    (
        "inner_gradients",
        "keeps a gradient for what is no leaf",
        "            with np.errstate(all=\"ignore\"):\n                found = node._way(arrived)",
        "            node.grad = arrived\n"
        "            with np.errstate(all=\"ignore\"):\n                found = node._way(arrived)",
    ),
    (
        "wide_gradient",
        "gives a gradient in a wider dtype than what it is for",
        "part = np.asarray(part, dtype=operand.dtype)",
        "part = np.asarray(part, dtype=np.float64)",
    ),
    ("any_seed", "broadcasts a seed of another shape", "if seed.shape != self.shape:", "if seed.ndim > 9:"),
    (
        "seed_of_ones",
        "takes ones for the seed that is missing",
        "            if self.data.size != 1:\n                raise ValueError(f\"backward",
        "            if self.data.size < 0:\n                raise ValueError(f\"backward",
    ),
    ("seed_ignored", "ignores the seed", "reached = {id(self): seed}", "reached = {id(self): np.ones_like(seed)}"),
    (
        "minus_forgotten",
        "a difference passes its gradient on unchanged to both",
        "return _binary(self, other, np.subtract, lambda a, b, y, g: (g, -g))",
        "return _binary(self, other, np.subtract, lambda a, b, y, g: (g, g))",
    ),
    (
        "reflected_minus",
        "takes 1 - x for x - 1",
        "return _binary(other, self, np.subtract,",
        "return _binary(self, other, np.subtract,",
    ),
    (
        "reflected_quotient",
        "takes 1 / x for x / 1",
        "return _binary(other, self, np.divide,",
        "return _binary(self, other, np.divide,",
    ),
    (
        "reflected_product",
        "takes array @ x for x @ array",
        "return _product(other, self)",
        "return _product(self, other)",
    ),
    (
        "quotient_once",
        "the gradient of a divisor lacks one division",
        "return _binary(self, other, np.divide, lambda a, b, y, g: (g / b, -g * y / b))",
        "return _binary(self, other, np.divide, lambda a, b, y, g: (g / b, -g * y))",
    ),
    (
        "own_factor",
        "each factor's gradient is multiplied by itself",
        "return _binary(self, other, np.multiply, lambda a, b, y, g: (g * b, g * a))",
        "return _binary(self, other, np.multiply, lambda a, b, y, g: (g * a, g * b))",
    ),
    ("power_kept", "does not lower the exponent", "np.power(a, b - 1)", "np.power(a, b)"),
    ("no_exponent", "gives exponents no gradient", "np.where(a == 0, 0, g * y * np.log(a))", "np.zeros_like(g * y)"),
    (
        "zero_to_the_zero",
        "x ** 0 has the gradient 0 · x ** −1, which is NaN at 0",
        "np.where(b == 0, 0, g * b * np.power(a, b - 1))",
        "g * b * np.power(a, b - 1)",
    ),
    ("log_of_itself", "log's gradient is multiplied", "lambda g: g / self.data", "lambda g: g * self.data"),
    ("tanh_linear", "tanh's derivative is 1 − tanh", "lambda g: g * (1 - y * y)", "lambda g: g * (1 - y)"),
    ("relu_at_zero", "relu's gradient at 0 is 1", "self.data > 0)", "self.data >= 0)"),
    (
        "mean_of_all",
        "divides every mean by the number of all elements",
        "self.data.size // max(total.data.size, 1)",
        "self.data.size",
    ),
    (
        "all_winners",
        "gives every element that ties the whole gradient",
        " * at / at.sum(axis=axis, keepdims=True)",
        " * at",
    ),
    (
        "max_of_all",
        "shares the gradient among all maxima of the array",
        "at.sum(axis=axis, keepdims=True)",
        "at.sum()",
    ),
    ("same_order_back", "permutes the gradient the same way again", "g.transpose(back)", "g.transpose(order)"),
    ("assigned", "the last of repeated places gets the gradient", "np.add.at(found, chosen, g)", "found[chosen] = g"),
    (
        "filled_learns",
        "passes gradients to what was replaced",
        "lambda g: np.where(chosen, 0, g)",
        "lambda g: g",
    ),
    (
        "mask_upside_down",
        "fills where the mask is False",
        "np.where(chosen, np.asarray(value",
        "np.where(~chosen, np.asarray(value",
    ),
    ("any_mask", "takes numbers for a mask", "if chosen.dtype != bool:", "if False:"),
    ("detached_learns", "detach gives the tensor itself", "return Tensor(self.data)", "return self"),
    (
        "integers_learn",
        "lets integers ask for a gradient",
        'if requires_grad and self.data.dtype.kind != "f":',
        'if requires_grad and self.data.dtype.kind == "O":',
    ),
    (
        "copies",
        "copies the array that it is given",
        "data.data if isinstance(data, Tensor) else np.asarray(data)",
        "data.data if isinstance(data, Tensor) else np.array(data)",
    ),
    (
        "everything_learns",
        "every result wants a gradient",
        "if any(operand.requires_grad for operand in operands):",
        "if data.dtype.kind == 'f':",
    ),
    (
        "strong_numbers",
        "makes float64 of what meets a plain number",
        "weak = np.result_type(tensor.dtype, one)",
        "weak = np.result_type(tensor.dtype, np.asarray(one))",
    ),
    (
        "shared_matrix",
        "does not sum a shared matrix's gradient over the batch",
        "to_b = unbroadcast(np.swapaxes(rows, -1, -2) @ whole, columns.shape)",
        "to_b = np.swapaxes(rows, -1, -2) @ whole\n"
        "        to_b = to_b.reshape(-1, *columns.shape)[0] if to_b.ndim > columns.ndim else to_b",
    ),
    (
        "loud",
        "warns of what arithmetic gives",
        "    with np.errstate(all=\"ignore\"):\n        y = np.asarray(value(a.data, b.data))",
        "    y = np.asarray(value(a.data, b.data))",
    ),
)  # fmt: skip

MUTANTS = [*UNBROADCAST, *TENSOR]
