"""Array conventions at the boundary: a NumPy layer (the oracle, or a learner's) answers tests that speak torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from touchstone.outcomes import Todo


def to_numpy(value: Any) -> Any:
    """Tensors → arrays through containers; floating ones in float64, which holds every narrower format exactly."""
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        return plain.double().numpy() if plain.is_floating_point() else plain.numpy()
    if isinstance(value, dict):
        return {key: to_numpy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [to_numpy(part) for part in value]
        return type(value)(parts) if not hasattr(value, "_fields") else type(value)(*parts)
    return value


def to_torch(value: Any, dtype: Any, device: Any = None) -> Any:
    """Arrays → tensors through containers; floating ones in `dtype`, integers and booleans as they are."""
    import torch

    if isinstance(value, np.ndarray | np.generic):
        tensor = torch.as_tensor(np.array(value))  # a copy: the layer may keep its buffer
        tensor = tensor.to(dtype) if tensor.is_floating_point() and dtype is not None else tensor
        return tensor.to(device) if device is not None else tensor
    if isinstance(value, dict):
        return {key: to_torch(part, dtype, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [to_torch(part, dtype, device) for part in value]
        return type(value)(parts) if not hasattr(value, "_fields") else type(value)(*parts)
    return value


def torch_facing(name: str, function: Callable[..., Any], backward: Callable[..., Any] | None) -> Callable[..., Any]:
    """Let a NumPy `function` be called with tensors.

    It computes in float64 and its floating results come back in the dtype of the first floating tensor.  Where an input
    requires a gradient, `backward(grad, *inputs)` (the gradients of the floating inputs in order) serves autograd; a
    function without one is a todo for that test.
    """
    import torch

    signature = inspect.signature(function)

    def facing(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        floating = [
            key
            for key, value in bound.arguments.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        ]
        first = bound.arguments[floating[0]] if floating else None
        dtype = first.dtype if first is not None else None
        device = first.device if first is not None else None
        tracked = [key for key in floating if bound.arguments[key].requires_grad]
        if not tracked or not torch.is_grad_enabled():
            return to_torch(function(*to_numpy(bound.args), **to_numpy(bound.kwargs)), dtype, device)
        if backward is None:
            raise Todo(f"{name} has no {name.split('.')[-1]}_backward beside it, so it gives no gradient")

        class Through(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *tensors: Any) -> Any:
                return to_torch(function(*to_numpy(bound.args), **to_numpy(bound.kwargs)), dtype, device)

            @staticmethod
            @torch.autograd.function.once_differentiable  # arrays carry no graph
            def backward(ctx: Any, *grads: Any) -> Any:
                cotangent = to_numpy(grads[0] if len(grads) == 1 else grads)
                assert backward is not None
                found = backward(cotangent, *to_numpy(bound.args), **to_numpy(bound.kwargs))
                found = found if isinstance(found, tuple) else (found,)
                given = dict(zip(floating, found, strict=False))
                return tuple(
                    None if given.get(key) is None else to_torch(given[key], bound.arguments[key].dtype, device)
                    for key in floating
                )

        return Through.apply(*(bound.arguments[key] for key in floating))

    facing.__name__ = function.__name__
    facing.__doc__ = function.__doc__
    facing.__wrapped__ = function  # type: ignore[attr-defined]  # signature checks look at the original
    return facing
