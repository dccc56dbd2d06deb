"""A failed check, kept so that it can be run again: the inputs in a file, and what to paste into Python."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from touchstone.judgement.calls import Call, build, copy_tensor, dtype_name, invoke, leaves, same_values
from touchstone.judgement.numerics import plain

_FORMAT = 1

# Marks a result that was computed with gradients asked for: another road in many implementations.
AGAIN = " (with gradients)"


@dataclass(frozen=True)
class Case:
    """A call with what the oracle makes of it: the truth and the allowed error of each result, gradients included.

    cotangent: path of a result → the tensor that its gradient check multiplied it by; empty without gradients.
    names: what the oracle calls the positional inputs.
    """

    name: str
    layers: str
    call: Call
    want: dict[str, np.ndarray] = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    cotangent: dict[str, torch.Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def run(self, subject: Any) -> dict[str, Any]:
        """Everything the check looked at: results by path, and gradients as "gradient of NAME"."""
        return observe(subject, self.call, self.cotangent, self.names)[0]

    def report(self, subject: Any) -> str:
        """Run and compare: one line a result with its error, what was allowed, and the worst element."""
        found = self.run(subject)
        lines = []
        for label, want in self.want.items():
            if found.get(label) is None:
                lines.append(f"{label}: missing")
                continue
            got = plain(found[label])
            if got.shape != want.shape:
                lines.append(f"{label}: shape {got.shape}, not {want.shape}")
                continue
            with np.errstate(all="ignore"):
                error = np.where(got == want, 0.0, np.abs(got.astype(np.float64) - want.astype(np.float64)))
            if not error.size:
                continue
            worst = np.unravel_index(int(np.argmax(np.where(np.isnan(error), np.inf, error))), error.shape)
            at = [int(index) for index in worst]
            lines.append(
                f"{label}: error {error[worst]:.4g}, allowed {self.allowed.get(label, 0.0):.4g}, "
                f"at {at} got {got[worst]:.8g}, want {want[worst]:.8g}"
            )
        return "\n".join(lines)


def observe(
    subject: Any, call: Call, cotangent: dict[str, torch.Tensor] | None = None, names: list[str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Results by path and, with a cotangent, gradients of every floating positional input and every parameter.

    Works on copies of the tensors; the second value names those that the subject changed. A gradient that autograd does
    not have is None. names: what to call the positional inputs.
    """
    copies = call.map(copy_tensor)
    thing = build(subject, copies)
    found = dict(leaves(invoke(thing, copies), "result"))
    pairs = zip(call.tensors(), copies.tensors(), strict=True)
    changed = [name for (name, kept), (_, used) in pairs if not same_values(kept, used)]
    if cotangent:
        found |= _gradients(subject, call, cotangent, names or [])
    return found, changed


def _gradients(subject: Any, call: Call, cotangent: dict[str, torch.Tensor], names: list[str]) -> dict[str, Any]:
    copies = call.map(copy_tensor)
    thing = build(subject, copies)
    wanted: dict[str, torch.Tensor] = {}
    for position, (path, leaf) in enumerate(leaves(copies.inputs)):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            wanted[names[position] if position < len(names) else f"inputs{path}"] = leaf.requires_grad_(True)
    if isinstance(thing, torch.nn.Module):
        wanted |= {name: value for name, value in thing.named_parameters() if value.requires_grad}
    result = dict(leaves(invoke(thing, copies), "result"))
    outputs = [(value, cotangent[path]) for path, value in result.items() if path in cotangent]
    connected = [(value, weight) for value, weight in outputs if value.requires_grad]
    if not connected or not wanted:
        return {f"gradient of {name}": None for name in wanted}
    gradients = torch.autograd.grad(
        [value for value, _ in connected],
        list(wanted.values()),
        [weight for _, weight in connected],
        allow_unused=True,
    )
    return {f"gradient of {name}": value for name, value in zip(wanted, gradients, strict=True)} | {
        f"{path}{AGAIN}": value.detach() for path, value in result.items() if path in cotangent
    }


