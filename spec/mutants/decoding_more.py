"""Mistakes that slipped through the first checks of `decoding`: boundaries, square shapes, overflow, modes of parts."""

from __future__ import annotations

from touchstone import Mutant

NEXT, SAMPLE = "decoding.next_token_probabilities", "decoding.sample"

MUTANTS = [
    Mutant(
        "temperature_overflows",
        NEXT,
        old="scores = (logits - logits.amax(dim=-1, keepdim=True)) / temperature",
        new="scores = logits / temperature",
        says="divides before it shifts: a tiny temperature overflows to NaN",
    ),
    Mutant(
        "all_but_one_is_all",
        NEXT,
        old="top_k < scores.shape[-1]:",
        new="top_k < scores.shape[-1] - 1:",
        says="removes nothing where top_k leaves out a single token",
    ),
    Mutant(
        "nucleus_must_exceed_p",
        NEXT,
        old="before >= top_p)",
        new="before > top_p)",
        says="adds a token to a nucleus whose mass is already p exactly",
    ),
    Mutant(
        "softmax_over_the_batch_of_a_square",
        NEXT,
        old="    return scores.softmax(dim=-1)",
        new="    return scores.softmax(dim=0 if scores.ndim == 2 and scores.shape[0] == scores.shape[1] else -1)",
        says="normalises over the batch where it is as long as the vocabulary",
    ),
    Mutant(
        "parts_follow_the_whole",
        SAMPLE,
        old="            module.training = training\n",
        new="            module.training = modes[0][1]\n",
        says="puts every part of the model into the mode of the whole: a frozen part trains again",
    ),
    Mutant(
        "no_new_tokens_no_copy",
        SAMPLE,
        old="tokens = prompt.long().clone()",
        new="tokens = prompt.long()",
        says="gives back the very prompt where it adds nothing",
    ),
]
