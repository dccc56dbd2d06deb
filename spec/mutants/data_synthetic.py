"""Mistakes in the synthetic tasks; patches of impl/data/synthetic.py."""

from __future__ import annotations

from touchstone import Mutant

LAYOUT = "data.copy_task"
SCORE = "data.copy_accuracy"
COPY = "data.CopyTask"
ORDER = "data.OrderTask"

_SHOWN = "tokens = torch.where(read | (answered & (places > size)), shown, separator)"
_ANSWERS = "answers = sources.long().gather(1, (places - size).clamp(0, longest - 1))"
_RETURNED = "return tokens, torch.where(answered, answers, IGNORED)"
_BEHIND = "behind = (places - size - 1).clamp(0, longest - 1)"
_SHARE = "return (predictions[counted] == targets[counted]).double().mean().item()"
_SIZES = "sizes = shortest + numbers[:, 0] % (longest - shortest + 1)"
_SYMBOLS = "numbers[:, 1:] % self.symbols"
_SECOND = "second = 1 + (first + numbers[:, 1] % (self.length - 1)) % self.length"
_TARGET = "targets[:, 0] = (second < first).long()"
_ROWS = "rows = _mixed(start + offsets[:, None] * golden)"

FOUND = [
    (LAYOUT, "answer_shown", _BEHIND, _BEHIND.replace("size - 1)", "size)"), "shows the answer at its own place"),
    (LAYOUT, "prompt_counts", _RETURNED, _RETURNED.replace("answered,", "answered | read,"), "scores the prompt too"),
    (
        LAYOUT,
        "separator_not_scored",
        "answered = (places >= size)",
        "answered = (places > size)",
        "does not ask for symbol 0",
    ),
    (LAYOUT, "one_too_many", "(places < 2 * size)", "(places <= 2 * size)", "asks for one symbol more than there are"),
    (
        LAYOUT,
        "reversed",
        _ANSWERS,
        _ANSWERS.replace("(places - size)", "(2 * size - 1 - places)"),
        "asks for the reverse",
    ),
    (
        LAYOUT,
        "answers_late",
        _ANSWERS,
        _ANSWERS.replace("(places - size)", "(places - size - 1)"),
        "asks one place late",
    ),
    (LAYOUT, "no_separator", _SHOWN, _SHOWN.replace("places > size", "places >= size"), "has no separator"),
    (LAYOUT, "padding_counts", _RETURNED, _RETURNED.replace("answered,", "places >= size,"), "scores the padding"),
    (
        LAYOUT,
        "padding_zero",
        _RETURNED,
        "tokens = tokens.masked_fill(places >= 2 * size, 0)\n    " + _RETURNED,
        "pads with symbol 0",
    ),
    (
        LAYOUT,
        "any_length",
        'if outside.numel():\n        raise ValueError(f"lengths',
        'if False:\n        raise ValueError(f"lengths',
        "accepts any length",
    ),
    (LAYOUT, "narrow", _RETURNED, "tokens = tokens.int()\n    " + _RETURNED, "gives int32 tokens"),
    (
        SCORE,
        "everything_counts",
        "counted = targets != IGNORED",
        "counted = torch.ones_like(targets, dtype=torch.bool)",
        "counts ignored places as wrong",
    ),
    (
        SCORE,
        "ignored_are_right",
        _SHARE,
        "return ((predictions == targets) | ~counted).double().mean().item()",
        "counts ignored places as right",
    ),
    (
        SCORE,
        "by_row",
        _SHARE,
        "rows = ((predictions == targets) & counted).sum(-1) / counted.sum(-1).clamp(min=1)\n"
        "    return rows.double().mean().item()",
        "averages rows of different lengths alike",
    ),
    (
        SCORE,
        "whole_sequences",
        _SHARE,
        "return ((predictions == targets) | ~counted).all(dim=-1).double().mean().item()",
        "asks for whole sequences",
    ),
    (
        SCORE,
        "nothing_is_perfect",
        "if not counted.any():",
        "if not counted.any():\n        return 1.0\n    if False:",
        "gives 1 where nothing counts",
    ),
    (COPY, "one_length", _SIZES, "sizes = shortest + 0 * numbers[:, 0]", "has its shortest length only"),
    (
        COPY,
        "longest_left_out",
        _SIZES,
        "sizes = shortest + numbers[:, 0] % max(longest - shortest, 1)",
        "never has its longest length",
    ),
    (COPY, "separator_drawn", _SYMBOLS, "numbers[:, 1:] % (self.symbols + 1)", "draws the separator as a symbol"),
    (
        COPY,
        "last_symbol_left_out",
        _SYMBOLS,
        "numbers[:, 1:] % max(self.symbols - 1, 1)",
        "never draws its last symbol",
    ),
    (COPY, "repeated", _SYMBOLS, "numbers[:, 1:2].expand(-1, longest) % self.symbols", "repeats one symbol"),
    (
        COPY,
        "seed_ignored",
        "numbers = _hashed(self.seed, _checked(offsets, self.examples), self.lengths[1] + 1)",
        "numbers = _hashed(0, _checked(offsets, self.examples), self.lengths[1] + 1)",
        "ignores its seed",
    ),
    (
        COPY,
        "place_in_the_batch",
        "numbers = _hashed(self.seed, _checked(offsets, self.examples), self.lengths[1] + 1)",
        "numbers = _hashed(self.seed, torch.arange(len(_checked(offsets, self.examples))), self.lengths[1] + 1)",
        "depends on the place in the batch",
    ),
    (
        COPY,
        "global_generator",
        _SYMBOLS,
        "torch.randint(self.symbols, (len(offsets), longest))",
        "draws from the global generator",
    ),
    (
        COPY,
        "weak_hash",
        _ROWS,
        "rows = start + offsets[:, None] * golden",
        "the next example is this one, moved by a symbol",
    ),
    (
        COPY,
        "wraps",
        "if outside.numel():\n        raise IndexError",
        "if False:\n        raise IndexError",
        "accepts any offset",
    ),
    (ORDER, "answer_swapped", _TARGET, "targets[:, 0] = (second > first).long()", "names the mark that is second"),
    (
        ORDER,
        "marks_sorted",
        _SECOND,
        _SECOND + "\n        first, second = torch.minimum(first, second), torch.maximum(first, second)",
        "always puts mark 0 first",
    ),
    (ORDER, "neighbours", _SECOND, "second = 1 + first % self.length", "puts the marks side by side"),
    (ORDER, "marks_collide", _SECOND, "second = 1 + numbers[:, 1] % self.length", "may put one mark upon the other"),
    (ORDER, "answer_everywhere", _TARGET, "targets[:] = (second < first).long()[:, None]", "asks at every place"),
    (
        ORDER,
        "marks_among_the_fillers",
        "2 + numbers[:, 2:] % self.fillers",
        "numbers[:, 2:] % (self.fillers + 2)",
        "draws marks as fillers",
    ),
    (
        ORDER,
        "seed_ignored",
        "numbers = _hashed(self.seed, _checked(offsets, self.examples), self.length + 2)",
        "numbers = _hashed(0, _checked(offsets, self.examples), self.length + 2)",
        "ignores its seed",
    ),
    (
        ORDER,
        "query_last",
        "tokens = torch.cat((torch.full((len(offsets), 1), self.query), 2 + numbers[:, 2:] % self.fillers), dim=1)",
        "tokens = torch.cat((torch.full((len(offsets), 1), self.query - 1), 2 + numbers[:, 2:] % self.fillers), dim=1)",
        "asks with a filler",
    ),
]

MUTANTS = [
    Mutant(f"{target.split('.')[1].lower()}_{name}", target, old, new, says) for target, name, old, new, says in FOUND
]
