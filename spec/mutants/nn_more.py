"""Mistakes that slipped through the first checks of `nn`: square shapes, modes, mixed precision, aliases."""

from __future__ import annotations

from touchstone import Mutant

LOSS, NORM, BACKWARD, MODULE = "nn.cross_entropy", "nn.layer_norm", "nn.layer_norm_backward", "nn.LayerNorm"

MUTANTS = [
    Mutant(
        "layer_norm_without_gradient_in_evaluation",
        MODULE,
        old="return layer_norm(x, self.weight, self.bias, self.eps)",
        new="y = layer_norm(x, self.weight, self.bias, self.eps)\n        return y if self.training else y.detach()",
        says="gives no gradient in evaluation mode",
    ),
    Mutant(
        "layer_norm_weight_in_the_inputs_dtype",
        MODULE,
        old="return layer_norm(x, self.weight, self.bias, self.eps)",
        new="return layer_norm(x, self.weight.to(x.dtype), self.bias, self.eps)",
        says="rounds float32 parameters to the half precision of its input",
    ),
    Mutant(
        "cross_entropy_guesses_the_class_dimension",
        LOSS,
        old="log_total = z.exp().sum(-1).log_()",
        new="log_total = z.exp().sum(1 if z.ndim == 3 and z.shape[1] == z.shape[2] else -1).log()",
        says="takes dimension 1 for the classes where it has their size, as torch does",
    ),
    Mutant(
        "cross_entropy_takes_booleans",
        LOSS,
        old=" or targets.dtype == torch.bool:",
        new=":",
        says="takes a mask for targets: True is class 1",
    ),
    Mutant(
        "cross_entropy_hides_the_cost_of_impossible_classes",
        LOSS,
        old="surprise = log_total.unsqueeze(-1) - z",
        new="surprise = (log_total.unsqueeze(-1) - z).nan_to_num(posinf=0.0)",
        says="lets classes of −∞ cost nothing under label smoothing",
    ),
    Mutant(
        "layer_norm_refuses_eps_zero",
        NORM,
        old="    check_floating(x)\n    if eps < 0:",
        new="    check_floating(x)\n    if eps <= 0:",
        says="refuses ε = 0",
    ),
    Mutant(
        "layer_norm_backward_in_the_dtype_of_x",
        BACKWARD,
        old="dtype = x.dtype if weight is None else weight.dtype",
        new="dtype = x.dtype",
        says="gives the gradients of float32 parameters in the half precision of x",
    ),
    Mutant(
        "layer_norm_backward_returns_the_gradient_itself",
        BACKWARD,
        old="g.clone()",
        new="g",
        says="returns the very tensor it was given as the gradient of the bias, where there is no batch to sum",
    ),
]
