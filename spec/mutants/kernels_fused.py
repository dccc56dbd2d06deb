"""What goes wrong in fused operations: what the backward makes again, sums over rows, the second derivative."""

from __future__ import annotations

from touchstone import Mutant

GELU, NORM, MLP = "kernels.fused_bias_gelu", "kernels.fused_add_layer_norm", "kernels.fused_mlp"

_SLOPE = "slope = _aten.gelu_backward(grad.to(z.dtype), z, approximate=ctx.approximate)"
_KEPT = "ctx.save_for_backward(x, fc_weight, proj_weight, hidden)"

MUTANTS = [
    Mutant(f"fused_{name}", target, old, new, says)
    for name, target, old, new, says in [
        (
            "gelu_form_lost",
            GELU,
            _SLOPE,
            _SLOPE.replace("ctx.approximate", "'none'"),
            "takes the exact form's derivative for the one with tanh",
        ),
        (
            "gelu_bias_lost_behind",
            GELU,
            "z = _sum(x, bias)\n",
            "z = x.to(working_dtype(x))\n",
            "forgets the bias in its backward",
        ),
        ("gelu_bias_lost", GELU, "_aten.gelu_(_sum(x, bias),", "_aten.gelu_(_sum(x, bias * 0),", "leaves the bias out"),
        (
            "gelu_in_place",
            GELU,
            "_aten.gelu_(_sum(x, bias), approximate=approximate)",
            "_aten.gelu_(x.add_(bias), approximate=approximate)",
            "writes into x",
        ),
        (
            "gelu_mean_of_rows",
            GELU,
            ".sum(0).to(bias.dtype)",
            ".mean(0).to(bias.dtype)",
            "averages the bias's gradient over rows",
        ),
        (
            "gelu_first_row",
            GELU,
            ".sum(0).to(bias.dtype)",
            "[0].to(bias.dtype)",
            "takes one row's gradient for the bias",
        ),
        (
            "gelu_half",
            GELU,
            "    wide = working_dtype(x)\n",
            "    wide = x.dtype\n",
            "rounds the sum in half precision",
        ),
        (
            "gelu_keeps_more",
            GELU,
            "ctx.save_for_backward(x, bias)",
            "ctx.save_for_backward(torch.cat([x, x])[: len(x)], bias)",
            "keeps a second tensor",
        ),
        (
            "gelu_silent_second",
            GELU,
            "x, bias = ctx.saved_tensors\n",
            "x, bias = (kept.detach() for kept in ctx.saved_tensors)\n",
            "has a second derivative of zero",
        ),
        (
            "norm_stream_gradient_lost",
            NORM,
            "reaching.add_(grad_stream)",
            "reaching",
            "drops what reaches the stream past the norm",
        ),
        (
            "norm_residual_gradient_lost",
            NORM,
            "return both, both, dweight",
            "return both, both * 0, dweight",
            "gives the residual no gradient",
        ),
        ("norm_eps_ignored", NORM, "bias.to(wide), eps)", "bias.to(wide), 1e-5)", "ignores its eps"),
        (
            "norm_residual_lost",
            NORM,
            "stream = (x + residual).contiguous()",
            "stream = (x + residual * 0).contiguous()",
            "leaves the residual out",
        ),
        (
            "norm_in_place",
            NORM,
            "stream = (x + residual).contiguous()",
            "stream = x.add_(residual).contiguous()",
            "adds into x",
        ),
        (
            "norm_one_pass_variance",
            NORM,
            "        return y.to(x.dtype), stream\n",
            "        z = stream.to(wide)\n"
            "        m = z.mean(-1, keepdim=True)\n"
            "        v = (z * z).mean(-1, keepdim=True) - m * m\n"
            "        return ((z - m) * (v + eps).rsqrt() * weight + bias).to(x.dtype), stream\n",
            "takes E[x²] − E[x]² for the variance",
        ),
        (
            "norm_silent_second",
            NORM,
            "weight, bias = ctx.saved_tensors",
            "weight, bias = (kept.detach() for kept in ctx.saved_tensors)",
            "has second derivatives that take the stream for given",
        ),
        (
            "norm_keeps_more",
            NORM,
            "ctx.save_for_backward(stream, mean",
            "ctx.save_for_backward(torch.cat([stream, y])[: len(stream)], mean",
            "keeps what is normalised beside the stream",
        ),
        (
            "norm_broadcasts",
            NORM,
            "    if residual.shape != x.shape:",
            "    if False:",
            "broadcasts a residual without summing its gradient",
        ),
        (
            "mlp_form_lost",
            MLP,
            "_aten.gelu_backward.grad_input(reaching, h, approximate=ctx.form,",
            "_aten.gelu_backward.grad_input(reaching, h, approximate='none',",
            "takes the exact form's derivative for the one with tanh",
        ),
        (
            "mlp_weight_gradient_of_hidden",
            MLP,
            "_add_product(dproj, arriving.mT, _aten.gelu(h, approximate=ctx.form))",
            "_add_product(dproj, arriving.mT, h)",
            "takes the hidden layer before its GELU for the one after",
        ),
        (
            "mlp_last_panel",
            MLP,
            "        total.addmm_(left, right)\n",
            "        total.copy_(left @ right)\n",
            "keeps the last panel's gradient alone",
        ),
        (
            "mlp_bias_of_the_last_panel",
            MLP,
            "dfc_bias.add_(reaching.sum(0, dtype=wide))",
            "dfc_bias.copy_(reaching.sum(0, dtype=wide))",
            "keeps the last panel's gradient of the bias alone",
        ),
        (
            "mlp_rest_dropped",
            MLP,
            "range(0, x.shape[0], _PANEL)]",
            "range(0, max(1, x.shape[0] - _PANEL + 1), _PANEL)]",
            "leaves out rows where panels do not divide them",
        ),
        (
            "mlp_panel_overwritten",
            MLP,
            "h = hidden[panel] if training else hidden[: panel.stop - panel.start]",
            "h = hidden[: panel.stop - panel.start]",
            "keeps one panel of the hidden layer for all rows",
        ),
        (
            "mlp_bias_lost",
            MLP,
            "torch.addmm(proj_bias, activation,",
            "torch.addmm(proj_bias * 0, activation,",
            "leaves the second bias out",
        ),
        (
            "mlp_keeps_both",
            MLP,
            _KEPT,
            _KEPT.replace("hidden", "torch.cat([hidden, hidden])[: len(hidden)]"),
            "keeps the activation too",
        ),
        (
            "mlp_silent_second",
            MLP,
            "    @differentiable_once\n",
            "    @torch.autograd.function.once_differentiable\n",
            "cuts the first derivative off where the gradient that arrives needs none: a second one is zero",
        ),
        (
            "mlp_hidden_kept_without_gradients",
            MLP,
            "rows, training = x.shape[0], any(ctx.needs_input_grad)",
            "rows, training = x.shape[0], True",
            "makes the whole hidden layer where nobody will go back",
        ),
        (
            "mlp_half_sums",
            MLP,
            "        wide = working_dtype(x)\n",
            "        wide = x.dtype\n",
            "sums gradients of weights over rows in half precision",
        ),
    ]
]
