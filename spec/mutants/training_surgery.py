"""Mistakes that people make with hooks, frozen parts, parameter groups and exchanged modules."""

from __future__ import annotations

from touchstone import Mutant

FEATURES, FREEZE, UNFREEZE = "training.extract_features", "training.freeze", "training.unfreeze"
REPLACE, GROUPS, CHECK = "training.replace_modules", "optim.layerwise_groups", "optim.check_parameters"
_FROZEN = "            module.train = _Frozen(module)  # type: ignore[method-assign]\n"
_NORMS = 'if "norm" in type(module).__name__.lower()'
_DECAYS = 'decays = parameter.ndim >= 2 and id(parameter) not in norms and name.rpartition(".")[2] != "bias"'


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


MUTANTS = [
    *_of(
        FEATURES,
        ("hooks_left", "leaves its hooks in the model", "            handle.remove()\n", "            pass\n"),
        (
            "hooks_left_on_error",
            "leaves its hooks in the model when something fails",
            "        yield found\n    finally:\n",
            "        yield found\n    except ZeroDivisionError:\n        raise\n    else:\n",
        ),
        (
            "all_hooks_removed",
            "removes the hooks of others too",
            "            handle.remove()\n",
            "            handle.remove()\n        for module in model.modules():\n            "
            "module._forward_hooks.clear()\n",
        ),
        ("features_kept", "keeps the features when the context is left", "        found.clear()\n", "        pass\n"),
        ("detached", "cuts the features off the graph", "found[path] = output", "found[path] = output.detach()"),
        ("copied", "gives zeros where a feature is negative", "found[path] = output", "found[path] = output.relu()"),
        (
            "inputs_for_outputs",
            "keeps what goes in, not what comes out",
            "found[path] = output",
            "found[path] = inputs[0]",
        ),
        ("first_call", "keeps the first call's features", "found[path] = output", "found.setdefault(path, output)"),
        (
            "last_path_for_all",
            "keeps every feature under the last path",
            "_keeper(found, path))",
            "_keeper(found, list(modules)[-1]))",
        ),
        (
            "unknown_path_late",
            "hooks what it can before it finds an unknown path",
            "    modules = {path: _module(model, path) for path in paths}  # all of them before the first "
            "hook\n    handles = []\n    try:\n",
            "    modules = {path: _module(model, path) for path in paths if path in "
            "dict(model.named_modules())}\n    handles = []\n    try:\n",
        ),
    ),
    *_of(
        FREEZE,
        (
            "gradients_only",
            "stops gradients only: batch norm goes on counting",
            "            module.eval()\n" + _FROZEN,
            "            pass\n",
        ),
        ("thawed_by_train", "forgets that train() is called again", _FROZEN, ""),
        (
            "top_only",
            "keeps the named module in eval mode, not what is in it",
            "        for module in part.modules():\n            module.eval()\n",
            "        for module in [part]:\n            module.eval()\n",
        ),
        ("eval_only", "sets eval mode only", "            parameter.requires_grad_(False)\n", "            pass\n"),
        (
            "old_gradient_left",
            "leaves an old gradient for the optimizer to apply",
            "            parameter.grad = None  # an optimizer would still apply an old one\n",
            "",
        ),
        (
            "own_parameters_only",
            "freezes a module's own parameters, not those below",
            "        for parameter in part.parameters():\n            parameter.requires_grad_(False)",
            "        for parameter in part.parameters(recurse=False):\n            parameter.requires_grad_(False)",
        ),
        (
            "everything",
            "freezes the whole model whatever is named",
            "    for part in _parts(model, paths):\n        for parameter in part.parameters():\n            "
            "parameter.requires_grad_(False)",
            "    for part in [model for part in _parts(model, paths)]:\n        for parameter in "
            "part.parameters():\n            parameter.requires_grad_(False)",
        ),
        (
            "half_way",
            "freezes what it can before it finds an unknown path",
            "    return [_module(model, path) for path in paths] if paths else [model]",
            "    return (_module(model, path) for path in paths) if paths else [model]",
        ),
        (
            "copies_thaw",
            "freezes the original's mode through its copies",
            "module.train = _Frozen(module)",
            "module.train = lambda mode=True, kept=module: kept",
        ),
    ),
    *_of(
        UNFREEZE,
        (
            "still_no_gradient",
            "does not give gradients back",
            "            parameter.requires_grad_(True)\n",
            "            pass\n",
        ),
        (
            "still_in_eval",
            "leaves batch norm and dropout at rest for good",
            '            module.__dict__.pop("train", None)\n',
            "            pass\n",
        ),
        (
            "always_train",
            "puts the part into train mode whatever the model is in",
            "part.train(model.training)",
            "part.train()",
        ),
        (
            "mode_left",
            "leaves the part in eval mode until train() is called",
            "        part.train(model.training)\n",
            "",
        ),
        (
            "all_of_it",
            "unfreezes everything",
            "    for part in _parts(model, paths):\n        for parameter in part.parameters():\n            "
            "parameter.requires_grad_(True)",
            "    for part in _parts(model, ()):\n        for parameter in part.parameters():\n            "
            "parameter.requires_grad_(True)",
        ),
    ),
    *_of(
        REPLACE,
        (
            "first_place_only",
            "replaces a shared module at one place only",
            "    for parent, name, fresh in places:",
            "    for parent, name, fresh in places[:1]:",
        ),
        (
            "made_twice",
            "makes a module for each place: what was shared no longer is",
            "        (parent, name, made[id(child)])",
            "        (parent, name, __import__('copy').deepcopy(made[id(child)]))",
        ),
        ("mode_of_its_own", "leaves the new module in train mode", "fresh.train(old.training)", "fresh"),
        (
            "model_mode",
            "puts all of it into eval mode",
            "fresh.train(old.training)",
            "fresh.train(model.eval().training)",
        ),
        (
            "returns_nothing",
            "returns nothing",
            "        setattr(parent, name, fresh)\n    return model\n",
            "        setattr(parent, name, fresh)\n    return None\n",
        ),
        (
            "gradients_by_mode",
            "freezes the new module in eval mode",
            "made[id(old)] = fresh",
            "made[id(old)] = fresh.requires_grad_(old.training)",
        ),
        (
            "attribute_for_module",
            "moves the module to the end: the keys change their order",
            "        setattr(parent, name, fresh)\n",
            "        del parent._modules[name]\n        parent._modules[name] = fresh\n",
        ),
        (
            "at_once",
            "replaces what it can before it finds an unknown path",
            "        made[id(old)] = fresh.train(old.training)\n",
            "        made[id(old)] = fresh.train(old.training)\n        if path in model._modules:\n            "
            "model._modules[path] = fresh\n",
        ),
        ("empty_path", "takes an empty path", "        if not path:\n", "        if path is None:\n"),
        (
            "silent_for_unknown",
            "leaves unknown paths alone",
            "        old = _module(model, path)\n",
            "        old = dict(model.named_modules()).get(path)\n        if old is None:\n            continue\n",
        ),
        ("no_nearest", "does not name the nearest path", "; the nearest is {near[0]!r}", ""),
    ),
    *_of(
        GROUPS,
        (
            "depth_from_the_input",
            "gives the first layer the full rate",
            "zip(reversed(range(len(layers))), layers, strict=True)",
            "enumerate(layers)",
        ),
        (
            "depth_plus_one",
            "lowers the rate of the last layer too",
            '"lr": lr * decay**depth,',
            '"lr": lr * decay ** (depth + 1),',
        ),
        ("one_rate", "gives all layers one rate", '"lr": lr * decay**depth,', '"lr": lr,'),
        (
            "linear_rates",
            "lowers the rate by equal steps",
            '"lr": lr * decay**depth,',
            '"lr": lr * (1 - (1 - decay) * depth / len(layers)),',
        ),
        (
            "decay_on_all",
            "decays biases and norms",
            '"weight_decay": weight_decay if decays else 0.0,',
            '"weight_decay": weight_decay,',
        ),
        ("decay_on_norms", "decays a norm's gain of two dimensions", " and id(parameter) not in norms", ""),
        ("decay_on_vectors", "decays vectors", "parameter.ndim >= 2 and ", ""),
        (
            "frozen_too",
            "takes frozen parameters too",
            "        if not parameter.requires_grad:\n            continue\n",
            "",
        ),
        (
            "tied_twice",
            "takes a tied weight twice",
            "model.named_parameters():  #",
            "model.named_parameters(remove_duplicate=False):  #",
        ),
        (
            "prefix_of_letters",
            "matches a layer by its first letters",
            'name.startswith(f"{layer}.")',
            "name.startswith(layer)",
        ),
        (
            "unmatched_left_out",
            "leaves out what is in no layer",
            "        if len(places) != 1:\n",
            "        if not places:\n            continue\n        if len(places) != 1:\n",
        ),
        (
            "first_match",
            "takes the first of two layers that match",
            "        if len(places) != 1:\n",
            "        if not places:\n",
        ),
        ("any_decay", "takes a rate of NaN", "if not lr > 0 or", "if lr <= 0 or"),
    ),
    *_of(
        CHECK,
        ("never_raises", "never finds anything", "    if missing:\n", "    if False:\n"),
        ("frozen_wanted", "wants frozen parameters in the optimizer", "if one.requires_grad and id(one)", "if id(one)"),
        (
            "stale_ignored",
            "does not see parameters that the model no longer has",
            "    if held - own:\n",
            "    if False:\n",
        ),
        (
            "first_group_only",
            "looks at the first group only",
            "for group in optimizer.param_groups for",
            "for group in optimizer.param_groups[:1] for",
        ),
        (
            "frozen_refused",
            "refuses an optimizer that holds frozen parameters",
            "for parameter in model.parameters()}\n    missing",
            "for parameter in model.parameters() if parameter.requires_grad}\n    missing",
        ),
    ),
]
