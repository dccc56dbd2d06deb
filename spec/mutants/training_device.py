"""Mistakes that people make around torch.compile."""

from __future__ import annotations

from touchstone import Mutant

NAME = "training.compile_model"
_COMPILE = "    model.compile(backend=_or_eager(found) if fallback else found, dynamic=dynamic)\n    return model\n"

MUTANTS = [
    Mutant(
        "wrapped",
        NAME,
        old=_COMPILE,
        new="    return torch.compile(model, backend=_or_eager(found) if fallback else found, dynamic=dynamic)\n",
        says="wraps the model, so that checkpoints get the prefix _orig_mod",
    ),
    Mutant(
        "copied",
        NAME,
        old="    model.compile(backend",
        new="    import copy\n\n    model = copy.deepcopy(model)\n    model.compile(backend",
        says="compiles a copy: the optimizer goes on with the weights of another model",
    ),
    Mutant("left_eager", NAME, old=_COMPILE, new="    return model\n", says="compiles nothing"),
    Mutant(
        "backend_ignored",
        NAME,
        old="found = _found(backend)",
        new='found = _found(backend) and _found("eager")',
        says="captures graphs but generates no code, whatever backend was asked for",
    ),
    Mutant("dynamic_ignored", NAME, old="dynamic=dynamic)", new="dynamic=None)", says="ignores `dynamic`"),
    Mutant("always_dynamic", NAME, old="dynamic=dynamic)", new="dynamic=True)", says="ignores dynamic=False"),
    Mutant(
        "in_evaluation",
        NAME,
        old="    found = _found(backend)\n",
        new="    found = _found(backend)\n    model.train(not model.training)\n",
        says="flips between train and eval mode",
    ),
    Mutant(
        "silent",
        NAME,
        old="            warnings.warn(",
        new="            (lambda *_, **__: None)(",
        says="runs eagerly without a word where nothing could be compiled",
    ),
    Mutant(
        "cause_not_named",
        NAME,
        old="{type(error).__name__}: {cause}",
        new="compilation failed",
        says="falls back to eager and does not say why",
    ),
    Mutant(
        "never_falls_back",
        NAME,
        old="_or_eager(found) if fallback else found",
        new="found",
        says="raises without a compiler although a fallback was asked for",
    ),
    Mutant(
        "always_falls_back",
        NAME,
        old="_or_eager(found) if fallback else found",
        new="_or_eager(found)",
        says="goes on eagerly although an error was asked for",
    ),
    Mutant(
        "errors_suppressed",
        NAME,
        old=_COMPILE,
        new="    torch._dynamo.config.suppress_errors = True\n" + _COMPILE,
        says="makes torch swallow every failure to compile, in the whole process",
    ),
    Mutant(
        "frozen",
        NAME,
        old="    found = _found(backend)\n",
        new="    found = _found(backend)\n    model.requires_grad_(False)\n",
        says="compiles for inference: no parameter gets a gradient",
    ),
]
