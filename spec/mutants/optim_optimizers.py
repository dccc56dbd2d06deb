"""Mistakes that people make in SGD, RMSprop, Adam and AdamW, and in what optimizers share."""

# ruff: noqa: E501 (patches hold whole lines)
from __future__ import annotations

from touchstone import Mutant

SGD, RMSPROP, ADAM, ADAMW = "optim.SGD", "optim.RMSprop", "optim.Adam", "optim.AdamW"


def of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


_FIRST = "if step == 1:\n"
_NESTEROV = 'g = torch._foreach_add(g, velocity, alpha=momentum) if group["nesterov"] else velocity'
_DESCENT = 'torch._foreach_add_(w, g, alpha=-group["lr"])'
_FAST = "torch.add(gradient, sum_, alpha=momentum, out=sum_)"

_SGD = of(
    SGD,
    ("sgd_dampens_the_first", "dampens the first gradient too", _FIRST, "if step == 0:\n"),
    ("sgd_nesterov_ignored", "takes the heavy ball for Nesterov's", _NESTEROV, "g = velocity"),
    ("sgd_nesterov_always", "takes Nesterov's for the heavy ball", 'if group["nesterov"] else', "if momentum else"),
    ("sgd_nesterov_in_place", "writes Nesterov's sum into .grad", _NESTEROV,
     _NESTEROV.replace("torch._foreach_add(g", "(torch._foreach_add_(g").replace(" if group", ", g)[1] if group")),
    ("sgd_dampening_ignored", "ignores the dampening", 'alpha=1 - group["dampening"]', "alpha=1"),
    ("sgd_dampening_as_factor", "multiplies by the dampening, not by what it leaves",
     'alpha=1 - group["dampening"]', 'alpha=group["dampening"]'),
    ("sgd_averages", "averages gradients where they are summed", _FAST,
     "sum_.mul_(momentum).add_(gradient, alpha=1 - momentum)"),
    ("sgd_rate_in_velocity", "takes the rate into the velocity, so that a schedule acts late", _DESCENT,
     "torch._foreach_add_(w, g, alpha=-self.defaults['lr'])"),
    ("sgd_ascends", "climbs", _DESCENT, _DESCENT.replace("-group", "group")),
    ("sgd_momentum_of_the_defaults", "ignores a group's own momentum", 'momentum = group["momentum"]\n',
     'momentum = self.defaults["momentum"] if state else 0.0\n'),
    ("sgd_decays_after", "takes the decay off after the step", '    torch._foreach_add_(w, g, alpha=-group["lr"])',
     '    torch._foreach_add_(w, g, alpha=-group["lr"])\n        torch._foreach_mul_(w, 1 - group["lr"] * '
     'group["weight_decay"] * 1e-3)'),
    ("sgd_aliases_the_gradient", "keeps the first gradient itself as velocity",
     "torch._foreach_copy_(velocity, g)", "[v.set_(a.clone()).mul_(0.5) for v, a in zip(velocity, g, strict=True)]"),
)  # fmt: skip

_ROOT = "root = torch._foreach_sqrt(square)"
_EPS = 'torch._foreach_add_(root, group["eps"])\n'
_RMS = of(
    RMSPROP,
    ("rms_eps_inside", "adds ε inside of the root", _ROOT,
     'root = torch._foreach_sqrt(torch._foreach_add(square, group["eps"]))\n'
     '            torch._foreach_sub_(root, group["eps"])'),
    ("rms_eps_ignored", "ignores ε", _EPS, "torch._foreach_add_(root, 1e-8)\n"),
    ("rms_no_root", "divides by the mean square itself", _ROOT, "root = torch._foreach_add(square, 0.0)"),
    ("rms_alpha_swapped", "gives the new square the weight of the old ones",
     "torch._foreach_addcmul_(square, g, g, 1 - alpha)", "torch._foreach_addcmul_(square, g, g, alpha)"),
    ("rms_mean_not_squared", "centres with the mean, not its square",
     "torch._foreach_addcmul(square, mean, mean, -1)", "torch._foreach_sub(square, mean)"),
    ("rms_centred_ignored", "does not centre", 'if group["centered"]:', 'if group["centered"] is None:'),
    ("rms_centre_kept", "takes the mean out of the running square for good",
     "root = torch._foreach_addcmul(square, mean, mean, -1)",
     "torch._foreach_addcmul_(square, mean, mean, -1)\n            root = torch._foreach_add(square, 0.0)"),
    ("rms_below_zero", "takes the root of what rounding left below 0",
     "            torch._foreach_clamp_min_(root, 0.0)  # of a constant gradient it is 0 give or take a rounding\n", ""),
    ("rms_momentum_averages", "averages steps where they are summed",
     "torch._foreach_addcdiv_(velocity, g, root)", 'torch._foreach_addcdiv_(velocity, g, root, 1 - group["momentum"])'),
    ("rms_corrects_bias", "corrects the bias of its mean square as Adam does", _ROOT,
     "root = torch._foreach_sqrt(torch._foreach_div(square, 1 - alpha**step))"),
)  # fmt: skip

