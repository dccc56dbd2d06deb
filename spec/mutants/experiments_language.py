"""Mistakes that people make when they compare language models."""

from __future__ import annotations

from touchstone import Mutant


def _ablation(name: str, old: str, new: str, says: str) -> Mutant:
    return Mutant(name, "experiments.modernization_ablation", old, new, says)


MUTANTS = [
    _ablation("arms_in_one_stream", "    set_seed(seed)\n", "",
              "does not seed each arm: their weights depend on the order"),
    _ablation("caller_reseeded", "        torch.set_rng_state(state)\n", "        pass\n",
              "leaves the caller reseeded"),
    _ablation("wide_gates", "n_hidden=gated_width(study.n_embd) if gated else None",
              "n_hidden=4 * study.n_embd if gated"
              " else None", "gives gated layers half as many parameters again"),
    _ablation("data_seed_fixed", "order.update(sample_offsets(len(data), study.batch_size, seed=seed, step=step)",
              "order.update(sample_offsets(len(data), study.batch_size, seed=0, step=step)",
              "tells the data order of another seed"),
    _ablation("trained_on_held_out", "log = train(model, data, training)", "log = train(model, validation, training)",
              "trains on the validation text"),
    _ablation("training_loss_reported", "loss = evaluate(model, validation)", "loss = log.loss[-1]",
              "reports the last training loss as validation"),
    _ablation("refusal_hidden", "        return str(refusal)\n", "        return float(str(refusal)[-1:] == 'x')\n",
              "reports a refusal as a loss of 0"),
    _ablation("longer_is_as_long", "    length = 2 * model.config.block_size\n",
              "    length = model.config.block_size\n",
              "does not go beyond the trained length"),
    _ablation("biases_kept", '"positions": "rotary", "bias": False},', '"positions": "rotary"},', "keeps the biases"),
    _ablation("memory_of_the_weights", "return 4 * weights + sum(", "return 4 * weights + 0 * sum(",
              "does not count what is kept for the backward"),
    Mutant("gates_ignored", "experiments.glu_variants", "_config(study, vocab_size, activation=variant, tied=True)",
           '_config(study, vocab_size, activation="swiglu", tied=True)', "trains one layer seven times"),
    Mutant("one_seed", "experiments.language_table", "{fmean(losses):.3f}", "{losses[0]:.3f}",
              "prints the first seed's loss"),
    Mutant("population_spread", "experiments.language_table", "{stdev(losses):.3f}",
           "{stdev(losses) * ((len(losses) - 1) / len(losses)) ** 0.5:.3f}", "divides by n, not by n − 1"),
]  # fmt: skip
