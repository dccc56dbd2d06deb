"""Mistakes that people make in a next-token data set, its split and its sampler."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, old, new, says) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


_LENGTH = "return len(self.tokens) - self.block_size"
_ROWS = "return rows[:, :-1], rows[:, 1:]"
_ITEM = "return self.tokens[index:end], self.tokens[index + 1 : end + 1]"
_GATHER = "rows = self.tokens[offsets[:, None] + self._span]"
_CUT = "cut = int(len(ids) * (1 - Fraction(str(validation))))"
_DRAW = "return torch.randint(starts, (batch_size,), generator=generator)"
_DIGEST = 'digest = hashlib.sha256(f"offsets {seed} {step}".encode()).digest()'

MUTANTS = [
    *_of(
        "data.TokenDataset",
        (
            "targets_not_shifted",
            _ROWS,
            "return rows[:, :-1], rows[:, :-1]",
            "gives the input as the target: a model learns to copy",
        ),
        (
            "targets_two_on",
            _GATHER,
            "rows = self.tokens[(offsets[:, None] + self._span).clamp(max=len(self.tokens) - 1)]\n"
            "        rows = torch.cat([rows[:, :-1], rows[:, -1:].roll(1, 0)], dim=1)",
            "takes the last target from another row",
        ),
        (
            "item_targets_not_shifted",
            _ITEM,
            "return self.tokens[index:end], self.tokens[index:end]",
            "gives the input of a single example as its target",
        ),
        (
            "item_short",
            _ITEM,
            "return self.tokens[index : end - 1], self.tokens[index + 1 : end]",
            "gives examples of T − 1 tokens",
        ),
        ("last_start_lost", _LENGTH, "return len(self.tokens) - self.block_size - 1", "forgets the last start"),
        (
            "one_start_too_many",
            _LENGTH,
            "return len(self.tokens) - self.block_size + 1",
            "counts a start whose target lies past the end",
        ),
        (
            "tail_dropped",
            "        if whole < targets:\n",
            "        if False:\n",
            "drops what does not fill a whole block: those tokens are never scored",
        ),
        (
            "tail_twice",
            "yield self.tokens[None, whole:-1], self.tokens[None, whole + 1 :]",
            "start = targets - self.block_size\n"
            "            yield self.tokens[None, start:-1], self.tokens[None, start + 1 :]",
            "fills the last block with tokens that were scored before",
        ),
        (
            "blocks_overlap",
            "targets = len(self.tokens) - 1\n",
            "targets = len(self.tokens) - 2\n",
            "leaves the corpus' last token out",
        ),
        (
            "blocks_not_shifted",
            "outputs = self.tokens[1 : whole + 1].view(-1, self.block_size)",
            "outputs = self.tokens[:whole].view(-1, self.block_size)",
            "gives the inputs of its blocks as their targets",
        ),
        (
            "short_corpus_accepted",
            "if len(self.tokens) <= block_size:",
            "if len(self.tokens) < block_size:",
            "accepts a corpus of T tokens, whose one example has no last target",
        ),
        (
            "negative_index",
            "if not 0 <= index < len(self):",
            "if index >= len(self):",
            "reads a negative index from the end, across it",
        ),
        (
            "offsets_unchecked",
            "        if outside.any():\n",
            "        if False:\n",
            "does not look at the offsets it is given: negative ones wrap round",
        ),
        (
            "floats_accepted",
            "    if not integers and len(ids):",
            "    if False:",
            "cuts floating tokens down to integers",
        ),
        ("int32_batches", "    return ids.long()", "    return ids.int()", "gives int32 ids where int64 is promised"),
    ),
    *_of(
        "data.split_tokens",
        (
            "validation_inside_train",
            "return ids[:cut], ids[cut:]",
            "return ids, ids[cut:]",
            "trains on what it validates on",
        ),
        (
            "overlap_of_one",
            "return ids[:cut], ids[cut:]",
            "return ids[:cut], ids[cut - 1 :]",
            "puts one token into both parts",
        ),
        ("gap_of_one", "return ids[:cut], ids[cut:]", "return ids[:cut], ids[cut + 1 :]", "loses the token at the cut"),
        (
            "parts_swapped",
            _CUT,
            "cut = int(len(ids) * Fraction(str(validation)))",
            "trains on the share that was meant for validation",
        ),
        ("always_a_tenth", _CUT, "cut = int(len(ids) * Fraction(9, 10))", "cuts off a tenth whatever was asked for"),
        (
            "rounded_up",
            _CUT,
            "cut = -int(len(ids) * (Fraction(str(validation)) - 1) // 1)",
            "rounds the training part up: one token more than the floor",
        ),
        (
            "shuffled",
            "return ids[:cut], ids[cut:]",
            "ids = ids[torch.randperm(len(ids))]\n    return ids[:cut], ids[cut:]",
            "shuffles tokens before it cuts: no text is left",
        ),
        ("empty_part", "if cut == 0 or cut == len(ids):", "if False:", "returns an empty part"),
    ),
    *_of(
        "data.sample_offsets",
        (
            "last_start_never",
            _DRAW,
            "return torch.randint(max(1, starts - 1), (batch_size,), generator=generator)",
            "never draws the last start",
        ),
        (
            "global_generator",
            _DRAW,
            "return torch.randint(starts, (batch_size,))",
            "draws from the global generator: anything else that draws changes the data",
        ),
        (
            "same_every_step",
            _DIGEST,
            'digest = hashlib.sha256(f"offsets {seed}".encode()).digest()',
            "draws the same batch at every step",
        ),
        (
            "seed_ignored",
            _DIGEST,
            'digest = hashlib.sha256(f"offsets {step}".encode()).digest()',
            "has one order for all seeds",
        ),
        (
            "seed_plus_step",
            _DIGEST,
            'digest = hashlib.sha256(f"offsets {seed + step}".encode()).digest()',
            "adds seed and step: the next seed has the same batches one step later",
        ),
        (
            "without_replacement",
            _DRAW,
            "return torch.randperm(starts, generator=generator).repeat(-(-batch_size // starts))[:batch_size]",
            "draws without replacement: counts come out too even",
        ),
        (
            "favours_the_start",
            _DRAW,
            "return (torch.rand(batch_size, generator=generator) ** 1.1 * starts).long()",
            "prefers the beginning of the corpus",
        ),
    ),
]
