"""Mistakes that slipped through the first checks of `numerics`: second derivatives, dimensions of one, exact edges."""

from __future__ import annotations

from touchstone import Mutant

SOFTMAX, LSE = "numerics.softmax", "numerics.logsumexp"
HISTOGRAM, DIFFERENCE = "numerics.error_histogram", "numerics.finite_difference"

MUTANTS = [
    Mutant(
        "softmax_backward_without_graph",
        SOFTMAX,
        old="        return softmax_backward(grad, p, ctx.dim), None",
        new="        with torch.no_grad():\n            return softmax_backward(grad, p, ctx.dim), None",
        says="runs its backward without autograd: in a Hessian its terms are silently missing",
    ),
    Mutant(
        "logsumexp_detached_softmax",
        LSE,
        old="return (grad.unsqueeze(ctx.dim) * p).to(x.dtype), None",
        new="return (grad.unsqueeze(ctx.dim) * p.detach()).to(x.dtype), None",
        says="takes the softmax in its backward for a constant: the gradient is right, the second derivative is not",
    ),
    Mutant(
        "softmax_of_a_single_row_flattened",
        SOFTMAX,
        old="return _Softmax.apply(x, dim)",
        new="return _Softmax.apply(x.flatten(), 0).view(x.shape) if x.shape[0] == 1 else _Softmax.apply(x, dim)",
        says="squeezes a batch of one away and normalises over everything that is left",
    ),
    Mutant(
        "softmax_backward_in_the_gradients_dtype",
        "numerics.softmax_backward",
        old="return (g - inner).mul_(p).to(probabilities.dtype)",
        new="return (g - inner).mul_(p).to(grad.dtype)",
        says="gives its result in the dtype of the gradient, not of the probabilities",
    ),
    Mutant(
        "histogram_ignores_what_is_not_finite_in_the_differences",
        HISTOGRAM,
        old="error = error.masked_fill(~(a.isfinite() & n.isfinite()), torch.inf)",
        new="error = error.masked_fill(~a.isfinite(), torch.inf)",
        says="looks for NaN and infinity in the analytic gradient only",
    ),
    Mutant(
        "histogram_takes_equal_infinities_for_agreement",
        HISTOGRAM,
        old="error = error.masked_fill(~(a.isfinite() & n.isfinite()), torch.inf)",
        new="error = error.masked_fill(~(a.isfinite() & n.isfinite()), torch.inf).masked_fill(a == n, 0.0)",
        says="takes two infinities of one sign for an entry that agrees",
    ),
    Mutant(
        "histogram_floor_of_nan",
        HISTOGRAM,
        old="n.abs().masked_fill(~n.isfinite(), 0.0).max()",
        new="n.abs().max()",
        says="lets one NaN or infinity into the scale that every other entry is judged by",
    ),
    Mutant(
        "histogram_bins_closed_on_the_right",
        HISTOGRAM,
        old="right=True)",
        new="right=False)",
        says="puts an error that is exactly a power of ten into the bin below it",
    ),
    Mutant(
        "histogram_verdict_is_strict",
        HISTOGRAM,
        old="worst <= tolerance",
        new="worst < tolerance",
        says="fails an error of exactly the tolerance",
    ),
    Mutant(
        "histogram_in_the_dtype_of_its_inputs",
        HISTOGRAM,
        old="a, n = analytic.detach().double().flatten(), numeric.detach().double().flatten()",
        new="a, n = analytic.detach().flatten(), numeric.detach().flatten()",
        says="forms its errors in the dtype of the gradients, which rounds them",
    ),
    Mutant(
        "histogram_tolerance_of_nan",
        HISTOGRAM,
        old="if not tolerance > 0:",
        new="if tolerance <= 0:",
        says="accepts a tolerance that is NaN, which nothing meets",
    ),
    Mutant(
        "histogram_of_integers",
        HISTOGRAM,
        old='    check_floating(numeric, "numeric")\n',
        new="",
        says="takes integers for finite differences",
    ),
    Mutant(
        "difference_step_shrinks_to_nothing",
        DIFFERENCE,
        old="h = _BALANCE * max(1.0, abs(here)) if step is None else step",
        new="h = _BALANCE * max(abs(here), 1e-8) if step is None else step",
        says="makes its default step a share of the entry: near zero it is all rounding",
    ),
]
