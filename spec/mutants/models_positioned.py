"""Mistakes in a transformer with a switch for its positions; patches of impl/models/positioned.py."""

from __future__ import annotations

from touchstone import Mutant

MODEL = "models.PositionedTransformer"

_LEARNED = "x = x + self.position_embedding(places)"
_SINUSOIDS = "((2 / self.config.d_model) ** 0.5 * sinusoidal_positions(places, self.config.d_model))"
_SLOPES = "alibi_bias(alibi_slopes(self.config.n_head, device=x.device).to(x.dtype), time)"
_MIXED = "F.scaled_dot_product_attention(q, k, v, bias, is_causal=causal and bias is None)"
_TURNED = "q, k = rotary(q, k, places)"
_REFUSED = "if config.positions not in POSITIONS:"

FOUND = [
    (
        "switch_not_exclusive",
        'if named == "learned":',
        'if named != "none":',
        "adds the learned table to every encoding",
    ),
    (
        "table_always_there",
        'if named == "learned":',
        "self.unused = LearnedPositions(config.max_positions, d)\n        if named == 'learned':",
        "keeps a learned table in every state dict",
    ),
    (
        "unknown_is_none",
        _REFUSED,
        "if False:",
        "takes an unknown encoding for none at all",
    ),
    (
        "choices_not_listed",
        "positions must be one of {', '.join(POSITIONS)}, got",
        "positions is unknown:",
        "refuses an unknown encoding without naming the choices",
    ),
    (
        "learned_reversed",
        _LEARNED,
        _LEARNED.replace("places", "places.flip(0)"),
        "counts learned positions from the end",
    ),
    (
        "learned_clamped",
        _LEARNED,
        _LEARNED.replace("places", "places.clamp(max=self.config.max_positions - 1)"),
        "clamps positions beyond the table to its last row",
    ),
    (
        "learned_wrapped",
        _LEARNED,
        _LEARNED.replace("places", "places % self.config.max_positions"),
        "wraps around at the end of the table",
    ),
    (
        "sinusoids_not_scaled",
        _SINUSOIDS,
        "sinusoidal_positions(places, self.config.d_model)",
        "adds unscaled sinusoids",
    ),
    (
        "sinusoids_from_one",
        _SINUSOIDS,
        _SINUSOIDS.replace("(places,", "(places + 1,"),
        "begins with the sinusoids of position 1",
    ),
    ("sinusoids_lost", 'if self.config.positions == "sinusoidal":', "if False:", "adds no sinusoids"),
    ("alibi_without_sign", _SLOPES, "-" + _SLOPES, "rewards distance"),
    (
        "alibi_one_slope",
        _SLOPES,
        _SLOPES.replace(".to(x.dtype)", ".to(x.dtype).mean().expand(self.config.n_head)"),
        "gives every head the mean slope",
    ),
    (
        "alibi_before_the_scale",
        "return bias[None]",
        "return bias[None] * (self.config.n_head / self.config.d_model) ** 0.5",
        "adds the bias to unscaled scores: divides it by √d_k too",
    ),
    (
        "bias_forgets_the_mask",
        "        if self.config.causal:\n            bias",
        "        if False:\n            bias",
        "looks ahead wherever a bias is added",
    ),
    (
        "encoder_masked",
        "        if self.config.causal:\n            bias",
        "        if True:\n            bias",
        "masks the future of an encoder that has a bias",
    ),
    ("bias_ignored", _MIXED, "F.scaled_dot_product_attention(q, k, v, is_causal=causal)", "forgets to add the bias"),
    (
        "always_causal",
        _MIXED,
        _MIXED.replace("causal and bias is None", "bias is None"),
        "is causal as an encoder, too",
    ),
    ("never_causal", _MIXED, "F.scaled_dot_product_attention(q, k, v, bias)", "looks ahead unless a bias is added"),
    (
        "values_turned",
        _TURNED,
        "q, k = rotary(q, k, places)\n            v, _ = rotary(v, v, places)",
        "rotates values too",
    ),
    ("queries_only", _TURNED, "q, _ = rotary(q, k, places)", "rotates queries only"),
    (
        "rotated_before_the_heads",
        _TURNED,
        "q, k = rotary(q.transpose(1, 2), k.transpose(1, 2), torch.arange(q.shape[1]))\n"
        "            q, k = q.transpose(1, 2), k.transpose(1, 2)",
        "takes heads for positions",
    ),
    (
        "relative_bidirectional",
        "bidirectional=not config.causal",
        "bidirectional=True",
        "gives a causal model buckets for the future",
    ),
    (
        "relative_in_the_first_layer",
        "for block in self.blocks:\n            x = block(x, places, self.rotary, bias, self.config.causal)",
        "for block in self.blocks:\n            x = block(x, places, self.rotary, bias, self.config.causal)\n"
        "            bias = None if self.relative is not None else bias",
        "uses the relative bias in its first layer only",
    ),
    (
        "head_tied",
        "self.head(self.norm(x))",
        "F.linear(self.norm(x), self.token_embedding.weight)",
        "reads the head off the embedding",
    ),
    ("norm_lost", "self.head(self.norm(x))", "self.head(x)", "lacks the final norm"),
    (
        "post_norm",
        "x = x + self.attention(self.norm1(x), places",
        "x = self.norm1(x) + self.attention(self.norm1(x), places",
        "puts the norm on the residual path",
    ),
    (
        "loss_summed",
        "targets.flatten().long(), ignore_index=IGNORED)",
        "targets.flatten().long(), ignore_index=IGNORED, reduction='sum')",
        "sums the loss",
    ),
    (
        "head_wide",
        "nn.init.normal_(self.head.weight, std=0.02)",
        "nn.init.normal_(self.head.weight, std=1.0)",
        "begins with logits of size 8",
    ),
    (
        "relative_begins_at_random",
        "        nn.init.normal_(self.head.weight, std=0.02)",
        "        nn.init.normal_(self.head.weight, std=0.02)\n"
        "        if self.relative is not None:\n            nn.init.normal_(self.relative.weight)",
        "begins with a random relative bias",
    ),
]

MUTANTS = [Mutant(f"positioned_{name}", MODEL, old, new, says) for name, old, new, says in FOUND]
