"""Mistakes that people make in a checker of gradients."""

from __future__ import annotations

from touchstone import Mutant

MUTANTS = [
    Mutant(name, "numerics.gradcheck", old, new, says)
    for name, says, old, new in (
        (
            "one_sided",
            "takes forward differences",
            "(8 * (y[1] - y[-1]) - (y[2] - y[-2])) / (12 * h)",
            "(y[1] - y[0]) / h",
        ),
        (
            "half_step",
            "divides by h, not by 2h",
            "(8 * (y[1] - y[-1]) - (y[2] - y[-2])) / (12 * h)",
            "(y[1] - y[-1]) / h",
        ),
        (
            "fixed_step",
            "does not grow the step with the input",
            " * 2.0 ** math.ceil(math.log2(max(1.0, abs(here))))",
            "",
        ),
        ("long_step", "takes a step of 2⁻⁷", "_STEP = 2.0**-17", "_STEP = 2.0**-7"),
        ("short_step", "takes a step of 2⁻³⁶", "_STEP = 2.0**-17", "_STEP = 2.0**-36"),
        (
            "absolute_error",
            "judges by absolute error",
            "return apart / max(abs(analytic), abs(entry.slope), 1e-3 * largest)",
            "return apart",
        ),
        ("no_floor", "has no floor under an error's denominator", ", 1e-3 * largest)", ", 1e-300)"),
        ("high_floor", "takes the largest slope for the denominator of every error", ", 1e-3 * largest)", ", largest)"),
        ("fixed_floor", "has a floor that does not follow the function's scale", ", 1e-3 * largest)", ", 1e-3)"),
        ("fixed_noise", "takes noise for the same at every scale", "_ROUNDING * size / h", "1e-9"),
        ("no_noise", "holds rounding against a gradient", "_ROUNDING * size / h", "0.0"),
        ("any_noise", "takes a thousandth of the function for noise", "_ROUNDING * size / h", "1e-3 * size"),
        (
            "blind_to_kinks",
            "calls a gradient at a kink wrong",
            "if entry.bend > _KINK * largest + entry.noise]",
            "if False]",
        ),
        ("kinks_everywhere", "takes any bend for a kink", "_KINK = 1e-5", "_KINK = 1e-12"),
        (
            "kinks_by_absolute_size",
            "knows kinks by a size that does not follow the function's scale",
            "_KINK * largest + entry.noise]",
            "_KINK + entry.noise]",
        ),
        (
            "second_differences",
            "takes curvature for a kink",
            "y[2] - 3 * y[1] + 3 * y[0] - y[-1], y[1]",
            "y[1] - 2 * y[0] + y[-1], y[1]",
        ),
        (
            "symmetric_only",
            "sees no kink whose gradient is the mean of both sides",
            "max(map(abs, bends)) / h",
            "abs(bends[0] + bends[1]) / h",
        ),
        (
            "kink_first",
            "lets a kink hide a wrong entry",
            "    if not worst <= tolerance:",
            "    if not worst <= tolerance and not kinks:",
        ),
        ("nan_passes", "lets NaN pass", "    if not math.isfinite(analytic):\n        return math.inf\n", ""),
        (
            "mean_error",
            "judges by the mean of the errors",
            "worst = max(errors.values(), default=0.0)",
            "worst = sum(errors.values()) / max(len(errors), 1)",
        ),
        (
            "first_input",
            "looks at the first input only",
            "for number, x in enumerate(inputs) for index in _indices(x)\n",
            "for number, x in enumerate(inputs[:1]) for index in _indices(x)\n",
        ),
        ("tolerance_fixed", "ignores the tolerance", "    if not worst <= tolerance:", "    if not worst <= 1e-6:"),
        (
            "moved",
            "leaves an input where it moved it",
            "        else:\n            data[index] = here\n    y =",
            "        else:\n            data[index] = here + 0.0 * h + (h if here > 0.5 else 0.0)\n    y =",
        ),
        (
            "moved_by_an_error",
            "restores inputs only when nothing is raised",
            "    finally:\n        if node:\n            x.data = here",
            "    except ZeroDivisionError:\n        pass\n    else:\n        if node:\n            x.data = here",
        ),
        (
            "grad_left",
            "leaves the gradients of its own call in the nodes",
            "            for x, gradient in zip(inputs, kept, strict=True):\n                x.grad = gradient\n",
            "            pass\n",
        ),
        (
            "grad_added",
            "does not zero the gradients that it reads",
            "                x.grad = 0.0\n",
            "                pass\n",
        ),
        (
            "wants_left",
            "leaves requires_grad behind",
            "                x.requires_grad_(False)\n",
            "                pass\n",
        ),
        ("cotangent_ignored", "ignores the cotangent", "    return value * cotangent\n", "    return value\n"),
        ("any_dtype", "checks float32", "x.dtype == torch.float64 if tensors", "x.is_floating_point() if tensors"),
        ("noise_is_judged", "judges what is not deterministic", "    if value() != value():", "    if False:"),
        ("expanded", "moves several entries of an expanded input at once", "if tensors and any(", "if False and any("),
        (
            "given_ignored",
            "ignores the gradients that are given",
            "if gradients is None else _given(inputs, gradients)",
            "if True else _given(inputs, gradients)",
        ),
        (
            "detached_passes",
            "passes what has no gradient",
            "    analytic = _own",
            "    if gradients is None and isinstance(inputs[0], Tensor) and not "
            "f(*[x.clone().requires_grad_() for x in inputs]).requires_grad:\n"
            '        return GradientCheck("correct", 0.0, (0, ()))\n'
            "    analytic = _own",
        ),
    )
]
