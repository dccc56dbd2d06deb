"""The `parity` fixture: holds one call of a subject to the oracle, and explains a failure.

The subject is given the tensors as they are (copies: it must leave them alone); the oracle is given the same values in
float64 for the truth, over `Rounded` for the baseline, and slightly moved for the conditioning.
`touchstone.judgement.numerics` judges each result and each gradient.

Conventions of the oracle's side:

- A class `room.SomeNoun` is held to the function `room.some_noun`. With a parameter `weights` it is given
  `weights={name: array}` and the constructor's arguments; without, the weights by their names (layer_norm).
- Gradients are those of `<function>_backward(cotangent, ...)`, whose other parameters are matched by name with the
  forward's; or of `_<function>_backward`, where the public one takes something else. It returns the gradients of the
  floating tensors given *positionally*, in order: a tuple, or one array, or a dict by name. For a class with weights:
  `(gradients of the inputs, {weight: gradient})`; for a plain function one tuple of both, weights last. A tensor given
  by keyword is not differentiated.
- With several results the cotangent has the results' structure, None where a result is not floating.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from touchstone.judgement import numerics
from touchstone.judgement.calls import Call, WrongParameters, dtype_name, working_precision
from touchstone.judgement.diagnosis import Mutant, diagnose
from touchstone.judgement.replay import AGAIN, Case, observe, save_case, snippet
from touchstone.judgement.truth import GRADIENT, Oracle, Part


def snake_case(noun: str) -> str:
    """MultiHeadAttention → multi_head_attention, GELU → gelu, KVCache → kv_cache."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", noun).lower()


class Parity:
    """Holds subjects to their oracle. One object serves one test.

    subject_namespace, oracle_namespace: `ns["room.noun"]` and `ns.has(name)`; the subject's also `declared(name)`,
    `layer(name)` and `label`. mutants: name → [(mutant name, sentence, object)]. law: the catalog's text of the proof
    lines that the test names. record: `record(name, value, unit, limit)`. failures_dir: where failed inputs are kept.
    """

    def __init__(
        self,
        subject_namespace: Any,
        oracle_namespace: Any,
        mutants: Callable[[str], Iterable[Mutant]] | None = None,
        *,
        seed: int = 0,
        nodeid: str = "",
        law: str = "",
        record: Callable[..., None] | None = None,
        failures_dir: Path | None = None,
    ) -> None:
        self.subjects = subject_namespace
        self.oracles = oracle_namespace
        self.mutants = mutants
        self.seed = seed
        self.nodeid = nodeid
        self.law = law
        self.record = record
        self.failures_dir = failures_dir
        self.calls = 0

    def __call__(
        self,
        name: str,
        *inputs: Any,
        within: float | Mapping[str, float] | None = None,
        gradients: bool = False,
        init: dict[str, Any] | None = None,
        weights: dict[str, torch.Tensor] | None = None,
        against: str | None = None,
        call: Callable[..., Any] | None = None,
        allow_inf: bool = False,
        upcast: bool = False,
        **kwargs: Any,
    ) -> None:
        """Call `name` on `inputs` and hold what it gives to the oracle.

        within: the catalog's largest error relative to max|want|; binds in the dtypes that can hold it, or a mapping
        from dtype to figure. gradients: also hold the gradient of every floating positional input and every parameter,
        under a random cotangent. init, weights: a class is built with `init` and given `weights` (parameter name →
        tensor). against: the oracle's name where it is another. call: a module-level `call(subject, *inputs, **kwargs)`
        used in the subject's place. allow_inf: an infinity passes where the oracle has it. upcast: in half precision
        the contract promises float32 inside and one final rounding; every element of the result is held to that.

        Raises AssertionError with the law, the inputs, the error against what was allowed, a likely mistake and Python
        that repeats it. Raises LookupError when there is no oracle. What the subject itself raises is not caught.
        """
        __tracebackhide__ = True
        self.calls += 1
        subject = self.subjects[name]
        oracle = self._oracle(name, against, gradients)
        made = Call(inputs, kwargs, init, weights, call)
        precision = working_precision(made.dtype, self.subjects.declared(name).get("precision"))
        upcast = upcast and made.dtype in (torch.float16, torch.bfloat16)

        parts = oracle.results(made, "float32" if upcast else precision)
        cotangent: dict[str, torch.Tensor] = {}
        if gradients:
            cotangent = self._cotangent(parts, made)
            labels = [part.label for part in parts]
            again = [replace(part, label=part.label + AGAIN) for part in parts if part.label in cotangent]
            parts += again + oracle.gradients(made, precision, cotangent, labels)

        names = oracle.input_names(made)
        verdicts: dict[str, numerics.Verdict] = {}
        try:
            found, changed = observe(subject, made, cotangent, names)
        except WrongParameters as error:
            problems = [str(error)]
        else:
            problems = [f"{what} was changed by the call: inputs are the caller's" for what in changed]
            problems += _structure(found, [part.label for part in parts])
            options = {"within": within, "precision": precision, "allow_inf": allow_inf, "upcast": upcast}
            device = str(made.device)
            for part in parts:
                if part.label in found:
                    verdicts[part.label] = judge_part(part, found[part.label], device, options)
        failed = {label: verdict for label, verdict in verdicts.items() if not verdict.ok}
        told = [label for label in failed if not label.endswith(AGAIN) or label.removesuffix(AGAIN) not in failed]
        problems += [_sentence(label, failed[label]) for label in told]
        if problems:
            case = Case(
                name,
                getattr(self.subjects, "label", "impl"),
                made,
                {part.label: np.asarray(part.want) for part in parts if part.want is not None},
                {label: verdict.allowed for label, verdict in verdicts.items()},
                cotangent,
                names,
            )
            raise AssertionError(self._message(problems, subject, case, oracle)) from None
        if self.record is not None:
            label = f"{name} {dtype_name(made.dtype)}" + (f" {self.calls}" if self.calls > 1 else "")
            self.record(f"{label} error/allowed", max((v.margin for v in verdicts.values()), default=0.0), "", 1.0)
            tolerated = max((v.tolerated_scale for v in verdicts.values()), default=0.0)
            self.record(f"{label} tolerated scale", tolerated, "", numerics.BLIND[precision])

    def _oracle(self, name: str, against: str | None, gradients: bool) -> Oracle:
        room, noun = (against or name).split(".")
        candidates = list(dict.fromkeys([f"{room}.{noun}", f"{room}.{snake_case(noun)}"]))
        chosen = next((each for each in candidates if self.oracles.has(each)), None)
        if chosen is None:
            raise LookupError(f"no oracle for {name}: looked for {', '.join(candidates)}")
        place, _, function = chosen.partition(".")
        backward = f"{place}._{function}_backward"  # where the public one takes other arguments than the forward
        backward = backward if self.oracles.has(backward) else f"{chosen}_backward"
        if gradients and not self.oracles.has(backward):
            raise LookupError(f"gradients=True, but the oracle has no {backward}")
        return Oracle(self.oracles[chosen], self.oracles[backward] if gradients else None, self.seed)

    def _cotangent(self, parts: list[Part], call: Call) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {self.nodeid} {self.calls}".encode()))
        return {
            part.label: torch.randn(np.shape(part.want), generator=generator, dtype=torch.float64).to(
                call.device, call.dtype
            )
            for part in parts
            if part.dtype is not None
        }

    def _message(self, problems: list[str], subject: Any, case: Case, oracle: Oracle) -> str:
        lines = [f"{case.name} (layer {self.subjects.layer(case.name)}) does not give what the oracle gives"]
        lines += [f"  law        {line}" for line in self.law.splitlines()]
        lines += [f"  found      {problem}" for problem in problems]
        lines += [f"  inputs     {case.call.describe()}", f"  seed       {self.seed}"]
        if self.mutants is not None:
            known = self.mutants
            said = diagnose(subject, lambda: known(case.name), case, oracle.arrays, seed=self.seed)
            lines += [f"  diagnosis  {said}"] if said else []
        if self.failures_dir is not None:
            stem = re.sub(r"[^A-Za-z0-9]+", "-", self.nodeid.rsplit("/", 1)[-1]).strip("-")[:80]
            path = self.failures_dir / f"{stem}-{zlib.crc32(self.nodeid.encode()):08x}-{self.calls}.npz"
            try:
                save_case(case, path)
            except (OSError, TypeError) as error:
                lines.append(f"  reproduce  (the inputs could not be kept: {error})")
            else:
                lines.append("  reproduce  paste into Python:")
                lines += [f"    {line}" for line in snippet(case, path).split("\n")]
        return "\n".join(lines)


