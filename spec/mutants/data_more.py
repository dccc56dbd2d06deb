"""Mistakes that slipped through the first checks of `data`: kinds of tokens, and bits of a seed that get lost."""

from __future__ import annotations

from touchstone import Mutant

SPLIT, DATASET = "data.split_tokens", "data.TokenDataset"

MUTANTS = [
    Mutant(
        "corpora_run_together",
        DATASET,
        old="    if ids.ndim != 1:",
        new="    ids = ids.flatten()\n    if False:",
        says="reads a matrix of tokens as one corpus: examples cross from one row into the next",
    ),
    Mutant(
        "tokens_are_booleans",
        DATASET,
        old=" or ids.dtype == torch.bool)",
        new=")",
        says="takes a mask for tokens 0 and 1",
    ),
    Mutant(
        "split_keeps_the_dtype",
        SPLIT,
        old="return ids.long()",
        new="return ids",
        says="leaves tokens in the integers they came in",
    ),
    Mutant(
        "split_cuts_off_fractions",
        SPLIT,
        old="    if not integers and len(ids):",
        new="    if False:",
        says="takes floating numbers for tokens and cuts them off",
    ),
    Mutant(
        "seed_loses_its_high_bits",
        "data.sample_offsets",
        old='f"offsets {seed} {step}"',
        new='f"offsets {seed % 2**16} {step}"',
        says="looks at the last sixteen bits of the seed only",
    ),
]
