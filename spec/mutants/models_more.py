"""Mistakes that slipped through the first checks of `models`: what is dropped, what is seeded, what may change."""

from __future__ import annotations

from touchstone import Mutant

GPT = "models.GPT"

MUTANTS = [
    Mutant(
        "positions_are_not_dropped",
        GPT,
        old="        x = self.token_embedding(tokens) + rows  # (batch, time, d)\n        x = self.dropout(x)\n",
        new="        x = self.dropout(self.token_embedding(tokens)) + rows\n",
        says="drops token embeddings before the positions are added, not the sum",
    ),
    Mutant(
        "targets_of_as_many_numbers",
        GPT,
        old="targets.shape != tokens.shape:",
        new="targets.numel() != tokens.numel():",
        says="accepts targets of another shape if only there are as many: transposed ones are silently wrong",
    ),
    Mutant(
        "reseeds_the_generator",
        GPT,
        old="        self._initialise()\n",
        new="        torch.manual_seed(0)\n        self._initialise()\n",
        says="seeds the global generator itself: every model begins alike, whatever the caller's seed",
    ),
    Mutant(
        "configuration_can_change",
        "models.GPTConfig",
        old="@dataclass(frozen=True)\n",
        new="@dataclass\n",
        says="can be changed after a model was built from it, which does not follow",
    ),
]
