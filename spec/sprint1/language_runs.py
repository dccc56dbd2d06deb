"""The runs of the two comparisons of language models: apart from the tests, so that a changed assertion trains nothing
again."""

from __future__ import annotations

import sys
from typing import Any

from touchstone.data import datasets

#: Week 4's model and training: 4 layers, width 128, context 64, 1,000 updates of 12.
ABLATION: dict[str, Any] = {}
#: The full set alone, for half as long again.
LONGER = {"steps": 1500, "arms": ["all"]}
#: A smaller model for seven layers of three seeds: 393,216 tokens each.
GLU = {"n_layer": 2, "n_embd": 64, "n_head": 4, "steps": 512, "learning_rate": 2e-3}


def corpus(impl: Any, name: str) -> tuple[Any, Any, int]:
    """Both parts of a text as character tokens, and the size of its alphabet."""
    text = datasets.text(name)
    tokenizer = impl.tokenizers.CharTokenizer(text)
    return *impl.data.split_tokens(tokenizer.encode(text)), tokenizer.vocab_size


def build_ablation(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One seed of the ablation."""
    tokens, held_out, vocab_size = corpus(impl, config["corpus"])
    fields = {name: value for name, value in config.items() if name not in ("corpus", "arms")}
    study, some = impl.experiments.LanguageStudy(**fields), {"arms": config["arms"]} if "arms" in config else {}
    run = impl.experiments.modernization_ablation
    return {}, {"arms": run(study, tokens, held_out, vocab_size, seed=seed, progress=say, **some)}


def build_glu(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One seed of the comparison of feed-forward layers."""
    tokens, held_out, vocab_size = corpus(impl, config["corpus"])
    study = impl.experiments.LanguageStudy(**{name: value for name, value in config.items() if name != "corpus"})
    return {}, {"arms": impl.experiments.glu_variants(study, tokens, held_out, vocab_size, seed=seed, progress=say)}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
