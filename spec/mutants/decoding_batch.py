"""Mistakes that people make in batched decoding; patches of impl/decoding/generation.py and impl/experiments."""

from __future__ import annotations

from touchstone import Mutant

GENERATE = "decoding.generate"
BENCHMARK = "experiments.benchmark_decode"

_POSITIONS = "positions = (columns[seen:] - self.pads[:, None]).clamp(min=0)"
_MASK = "mask = real[:, None, None, :] if self.ragged else None"
_NEW = "self.tokens[:, seen:]"

DECODING = [
    (
        "padded_positions",
        _POSITIONS,
        "positions = columns[seen:].expand(len(self.pads), -1)",
        "counts positions from the padding, not from the prompt",
    ),
    (
        "positions_from_zero",
        _POSITIONS,
        "positions = (columns[seen:] - seen - self.pads[:, None]).clamp(min=0)",
        "gives every new token the position of the first",
    ),
    (
        "position_off_by_one",
        _POSITIONS,
        "positions = (columns[seen:] - self.pads[:, None] + (seen > 0)).clamp(min=0, max=self.config.block_size - 1)",
        "leaves a position out between prompt and continuation",
    ),
    ("padding_seen", _MASK, "mask = None", "lets queries see the padding"),
    (
        "padding_seen_by_new_tokens",
        _MASK,
        "mask = real[:, None, None, :] if self.ragged and not seen else None",
        "masks the padding in the prefill only",
    ),
    (
        "padding_on_the_right",
        "real = columns >= self.pads[:, None]",
        "real = columns < total - self.pads[:, None]",
        "masks as if the padding stood on the right",
    ),
    ("prefill_sees_ahead", "is_causal=causal)", "is_causal=False)", "lets the prompt see ahead"),
    (
        "nothing_is_cached",
        "keys, values = self.cache.append(layer, key, value)",
        "keys, values = (part[:, :, seen:] for part in self.cache.append(layer, key, value))",
        "lets a new token see itself only",
    ),
    (
        "first_row_decides",
        "following = _lowest_argmax(logits[:, -1])",
        "following = _lowest_argmax(logits[:1, -1]).expand(len(logits), 1)",
        "gives all rows the first row's token",
    ),
    ("mean_position", "logits[:, -1]", "logits[:, 0]", "continues the first position, not the last"),
    (
        "highest_of_equals",
        "_lowest_argmax(logits[:, -1])",
        "(logits.shape[-1] - 1 - logits[:, -1].flip(-1).argmax(dim=-1, keepdim=True))",
        "takes the highest of equal ids",
    ),
    (
        "lowest_logit",
        "_lowest_argmax(logits[:, -1])",
        "_lowest_argmax(-logits[:, -1])",
        "takes the least probable token",
    ),
    ("prompts_returned", "return batch.tokens[:, longest:]", "return batch.tokens", "returns the padded prompts too"),
    (
        "one_token_too_many",
        "for _ in range(max_new_tokens):",
        "for _ in range(max_new_tokens + 1):",
        "goes on for one token more",
    ),
    (
        "recomputes_everything",
        "        seen, total = self.cache.length(), self.tokens.shape[1]",
        "        self.cache._lengths = [0] * len(self.cache._lengths)\n"
        "        seen, total = self.cache.length(), self.tokens.shape[1]",
        "computes the whole context for every token",
    ),
    (
        "context_unchecked",
        "prompt, lengths[row] + max_new_tokens",
        "prompt, lengths[row]",
        "does not look whether the new tokens fit",
    ),
    ("negative_accepted", "if max_new_tokens < 0:", "if False:", "accepts a negative number of tokens"),
    ("ids_unchecked", "            check_tokens(", "            0 and check_tokens(", "does not look at its prompts"),
    (
        "ragged_by_the_first",
        "self.ragged = min(lengths) < longest",
        "self.ragged = lengths[0] < longest",
        "masks padding only where the first row has some",
    ),
    ("empty_batch", "if not prompts:", "if False:", "accepts no prompts"),
]

_STEPS = '"step_seconds": [end - begin for begin, end in pairwise(readings[1:])]'
MEASURING = [
    (
        "prefill_is_decoding",
        "seconds = readings[-1] - readings[1]",
        "seconds = readings[-1] - readings[0]",
        "counts the prefill as decoding",
    ),
    ("prefill_is_a_step", _STEPS, _STEPS.replace("readings[1:]", "readings"), "lists the prefill among the steps"),
    (
        "prompts_are_counted",
        "generated = batch * new_tokens",
        "generated = batch * new_tokens + sum(prompt.numel() for prompt in prompts[:batch])",
        "counts prompt tokens as generated",
    ),
    (
        "prefill_token_is_counted",
        "generated = batch * new_tokens",
        "generated = batch * (new_tokens + 1)",
        "counts the prefill's token without its time",
    ),
    ("one_row_is_counted", "generated = batch * new_tokens", "generated = new_tokens", "counts one row of the batch"),
    ("latency_of_the_batch", "seconds / new_tokens,", "seconds / generated,", "divides the latency by the batch"),
    (
        "padding_is_counted",
        '"prompt_tokens": sum(prompt.numel() for prompt in prompts[:batch])',
        '"prompt_tokens": batch * max(prompt.numel() for prompt in prompts[:batch])',
        "counts padding as prompt",
    ),
    (
        "same_batch_always",
        "decoding = GreedyBatch(model, prompts[:batch],",
        "decoding = GreedyBatch(model, prompts,",
        "times the largest batch in every row",
    ),
    (
        "one_prompt_repeated",
        "decoding = GreedyBatch(model, prompts[:batch],",
        "decoding = GreedyBatch(model, prompts[:1] * batch,",
        "times one prompt again and again",
    ),
    (
        "sizes_ignored",
        "    for batch in batch_sizes:\n        for _ in range(2):",
        "    for batch in (1, 2, 4, 8, 16)[: len(prompts).bit_length()]:\n        for _ in range(2):",
        "ignores the batch sizes it is given",
    ),
    (
        "own_clock",
        "readings = [_now(clock, decoding.tokens)]",
        "clock = time.process_time\n            readings = [_now(clock, decoding.tokens)]",
        "reads another clock than it is given",
    ),
    (
        "any_batch",
        "        if not 1 <= batch <= len(prompts):",
        "        if not 1 <= batch:",
        "accepts a batch larger than its prompts",
    ),
    ("no_steps", "if new_tokens < 1:", "if new_tokens < 0:", "accepts a run without a step"),
    (
        "last_step_untimed",
        "seconds = readings[-1] - readings[1]",
        "seconds = readings[-2] - readings[1]",
        "leaves the last step's time out",
    ),
]

MUTANTS = [
    *(Mutant(name, GENERATE, old, new, says) for name, old, new, says in DECODING),
    *(Mutant(f"benchmark_{name}", BENCHMARK, old, new, says) for name, old, new, says in MEASURING),
]
