"""Mistakes that people make when they count what is documented."""

from __future__ import annotations

from touchstone import Mutant


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the coverage."""
    return [Mutant(name, "workflow.api_coverage", old, new, says) for name, says, old, new in patches]


MUTANTS = _of(
    (
        "part_of_a_word",
        "takes a parameter for explained when its name is part of another word",
        r're.search(rf"(?<!\w){one}(?!\w)", said)',
        "one in said",
    ),
    ("hidden_modules", "counts modules with a leading underscore", 'part.startswith("_")', 'part.startswith("__")'),
    ("all_is_class", "takes methods for functions", 'else "method"', 'else "function"'),
    (
        "inherited_is_nothing",
        "wants a docstring of each overriding method",
        "inspect.getdoc(thing) if not",
        "thing.__doc__ if not",
    ),
    (
        "inner_methods",
        "counts methods with a leading underscore",
        'if noun.startswith("_") or not',
        "if not",
    ),
    (
        "one_name_an_entry",
        "reads the first name only of an entry for several parameters",
        'for name in names.split(",")',
        'for name in names.split(",")[:1]',
    ),
    (
        "calls_only",
        "does not see an error that is raised without a call",
        "called = [error.func if isinstance(error, ast.Call) else error for error in raised]",
        "called = [error.func for error in raised if isinstance(error, ast.Call)]",
    ),
    (
        "constructors_raise_freely",
        "does not look at what a constructor raises",
        '[vars(thing).get("__init__")]',
        "[]",
    ),
    (
        "crashes_pass",
        "counts failed examples, and forgets them",
        'if said else []\n    return len(found.examples), wrong',
        "if False else []\n    return len(found.examples), wrong",
    ),
    (
        "missing_passes",
        "skips what is listed and does not exist",
        'symbols.append(Symbol(f"{name}.{noun}", "class", 0, ("is in __all__, and is not there",)))',
        "pass",
    ),
    ("room_is_silent", "does not let the contract's room speak for its names", "_Text()).doc}", '_Text()).doc[:0]}'),
    (
        "shape_of_the_word",
        "takes the word Tensor for a shape",
        r"\bshapes?\b",
        r"\bshapes?\b|Tensor|of",
    ),
    (
        "any_shape_near",
        "takes a shape that stands anywhere in the room for the tensor's own",
        "_SHAPE.search(doc)",
        "_SHAPE.search(said)",
    ),
    (
        "annotations_of_the_code",
        "does not read the contract's annotations",
        "[note for text in texts for note in text.annotations] or _annotations(functions)",
        "_annotations(functions)",
    ),
    ("share_of_gaps", "gives the share that lacks something", "sum(not symbol.gaps for", "sum(bool(symbol.gaps) for"),
    (
        "unsorted",
        "leaves symbols in the order of their modules",
        "sorted(symbols, key=lambda symbol: symbol.name)",
        "symbols",
    ),
    (
        "helpers_too",
        "counts what a module imports, and its helpers",
        'for noun in getattr(module, "__all__", ()):',
        'for noun in [one for one in vars(module) if not one.startswith("_")]:',
    ),
    (
        "examples_once",
        "counts a symbol with examples as one example",
        "return len(found.examples), wrong",
        "return min(1, len(found.examples)), wrong",
    ),
)  # fmt: skip
