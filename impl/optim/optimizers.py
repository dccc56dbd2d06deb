"""SGD, RMSprop, Adam and AdamW: one base for groups, state and refusals, then each update as its source prints it.

An update works on lists of tensors (`torch._foreach_*`); on a CPU in blocks that stay in the cache from its first pass
to its last, which is what makes it faster than the same passes over whole lists.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from impl.optim.finite import not_finite

_HALF = (torch.float16, torch.bfloat16)

#: Option → (whether a value is in its range, the range in words).
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda value: 0 <= value < math.inf, "must lie in [0, ∞)"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "must lie in [0, ∞)"),
    "momentum": (lambda value: 0 <= value < math.inf, "must lie in [0, ∞)"),
    "dampening": (lambda value: 0 <= value <= 1, "must lie in [0, 1]"),
    "alpha": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
    "betas": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
    "eps": (lambda value: 0 < value < math.inf, "must lie in (0, ∞)"),
}

Lists = list[list[Tensor]]
Tensors = list[Tensor] | tuple[Tensor, ...]


class GroupOptimizer(torch.optim.Optimizer):
    """What the optimizers share; an optimizer adds `_state_names` and `_update`.

    Schedulers, hooks and `state_dict` are torch's.  The state of a parameter is made at its first gradient: `step`, how
    many updates it has had, and the tensors that `_state_names` names, in float32 where the parameter is in half
    precision, whose update is computed in float32 and rounded once.
    """

    #: On a CPU an update works on this many numbers at a time, so that what it allocates in between stays in the cache
    #: and is not asked of the system anew: twice as fast for Adam.  None where nothing is allocated.
    block: int | None = 1 << 17
    skipped = 0  # updates left out because of a non-finite gradient

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; ValueError where an option is out of its range or a parameter comes twice."""
        given = param_group["params"]
        if not isinstance(given, Tensor | set):
            given = list(given)
            tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in given]
            if len({id(tensor) for tensor in tensors}) < len(tensors):
                raise ValueError(f"group {len(self.param_groups)} holds a parameter twice")
            for entry, tensor in zip(given, tensors, strict=True):
                if isinstance(tensor, Tensor) and not tensor.is_floating_point():
                    name = repr(entry[0]) if isinstance(entry, tuple) else "a parameter"
                    raise TypeError(f"{name} is {tensor.dtype}: only real floating-point numbers are optimised")
        _check_options({**self.defaults, **param_group}, f"group {len(self.param_groups)}")
        super().add_param_group({**param_group, "params": given})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        if self._refuses(gradients):
            self.skipped += 1
            return loss
        for group, its in zip(self.param_groups, gradients, strict=True):
            for (_, dtype, step), rows in self._buckets(group, its).items():
                for lists in _blocks(rows, self.block):
                    if dtype not in _HALF:
                        self._update(group, step, *lists)
                        continue
                    wide = [[tensor.float() for tensor in tensors] for tensors in lists[:2]]
                    self._update(group, step, *wide, *lists[2:])
                    torch._foreach_copy_(lists[0], wide[0])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict()`; ValueError where it is not one of this optimizer's, before anything moves."""
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError(f"state dict: it has {len(saved)} groups, the optimizer has {len(self.param_groups)}")
        loaded = []
        for place, (group, other) in enumerate(zip(self.param_groups, saved, strict=True)):
            if len(other["params"]) != len(group["params"]):
                counts = f"{len(other['params'])} parameters, the optimizer's has {len(group['params'])}"
                raise ValueError(f"state dict: group {place} has {counts}")
            if missing := sorted(self.defaults.keys() - other.keys()):
                raise ValueError(f"state dict: group {place} has no {', '.join(missing)}")
            _check_options(other, f"state dict: group {place}")
            for index, (key, parameter) in enumerate(zip(other["params"], group["params"], strict=True)):
                state = state_dict["state"].get(key)
                if state:
                    self._check_state(state, other, parameter, self._name(place, index))
                    loaded.append((parameter, state))
        super().load_state_dict(state_dict)
        for parameter, state in loaded:  # torch has cast it to the parameter's dtype, or holds the very tensors
            for name, value in state.items():
                if isinstance(value, Tensor) and name != "step":
                    dtype = torch.float32 if parameter.dtype in _HALF else parameter.dtype
                    self.state[parameter][name] = value.detach().to(parameter.device, dtype, copy=True)

    def _state_names(self, group: dict[str, Any]) -> list[str]:
        """The tensors that a parameter of this group keeps, in the order in which `_update` takes them."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any], step: int, w: list[Tensor], g: Tensors, *state: list[Tensor]) -> None:
        """Change `w` and `state`, and leave `g` alone; `step` counts from 1."""
        raise NotImplementedError

    def _buckets(
        self, group: dict[str, Any], gradients: list[Tensor | None]
    ) -> dict[tuple[torch.device, torch.dtype, int], Lists]:
        """Rows (parameter, gradient, state …) that one update can take together: one bias correction for all."""
        names = self._state_names(group)
        buckets: dict[tuple[torch.device, torch.dtype, int], Lists] = defaultdict(list)
        for parameter, gradient in zip(group["params"], gradients, strict=True):
            if gradient is None:
                continue
            state = self.state[parameter]
            for name in names:
                if name not in state:
                    dtype = torch.float32 if parameter.dtype in _HALF else parameter.dtype
                    state[name] = torch.zeros_like(parameter, dtype=dtype)
            state["step"] = step = int(state.get("step", 0)) + 1
            row = [parameter, gradient, *[state[name] for name in names]]
            buckets[parameter.device, parameter.dtype, step].append(row)
        return buckets

    def _refuses(self, gradients: list[list[Tensor | None]]) -> bool:
        """Whether this update is to be skipped; ValueError where a gradient is not finite and its group says so."""
        present = [gradient for its in gradients for gradient in its if gradient is not None]
        devices = {gradient.device for gradient in present}
        sparse = any(gradient.is_sparse for gradient in present)
        if not sparse and all(_finite_norms(present, device) for device in devices):
            return False
        wrong = False
        for place, its in enumerate(gradients):
            named = [(self._name(place, index), gradient) for index, gradient in enumerate(its) if gradient is not None]
            for name, gradient in named:
                if gradient.is_sparse:
                    raise TypeError(f"the gradient of {name} is {gradient.layout}: it must be dense")
            for name, value in not_finite(named):
                if self.param_groups[place]["non_finite"] == "raise":
                    raise ValueError(f"the gradient of {name} is not finite: {value}; no parameter was changed")
                wrong = True
        return wrong

    def _name(self, place: int, index: int) -> str:
        names = self.param_groups[place].get("param_names")
        return repr(names[index]) if names else f"parameter {index} of group {place}"

    def _check_state(self, state: dict[str, Any], group: dict[str, Any], parameter: Tensor, name: str) -> None:
        if missing := sorted({"step", *self._state_names(group)} - state.keys()):
            raise ValueError(f"state dict: {name} has no {', '.join(missing)}")
        for key in self._state_names(group):
            if state[key].shape != parameter.shape:
                shapes = f"{tuple(state[key].shape)}, the parameter is {tuple(parameter.shape)}"
                raise ValueError(f"state dict: {key} of {name} is {shapes}")


def _check_options(options: dict[str, Any], where: str) -> None:
    """ValueError, or TypeError where it is not a number, for an option out of its range."""
    for name, (within, words) in _RANGES.items():
        if name not in options:
            continue
        if name == "betas" and not (isinstance(options[name], tuple | list) and len(options[name]) == 2):
            raise ValueError(f"{where}: betas must be two numbers, got {options[name]!r}")
        for value in options[name] if name == "betas" else [options[name]]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{where}: {name} must be a number, got {value!r}")
            if not within(value):
                raise ValueError(f"{where}: {name} {words}, got {options[name]!r}")
    if options.get("nesterov") and not (options["momentum"] > 0 and options["dampening"] == 0):
        told = f"momentum = {options['momentum']} and dampening = {options['dampening']}"
        raise ValueError(f"{where}: nesterov needs momentum above 0 and no dampening, got {told}")
    if options["non_finite"] not in ("raise", "skip"):
        raise ValueError(f"{where}: non_finite must be 'raise' or 'skip', got {options['non_finite']!r}")


def _finite_norms(gradients: list[Tensor], device: torch.device) -> bool:
    """Whether each gradient on a device has a finite norm: one call for all, one number brought back."""
    norms = torch._foreach_norm([gradient for gradient in gradients if gradient.device == device])
    return bool(torch.stack(norms).isfinite().all())


def _blocks(rows: Lists, most: int | None) -> Iterator[Lists]:
    """The rows as lists (parameters, gradients, state …), on a CPU of about `most` numbers at a time."""
    if most is None or rows[0][0].device.type != "cpu":
        yield [list(column) for column in zip(*rows, strict=True)]
        return
    waiting, size = [], 0
    for row in rows:
        if row[0].numel() > most and all(tensor.is_contiguous() for tensor in row):
            for parts in zip(*(tensor.view(-1).split(most) for tensor in row), strict=True):
                yield [[part] for part in parts]
            continue
        waiting.append(row)
        size += row[0].numel()
        if size >= most:
            yield [list(column) for column in zip(*waiting, strict=True)]
            waiting, size = [], 0
    if waiting:
        yield [list(column) for column in zip(*waiting, strict=True)]


class SGD(GroupOptimizer):
    """Gradient descent with a heavy ball or Nesterov's, in the form of Sutskever et al. 2013 as torch has it."""

    block = None

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        non_finite: str = "raise",
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, options | {"nesterov": nesterov, "non_finite": non_finite})

    def _state_names(self, group: dict[str, Any]) -> list[str]:
        return ["momentum_buffer"] if group["momentum"] else []

    def _update(self, group: dict[str, Any], step: int, w: list[Tensor], g: Tensors, *state: list[Tensor]) -> None:
        momentum = group["momentum"]
        if group["weight_decay"]:
            g = torch._foreach_add(g, w, alpha=group["weight_decay"])
        if momentum:
            (velocity,) = state
            if step == 1:
                torch._foreach_copy_(velocity, g)  # the first gradient is not dampened
            elif not group["dampening"] and w[0].is_cpu:
                for gradient, sum_ in zip(g, velocity, strict=True):  # one pass where a list would take two
                    torch.add(gradient, sum_, alpha=momentum, out=sum_)
            else:
                torch._foreach_mul_(velocity, momentum)
                torch._foreach_add_(velocity, g, alpha=1 - group["dampening"])
            g = torch._foreach_add(g, velocity, alpha=momentum) if group["nesterov"] else velocity
        torch._foreach_add_(w, g, alpha=-group["lr"])


class RMSprop(GroupOptimizer):
    """Tieleman and Hinton 2012, lecture 6e; centred as in Graves 2013, equations (38) to (45), ε outside the root."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        non_finite: str = "raise",
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, options | {"centered": centered, "non_finite": non_finite})

    def _state_names(self, group: dict[str, Any]) -> list[str]:
        wanted = [("square_avg", True), ("grad_avg", group["centered"]), ("momentum_buffer", group["momentum"])]
        return [name for name, needed in wanted if needed]

    def _update(self, group: dict[str, Any], step: int, w: list[Tensor], g: Tensors, *state: list[Tensor]) -> None:
        kept = dict(zip(self._state_names(group), state, strict=True))
        alpha, square = group["alpha"], kept["square_avg"]
        if group["weight_decay"]:
            g = torch._foreach_add(g, w, alpha=group["weight_decay"])
        torch._foreach_mul_(square, alpha)
        torch._foreach_addcmul_(square, g, g, 1 - alpha)
        if group["centered"]:
            mean = kept["grad_avg"]
            torch._foreach_lerp_(mean, g, 1 - alpha)
            root = torch._foreach_addcmul(square, mean, mean, -1)
            torch._foreach_clamp_min_(root, 0.0)  # of a constant gradient it is 0 give or take a rounding
            torch._foreach_sqrt_(root)
        else:
            root = torch._foreach_sqrt(square)
        torch._foreach_add_(root, group["eps"])
        if group["momentum"]:
            velocity = kept["momentum_buffer"]
            torch._foreach_mul_(velocity, group["momentum"])
            torch._foreach_addcdiv_(velocity, g, root)
            torch._foreach_add_(w, velocity, alpha=-group["lr"])
        else:
            torch._foreach_addcdiv_(w, g, root, -group["lr"])


class Adam(GroupOptimizer):
    """Kingma and Ba 2015, algorithm 1; AMSGrad as torch has it (Reddi et al. 2018).

    m̂ / (√v̂ + ε) is computed as m √(1 − β₂ᵗ)/(1 − β₁ᵗ) / (√v + ε √(1 − β₂ᵗ)): the same number, one pass less.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        non_finite: str = "raise",
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, options | {"amsgrad": amsgrad, "non_finite": non_finite})

    def _state_names(self, group: dict[str, Any]) -> list[str]:
        return ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"][: 3 if group["amsgrad"] else 2]

    def _update(self, group: dict[str, Any], step: int, w: list[Tensor], g: Tensors, *state: list[Tensor]) -> None:
        if group["weight_decay"]:
            g = torch._foreach_add(g, w, alpha=group["weight_decay"])
        self._adapt(group, step, w, g, *state)

    def _adapt(self, group: dict[str, Any], step: int, w: list[Tensor], g: Tensors, *state: list[Tensor]) -> None:
        m, v, *largest = state
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(m, g, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        if largest:
            torch._foreach_maximum_(largest[0], v)
            v = largest[0]
        correction = math.sqrt(1 - beta2**step)
        root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, group["eps"] * correction)
        torch._foreach_addcdiv_(w, m, root, -group["lr"] * correction / (1 - beta1**step))


class AdamW(Adam):
    """Adam with the decay taken off the weight itself, never through the moments (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        non_finite: str = "raise",
    ) -> None:
        kept = {"weight_decay": weight_decay, "amsgrad": amsgrad, "non_finite": non_finite}
        super().__init__(params, lr, betas=betas, eps=eps, **kept)  # type: ignore[arg-type]

    def _update(self, group: dict[str, Any], step: int, w: list[Tensor], g: Tensors, *state: list[Tensor]) -> None:
        if group["weight_decay"]:
            torch._foreach_mul_(w, 1 - group["lr"] * group["weight_decay"])
        self._adapt(group, step, w, g, *state)
