"""Mistakes that people make when they sample."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, old, new, says) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


_HEAT = "scores = (logits - logits.amax(dim=-1, keepdim=True)) / temperature"
_KTH = "kth = scores.topk(top_k, dim=-1).values[..., -1:]"
_BEFORE = "before = mass.cumsum(dim=-1) - mass"
_SOFT = "    return scores.softmax(dim=-1)\n"
_LAST = "logits = model(tokens[:, -window:])[0][:, -1]"
_DRAWN = "following = torch.multinomial(probabilities, 1, generator=generator)"

MUTANTS = [
    *_of(
        "decoding.next_token_probabilities",
        (
            "temperature_inverted",
            _HEAT,
            _HEAT.replace("/ temperature", "* temperature"),
            "multiplies by the temperature: hot texts come out cold",
        ),
        ("temperature_ignored", _HEAT, _HEAT.replace(" / temperature", ""), "does not use the temperature"),
        (
            "temperature_on_probabilities",
            _SOFT,
            "    p = (scores * temperature).softmax(dim=-1) / temperature\n"
            "    return p / p.sum(dim=-1, keepdim=True)\n",
            "divides probabilities, not logits, by the temperature",
        ),
        (
            "keeps_one_more",
            _KTH,
            "kth = scores.topk(min(top_k + 1, scores.shape[-1]), dim=-1).values[..., -1:]",
            "keeps k + 1 tokens",
        ),
        ("keeps_one_less", _KTH, "kth = scores.topk(max(top_k - 1, 1), dim=-1).values[..., -1:]", "keeps k − 1 tokens"),
        (
            "keeps_the_worst",
            _KTH,
            "kth = scores.topk(top_k, dim=-1, largest=False).values[..., -1:]",
            "measures with the k-th smallest logit",
        ),
        ("drops_the_kth", "scores < kth", "scores <= kth", "drops the k-th token itself"),
        (
            "drops_the_crossing_token",
            _BEFORE,
            "before = mass.cumsum(dim=-1)",
            "drops the token that crosses p: the nucleus falls short of its mass",
        ),
        (
            "one_token_past_p",
            _BEFORE,
            "before = mass.cumsum(dim=-1) - 2 * mass",
            "keeps tokens past the one that crosses p",
        ),
        (
            "nucleus_before_top_k",
            "mass = ordered.softmax(dim=-1)",
            "mass = logits.sort(dim=-1, descending=True, stable=True).values.softmax(dim=-1)",
            "measures the nucleus before temperature and top-k",
        ),
        (
            "least_likely_nucleus",
            "descending=True",
            "descending=False",
            "collects the nucleus from the least probable token up",
        ),
        (
            "not_unsorted",
            "torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, before >= top_p)",
            "before >= top_p",
            "forgets to put the nucleus back into the order of ids",
        ),
        (
            "not_renormalised",
            _SOFT,
            "    p = (logits / temperature).softmax(dim=-1)\n    return torch.where(scores == -math.inf, 0.0, p)\n",
            "does not renormalise what is left",
        ),
        (
            "removed_become_zero_logits",
            "scores = scores.masked_fill(scores < kth, -math.inf)",
            "scores = scores.masked_fill(scores < kth, 0.0)",
            "sets removed logits to 0, which is not improbable",
        ),
        (
            "top_k_must_fit",
            "if top_k is not None and top_k < scores.shape[-1]:",
            "if top_k is not None:",
            "fails where k exceeds the vocabulary",
        ),
        (
            "greedy_at_one",
            "if temperature == 0:\n        best",
            "if temperature in (0, 1):\n        best",
            "is greedy at temperature 1",
        ),
        (
            "last_of_ties",
            "logits.shape[-1]).amin(dim=-1, keepdim=True)",
            "-1).amax(dim=-1, keepdim=True)",
            "takes the last of tied tokens at temperature 0",
        ),
        (
            "nan_passes",
            "if logits.isnan().any() or (logits == math.inf).any():",
            "if (logits == math.inf).any():",
            "lets NaN logits through",
        ),
        (
            "empty_row_passes",
            "if (logits == -math.inf).all(dim=-1).any():",
            "if (logits == -math.inf).all():",
            "misses a row without a possible token among others",
        ),
        (
            "zero_top_p",
            "if top_p is not None and not 0 < top_p <= 1:",
            "if top_p is not None and not 0 <= top_p <= 1:",
            "accepts top_p = 0",
        ),
        (
            "no_shift",
            _HEAT,
            "scores = logits / temperature\n    scores = scores.exp().log()",
            "does not take the maximum away: large logits overflow",
        ),
    ),
    *_of(
        "decoding.sample",
        ("first_position", _LAST, _LAST.replace("[:, -1]", "[:, 0]"), "reads the logits of the first position"),
        (
            "first_tokens",
            _LAST,
            _LAST.replace("tokens[:, -window:]", "tokens[:, :window]"),
            "keeps the beginning of a long text and forgets its end",
        ),
        (
            "window_too_small",
            _LAST,
            _LAST.replace("-window:", "-window + 1 :"),
            "shows the model one token less than it can take",
        ),
        (
            "window_too_large",
            _LAST,
            _LAST.replace("tokens[:, -window:]", "tokens"),
            "does not crop: past the context the model fails",
        ),
        ("one_less", "for _ in range(max_new_tokens):", "for _ in range(max_new_tokens - 1):", "writes one token less"),
        (
            "prompt_left_out",
            "    return tokens\n",
            "    return tokens[:, prompt.shape[1] :]\n",
            "returns the continuation without its prompt",
        ),
        (
            "always_greedy",
            _DRAWN,
            "following = probabilities.argmax(dim=-1, keepdim=True)",
            "never draws: it always takes the most probable token",
        ),
        (
            "generator_ignored",
            _DRAWN,
            "following = torch.multinomial(probabilities, 1)",
            "draws from the global generator whatever it is given",
        ),
        (
            "uniform_among_kept",
            _DRAWN,
            "following = torch.multinomial((probabilities > 0).to(probabilities.dtype), 1, generator=generator)",
            "draws all tokens that are left alike",
        ),
        (
            "first_row_for_all",
            _DRAWN,
            "following = torch.multinomial(probabilities[:1], 1, generator=generator).expand(len(tokens), 1)",
            "draws one token for all rows",
        ),
        (
            "temperature_not_passed",
            "temperature=temperature, top_k=top_k",
            "temperature=min(temperature, 1.0), top_k=top_k",
            "does not heat above temperature 1",
        ),
        (
            "top_k_not_passed",
            "top_k=top_k, top_p=top_p)\n            if",
            "top_p=top_p)\n            if",
            "does not hand top_k on",
        ),
        ("dropout_on", "    model.eval()\n", "", "samples in train mode, dropout on"),
        (
            "left_in_evaluation",
            "            module.training = training\n",
            "            pass\n",
            "leaves the model in eval mode",
        ),
        ("keeps_a_graph", "@torch.no_grad()\n", "", "keeps a graph over the whole text"),
        (
            "prompt_changed",
            "    tokens = prompt.long().clone()\n",
            "    tokens = prompt.long().clone()\n    prompt.zero_()\n",
            "writes into the caller's prompt",
        ),
    ),
]