# Files ---------------------------------------------------------------------------------------------------------------


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A JSON description of `value`, its tensors moved into `arrays`; strides are kept, gaps become copies."""
    if isinstance(value, torch.Tensor):
        key = f"t{len(arrays)}"
        plain = value.detach().cpu().contiguous()
        arrays[key] = (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()
        strides = list(value.stride())
        return {"tensor": key, "dtype": dtype_name(plain.dtype), "strides": strides, "device": str(value.device)}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, arrays), _pack(part, arrays)] for key, part in value.items()]}
    if isinstance(value, (tuple, list)):
        return {type(value).__name__ if type(value) is list else "tuple": [_pack(part, arrays) for part in value]}
    if isinstance(value, torch.dtype):
        return {"torch_dtype": dtype_name(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a configuration: its fields are what counts
        return {"record": {one.name: _pack(getattr(value, one.name), arrays) for one in dataclasses.fields(value)}}
    if isinstance(value, float):
        return {"float": value.hex()}  # exact, and holds infinities
    if value is None or isinstance(value, (bool, int, str)):
        return {"plain": value}
    raise TypeError(f"a {type(value).__name__} cannot be written to a file for replay: {value!r}")


def _unpack(packed: Any, arrays: Any) -> Any:
    if "tensor" in packed:
        tensor = torch.from_numpy(np.array(arrays[packed["tensor"]]))
        tensor = tensor.view(torch.bfloat16) if packed["dtype"] == "bfloat16" else tensor
        there = packed["device"].startswith("cuda") and torch.cuda.is_available()  # else what can be said is said here
        return _with_strides(tensor.to(packed["device"] if there else "cpu"), packed["strides"])
    ((kind, value),) = packed.items()
    if kind == "dict":
        return {_unpack(key, arrays): _unpack(part, arrays) for key, part in value}
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(_unpack(part, arrays) for part in value)
    if kind == "record":
        return SimpleNamespace(**{name: _unpack(part, arrays) for name, part in value.items()})
    if kind == "torch_dtype":
        return getattr(torch, value)
    if kind == "device":
        return torch.device(value)
    return float.fromhex(value) if kind == "float" else value


def _with_strides(tensor: torch.Tensor, strides: list[int]) -> torch.Tensor:
    if list(tensor.stride()) == strides:
        return tensor
    if not tensor.numel():
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    room = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    twin = torch.zeros(room, dtype=tensor.dtype, device=tensor.device).as_strided(tensor.shape, strides)
    if 0 in strides:  # expanded: overlapping elements are equal, and torch refuses to copy onto them
        kept = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)
        twin[kept].copy_(tensor[kept])
    else:
        twin.copy_(tensor)
    return twin


def save_case(case: Case, path: Path) -> None:
    """Write a case as an .npz file without pickles; bfloat16 is kept as its bits.

    Raises TypeError for a value that is neither tensor, number, string, None nor a container of them.
    """
    arrays: dict[str, np.ndarray] = {}
    call = case.call
    function = None
    if call.function is not None:
        function = [str(sys.modules[call.function.__module__].__file__), call.function.__qualname__]
    packed = {
        "format": _FORMAT,
        "name": case.name,
        "layers": case.layers,
        "inputs": _pack(call.inputs, arrays),
        "kwargs": _pack(call.kwargs, arrays),
        "init": _pack(call.init, arrays),
        "weights": _pack(call.weights, arrays),
        "cotangent": _pack(case.cotangent, arrays),
        "function": function,
        "names": case.names,
        "want": list(case.want),
        "allowed": {label: float(value).hex() for label, value in case.allowed.items()},
    }
    arrays |= {f"want{index}": np.asarray(value) for index, value in enumerate(case.want.values())}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, case=np.array(json.dumps(packed)), **arrays)  # type: ignore[arg-type]


def replay_inputs(path: str | Path) -> Case:
    """The case that a failed check left in `path`.

    Raises FileNotFoundError, or ValueError when the file is not one of ours.
    """
    with np.load(Path(path), allow_pickle=False) as arrays:
        if "case" not in arrays:
            raise ValueError(f"path={str(path)!r} is not a case that a failed check wrote")
        packed = json.loads(str(arrays["case"]))
        if packed.get("format") != _FORMAT:
            raise ValueError(f"path={str(path)!r} has format {packed.get('format')!r}, this reads {_FORMAT}")
        call = Call(
            inputs=_unpack(packed["inputs"], arrays),
            kwargs=_unpack(packed["kwargs"], arrays),
            init=_unpack(packed["init"], arrays),
            weights=_unpack(packed["weights"], arrays),
            function=_function(*packed["function"]) if packed["function"] else None,
        )
        return Case(
            packed["name"],
            packed["layers"],
            call,
            {label: np.array(arrays[f"want{index}"]) for index, label in enumerate(packed["want"])},
            {label: float.fromhex(value) for label, value in packed["allowed"].items()},
            _unpack(packed["cotangent"], arrays),
            packed["names"],
        )


def _function(file: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"replayed_{Path(file).stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"the function that made the call is in {file}, which cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def load(name: str, layers: str = "impl") -> Any:
    """What `room.noun` is in some layers, as a test would get it: `load("attention.causal_mask", "mine,impl")`.

    In a process that a test launched while a mutant or an honest alternative is on trial, it is that one.
    """
    from touchstone.house import find
    from touchstone.implementations import namespace
    from touchstone.runs import variants

    house = find()
    space = namespace(layers, house)
    over, _, variant = os.environ.get(variants.VARIABLE, "").partition(" ")
    if over == space.label:
        house.importable()
        variants.put_over(space, house, variant)
    return space[name]


def snippet(case: Case, path: Path) -> str:
    """Python that runs the case again, from anywhere."""
    root = str(Path(__file__).resolve().parents[2])
    return "\n".join(
        (
            f"import sys; sys.path.insert(0, {root!r})",
            "from touchstone import load, replay_inputs",
            f"case = replay_inputs({str(path.resolve())!r})",
            f"print(case.report(load({case.name!r}, {case.layers!r})))",
        )
    )