_STEP = 'torch._foreach_addcdiv_(w, m, root, -group["lr"] * correction / (1 - beta1**step))'
_CORRECTION = "correction = math.sqrt(1 - beta2**step)"
_ADAM_EPS = 'torch._foreach_add_(root, group["eps"] * correction)'
_PENALTY = 'g = torch._foreach_add(g, w, alpha=group["weight_decay"])\n        self._adapt'
_ADAM = of(
    ADAM,
    ("adam_uncorrected", "does not correct for the first steps", _STEP,
     'torch._foreach_addcdiv_(w, m, root, -group["lr"])'),
    ("adam_counts_from_zero", "corrects by one step too few, from the second on", _CORRECTION,
     "step = max(step - 1, 1)\n        " + _CORRECTION),
    ("adam_counts_from_two", "corrects by one step too many", _CORRECTION,
     "step += 1\n        " + _CORRECTION),
    ("adam_first_moment_uncorrected", "corrects the second moment only", "correction / (1 - beta1**step))",
     "correction)"),
    ("adam_eps_unscaled", "adds ε before the correction: the paper's efficient order without its ε̂", _ADAM_EPS,
     'torch._foreach_add_(root, group["eps"])'),
    ("adam_eps_inside", "adds ε inside of the root", _ADAM_EPS,
     'torch._foreach_copy_(root, torch._foreach_sqrt(torch._foreach_add(v, group["eps"] * correction**2)))'),
    ("adam_betas_swapped", "swaps its betas", 'beta1, beta2 = group["betas"]', 'beta2, beta1 = group["betas"]'),
    ("adam_betas_of_the_defaults", "ignores a group's own betas", 'beta1, beta2 = group["betas"]',
     "beta1, beta2 = 0.9, 0.999"),
    ("adam_absolute_value", "keeps the mean magnitude for the mean square", "torch._foreach_sqrt(v)",
     "torch._foreach_add(v, 0.0)"),
    ("adam_amsgrad_ignored", "ignores amsgrad", "if largest:", "if largest is None:"),
    ("adam_amsgrad_into_v", "writes the maximum into the running mean itself",
     "v = largest[0]\n", "v.copy_(largest[0]) if False else torch._foreach_copy_(v, largest[0])\n            "
     "v = largest[0]\n"),
    ("adam_decoupled", "takes the decay off the weight, as AdamW does", _PENALTY,
     'torch._foreach_mul_(w, 1 - group["lr"] * group["weight_decay"])\n        self._adapt'),
    ("adam_decay_in_place", "adds the penalty into .grad", _PENALTY,
     'torch._foreach_add_(g, w, alpha=group["weight_decay"])\n        self._adapt'),
    ("adam_momentum_of_the_square", "squares the mean gradient, not the gradient",
     "torch._foreach_addcmul_(v, g, g, 1 - beta2)", "torch._foreach_addcmul_(v, m, m, 1 - beta2)"),
    ("adam_rate_of_the_defaults", "ignores a group's own rate, and every schedule", _STEP,
     _STEP.replace('-group["lr"]', '-self.defaults["lr"]')),
)  # fmt: skip

_DECAY = 'torch._foreach_mul_(w, 1 - group["lr"] * group["weight_decay"])'
_ADAMW = of(
    ADAMW,
    ("adamw_folds_decay_in", "adds the decay to the gradient, as Adam does", _DECAY,
     'g = torch._foreach_add(g, w, alpha=group["weight_decay"])'),
    ("adamw_decay_without_rate", "takes off λ, not lr · λ", _DECAY,
     'torch._foreach_mul_(w, 1 - group["weight_decay"])'),
    ("adamw_no_decay", "does not decay", _DECAY, "torch._foreach_mul_(w, 1.0)"),
    ("adamw_first_rate", "decays by the rate it was built with, whatever a schedule says", _DECAY,
     _DECAY.replace('group["lr"]', 'self.defaults["lr"]')),
    ("adamw_decay_grows", "grows weights", _DECAY, _DECAY.replace("1 - group", "1 + group")),
    ("adamw_one_decay", "ignores a group's own decay", _DECAY,
     _DECAY.replace('group["weight_decay"]', 'self.defaults["weight_decay"]')),
    ("adamw_default_decay", "has the L2 penalty's default, no decay", "weight_decay: float = 0.01",
     "weight_decay: float = 0.0"),
    ("adamw_default_rate", "has Adam's default rate", "lr: float = 3e-4", "lr: float = 1e-3"),
    ("adamw_rate_once_more", "multiplies the decay by the rate twice", _DECAY,
     _DECAY.replace('group["lr"] *', 'group["lr"] ** 2 *')),
)  # fmt: skip