def _structure(found: dict[str, Any], wanted: list[str]) -> list[str]:
    back = ", ".join(found) or "nothing"
    missing = [f"{label} is missing: {back} came back" for label in wanted if label not in found]
    return missing + [f"{label} is more than was asked for" for label in found if label not in wanted]


def judge_part(part: Part, got: Any, device: str, options: dict[str, Any]) -> numerics.Verdict:
    """One result or gradient held to its part."""
    gradient = part.label.startswith(GRADIENT)
    if gradient and got is None:
        return _refused("there is none: autograd has no path to it")
    if part.dtype is None:
        if isinstance(part.want, (np.ndarray, np.generic, int)) and np.asarray(part.want).dtype.kind in "biu":
            return _exact(np.asarray(part.want), got, device)
        same = type(got) is type(part.want) and got == part.want
        return numerics.Verdict(True) if same else _refused(f"got {got!r}, want {part.want!r}")
    number, dtype = isinstance(got, float), part.dtype
    if not number and not isinstance(got, torch.Tensor):
        return _refused(f"a {type(got).__name__}, not a floating tensor")
    if gradient:
        options = options | {"allow_inf": False, "upcast": False}

    def judged(conditioning: list[np.ndarray]) -> numerics.Verdict:
        return numerics.judge(
            np.float64(got) if number else got,
            part.want,
            part.baseline,
            dtype="float64" if number else dtype,
            conditioning=conditioning,
            family=part.family,
            device=device,
            **options,
        )

    # Each draw of the conditioning only ever allows more: most results need none of them, most others one.
    verdict = judged([])
    for draws in (1, numerics.DRAWS):
        if verdict.ok:
            break
        verdict = judged(part.conditioning(draws))
    return verdict


def _exact(want: np.ndarray, got: Any, device: str) -> numerics.Verdict:
    """Integers and booleans: the oracle's kind, an integer of any width, and every value."""
    if isinstance(got, (bool, int)):
        return numerics.equal(np.asarray(got), want)
    if not isinstance(got, torch.Tensor):
        return _refused(f"a {type(got).__name__}, not a tensor")
    floating = got.is_floating_point() or got.is_complex()
    if floating or (got.dtype == torch.bool) != (want.dtype.kind == "b"):
        return _refused(f"dtype {dtype_name(got.dtype)}, not {want.dtype}")
    return numerics.equal(got, want, device=device)


def _refused(reason: str) -> numerics.Verdict:
    return numerics.Verdict(False, float("inf"), reason=reason)


def _sentence(label: str, verdict: numerics.Verdict) -> str:
    label = label.removesuffix(AGAIN) + (" when gradients are asked for" if label.endswith(AGAIN) else "")
    where = f"; worst at {list(verdict.index)}: got {verdict.got:.8g}, want {verdict.want:.8g}" if verdict.index else ""
    return f"{label}: {verdict.reason}{where}"
