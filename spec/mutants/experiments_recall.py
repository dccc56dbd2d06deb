"""Mistakes that people make when they compare a transformer with a recurrent network."""

from __future__ import annotations

from touchstone import Mutant

_ASKED = "loss = F.cross_entropy(asked.flatten(0, 1), tokens[:, : -study.distance].flatten())"


def _study(name: str, old: str, new: str, says: str) -> Mutant:
    return Mutant(name, "experiments.transformer_vs_rnn", old, new, says)


MUTANTS = [
    _study("copies_the_input", _ASKED,
           "loss = F.cross_entropy(asked.flatten(0, 1), tokens[:, study.distance :].flatten())",
           "trains on the token that is there, not on the one some steps back"),
    _study("never_steps", "        optimizer.step()\n", "", "never takes a step"),
    _study("gradients_pile_up", "        optimizer.zero_grad()\n", "", "never clears its gradients"),
    _study("seed_ignored", "generator, losses = torch.Generator().manual_seed(seed), []",
           "generator, losses = torch.Generator().manual_seed(0), []\n    torch.manual_seed(seed)",
           "reseeds the caller's generator"),
    _study("narrow_rnn", "PlainRNN(study.vocab_size, _equal_width(study.vocab_size, _size(gpt)))",
           "PlainRNN(study.vocab_size, study.n_embd)", "gives both the same width, not the same parameters"),
    _study("forgetful_rnn", "h = torch.tanh(x + self.hidden(h))", "h = torch.tanh(x)", "has no recurrence"),
    _study("depth_of_the_layers", "longest[node] = 1 + max((longest[parent] for parent in parents), default=0)",
           "longest[node] = 1 + len(longest)", "counts nodes, not the longest path"),
    _study("every_layer_once", "study.n_layer * _attention_operations(shape, n)",
           "_attention_operations(shape, n) // 2",
           "counts half a layer"),
    _study("untrained_later", "        untrained = _accuracy(logits, study, seed)\n"
           "        losses = _train(name, model, logits, study, seed, progress)\n",
           "        losses = _train(name, model, logits, study, seed, progress)\n"
           "        untrained = _accuracy(logits, study, seed)\n", "measures what is untrained after training"),
    _study("distance_unchecked", "if not 1 <= study.distance < study.length:", "if False:",
           "does not look whether the distance fits"),
]  # fmt: skip