_GRADIENT_MISSING = "            if gradient is None:\n                continue\n"
_COUNT = 'state["step"] = step = int(state.get("step", 0)) + 1'
_SHARED = of(
    ADAM,
    ("base_counts_missing", "counts a step for a parameter without a gradient", _GRADIENT_MISSING,
     '            if gradient is None:\n                if parameter in self.state:\n'
     '                    self.state[parameter]["step"] += 1\n                continue\n'),
    ("base_zero_for_missing", "takes a missing gradient for zero", _GRADIENT_MISSING,
     "            if gradient is None:\n                gradient = torch.zeros_like(parameter)\n"),
    ("base_state_for_missing", "makes state for a parameter that never had a gradient", _GRADIENT_MISSING,
     '            if gradient is None:\n                self.state[parameter].setdefault("step", 0)\n'
     "                continue\n"),
    ("base_one_step_for_all", "counts steps for all parameters together", _COUNT,
     'state["step"] = step = max([0] + [s["step"] for s in self.state.values() if "step" in s '
     "and s is not state]) or 1"),
    ("base_shared_state", "gives parameters of one shape the same moments", "state = self.state[parameter]\n",
     "state = self.state[parameter]\n            for other in self.state:\n"
     "                if other.shape == parameter.shape and self.state[other]:\n"
     "                    state = self.state[other]\n                    break\n"),
    ("base_policy_ignored", "raises where it is to skip", 'if self.param_groups[place]["non_finite"] == "raise":',
     "if True:"),
    ("base_always_skips", "skips in silence where it is to raise",
     'if self.param_groups[place]["non_finite"] == "raise":', "if False:"),
    ("base_skip_not_counted", "does not count what it skipped", "self.skipped += 1", "self.skipped += 0"),
    ("base_looks_at_first_group", "looks for non-finite gradients in the first group only",
     "present = [gradient for its in gradients for", "present = [gradient for its in gradients[:1] for"),
    ("base_overflow_is_infinite", "takes a norm that overflows for a gradient that is not finite",
     "            for name, value in not_finite(named):",
     '            for name, value in [(named[-1][0], float("nan"))]:'),
    ("base_never_looks", "does not look at its gradients", "if self._refuses(gradients):",
     "if self._refuses([[] for _ in gradients]):"),
    ("base_no_closure_gradient", "calls the closure without gradients", "with torch.enable_grad():",
     "with torch.no_grad():"),
    ("base_loss_lost", "does not give the closure's loss back", "                    torch._foreach_copy_(lists[0],"
     " wide[0])\n        return loss", "                    torch._foreach_copy_(lists[0], wide[0])\n"
     "        return None"),
    ("base_half_state", "keeps the state in half precision",
     "dtype = torch.float32 if parameter.dtype in _HALF else parameter.dtype\n                    state[name]",
     "dtype = parameter.dtype\n                    state[name]"),
    ("base_half_lost", "updates a copy of a half-precision parameter", "torch._foreach_copy_(lists[0], wide[0])",
     "torch._foreach_copy_(wide[0], lists[0])"),
    ("base_state_aliased", "goes on in the tensors of the state dict it was given", "dtype, copy=True)", "dtype)"),
    ("base_load_casts", "rounds a loaded state to half precision",
     "dtype = torch.float32 if parameter.dtype in _HALF else parameter.dtype\n"
     "                    self.state[parameter][name]",
     "value = value.to(parameter.dtype)\n                    dtype = torch.float32 if parameter.dtype in _HALF "
     "else parameter.dtype\n                    self.state[parameter][name]"),
    ("base_shapes_unchecked", "loads state of other shapes", "if state[key].shape != parameter.shape:", "if False:"),
    ("base_twice", "takes a parameter twice", "if len({id(tensor) for tensor in tensors}) < len(tensors):",
     "if False:"),
    ("base_tail_lost", "leaves out what does not fill a block", "    if waiting:\n        yield", "    if False:\n        yield"),
    ("base_strided_as_flat", "reads a transposed parameter in the order of its memory",
     "if row[0].numel() > most and all(tensor.is_contiguous() for tensor in row):",
     "if not all(tensor.is_contiguous() for tensor in row) and row[0].numel() > 1:\n"
     "            yield [[tensor.as_strided((tensor.numel(),), (1,))] if tensor.untyped_storage().nbytes() >= "
     "tensor.numel() * tensor.element_size() else [tensor.flatten()] for tensor in row]\n            continue\n"
     "        if row[0].numel() > most and all(tensor.is_contiguous() for tensor in row):"),
    ("base_beta_of_one", "accepts a beta of 1", '"betas": (lambda value: 0 <= value < 1,',
     '"betas": (lambda value: 0 <= value <= 1,'),
    ("base_eps_zero", "accepts ε = 0", '"eps": (lambda value: 0 < value', '"eps": (lambda value: 0 <= value'),
    ("base_negative_rate", "accepts a negative rate", '"lr": (lambda value: 0 <= value', '"lr": (lambda value: -1 <= value'),
    ("base_nan_decay", "accepts a decay that is no number",
     '"weight_decay": (lambda value: 0 <= value < math.inf', '"weight_decay": (lambda value: not value < 0'),
    ("base_group_unchecked", "does not check what a group says of itself",
     '_check_options({**self.defaults, **param_group}, f"group', '_check_options(self.defaults, f"group'),
)  # fmt: skip

MUTANTS = [*_SGD, *_RMS, *_ADAM, *_ADAMW, *_SHARED]
