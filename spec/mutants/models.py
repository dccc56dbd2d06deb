"""Mistakes that people make in a GPT: its wiring, its head, its loss and its first weights."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, old, new, says) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


_ATTEND = "x = x + self.dropout(self.attention(self.norm1(x), mask))"
_FEED = "return x + self.mlp(self.norm2(x))"
_HIDDEN = "return self.dropout(self.proj(F.gelu(self.fc(x), approximate=self.approximate)))"

FEED_FORWARD = [
    (
        "gelu_exact",
        "approximate=self.approximate",
        'approximate="none"',
        "uses the exact GELU; GPT-2 has the form with tanh",
    ),
    (
        "always_tanh",
        "approximate=self.approximate",
        'approximate="tanh"',
        "has GELU's tanh form where the exact was asked",
    ),
    (
        "any_form",
        'if approximate not in ("tanh", "none"):',
        "if False:",
        "takes any word for a form of GELU and fails when it is first called",
    ),
    ("relu", _HIDDEN, "return self.dropout(self.proj(F.relu(self.fc(x))))", "uses ReLU where GPT-2 has GELU"),
    (
        "no_activation",
        _HIDDEN,
        "return self.dropout(self.proj(self.fc(x)))",
        "has no activation: two linear layers are one",
    ),
    (
        "dropout_before_projection",
        _HIDDEN,
        "return self.proj(self.dropout(F.gelu(self.fc(x), approximate=self.approximate)))",
        "drops hidden units before the projection instead of the layer's output",
    ),
    (
        "no_dropout",
        _HIDDEN,
        "return self.proj(F.gelu(self.fc(x), approximate=self.approximate))",
        "never drops anything",
    ),
    (
        "dropout_in_evaluation",
        _HIDDEN,
        "return F.dropout(self.proj(F.gelu(self.fc(x), approximate=self.approximate)), self.dropout.p)",
        "drops in evaluation too: F.dropout is not told the mode",
    ),
    (
        "dropout_without_rescaling",
        _HIDDEN,
        f"{_HIDDEN} * (1 - self.dropout.p * self.training)",
        "does not scale what it keeps by 1/(1 − p), so the mean falls in training",
    ),
    (
        "half_width",
        "self.fc = nn.Linear(d_model, 4 * d_model, bias=bias)\n"
        "        self.proj = nn.Linear(4 * d_model, d_model, bias=bias)",
        "self.fc = nn.Linear(d_model, 2 * d_model, bias=bias)\n"
        "        self.proj = nn.Linear(2 * d_model, d_model, bias=bias)",
        "is twice as wide as the model inside, not four times",
    ),
    (
        "bias_ignored",
        "self.proj = nn.Linear(4 * d_model, d_model, bias=bias)",
        "self.proj = nn.Linear(4 * d_model, d_model, bias=True)",
        "has a bias in its projection also where bias=False was asked for",
    ),
    (
        "any_probability",
        "if not 0.0 <= dropout < 1.0:",
        "if not 0.0 <= dropout <= 1.0:",
        "accepts a dropout of 1, which leaves nothing",
    ),
]

BLOCK = [
    ("form_lost", ", approximate=approximate)", ")", "does not hand the form of GELU on to its feed-forward layer"),
    (
        "post_norm",
        f"{_ATTEND}\n        {_FEED}",
        "x = self.norm1(x + self.dropout(self.attention(x, mask)))\n        return self.norm2(x + self.mlp(x))",
        "normalises after the addition (post-norm); GPT-2 normalises what enters a branch",
    ),
    (
        "no_residual_attention",
        _ATTEND,
        "x = self.dropout(self.attention(self.norm1(x), mask))",
        "has no residual connection around attention",
    ),
    ("no_residual_mlp", _FEED, "return self.mlp(self.norm2(x))", "has no residual connection around the feed-forward"),
    ("no_norm1", _ATTEND, "x = x + self.dropout(self.attention(x, mask))", "feeds attention without normalising"),
    ("no_norm2", _FEED, "return x + self.mlp(x)", "feeds the feed-forward without normalising"),
    ("one_norm_twice", _FEED, "return x + self.mlp(self.norm1(x))", "uses the first norm in both places"),
    (
        "residual_from_norm",
        _ATTEND,
        "x = self.norm1(x)\n        x = x + self.dropout(self.attention(x, mask))",
        "adds to the normalised stream: the residual path no longer is the identity",
    ),
    (
        "parallel_branches",
        f"{_ATTEND}\n        {_FEED}",
        "return x + self.dropout(self.attention(self.norm1(x), mask)) + self.mlp(self.norm2(x))",
        "runs both branches on the same input (as GPT-J does) instead of one after the other",
    ),
    (
        "no_attention_dropout_on_output",
        _ATTEND,
        "x = x + self.attention(self.norm1(x), mask)",
        "does not drop the attention's output",
    ),
    ("not_causal", "is_causal=mask is None", "is_causal=False", "lets every position see the future"),
    ("no_dropout_on_weights", "dropout_p=dropped", "dropout_p=0.0", "does not drop attention weights"),
    (
        "weights_dropped_in_evaluation",
        "dropped = self.dropout if self.training else 0.0",
        "dropped = self.dropout",
        "drops attention weights in evaluation: the functional form does not know the mode",
    ),
    (
        "heads_interleaved",
        "projection(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)",
        "projection(x).unflatten(-1, (-1, self.n_heads)).transpose(-1, -2).transpose(1, 2)",
        "deals the channels out to the heads in turn; head i has the i-th run of neighbours",
    ),
    (
        "heads_not_transposed_back",
        "self.out_proj(mixed.transpose(1, 2).flatten(2))",
        "self.out_proj(mixed.reshape(x.shape))",
        "joins the heads without transposing back: positions and heads are mixed up",
    ),
    (
        "keys_as_values",
        "for projection in (self.q_proj, self.k_proj, self.v_proj)",
        "for projection in (self.q_proj, self.k_proj, self.k_proj)",
        "mixes the keys where the values belong",
    ),
    (
        "norm_bias_kept",
        "self.norm2 = Norm(d_model, bias=bias)",
        "self.norm2 = Norm(d_model)",
        "keeps the bias of a norm where bias=False was asked for",
    ),
    (
        "detached_branch",
        _FEED,
        "return x + self.mlp(self.norm2(x.detach()))",
        "cuts the gradient through the feed-forward's input: the forward pass is right",
    ),
    (
        "norm_eps",
        "self.norm1 = Norm(d_model, bias=bias)",
        "self.norm1 = Norm(d_model, eps=1e-3, bias=bias)",
        "uses an eps of 1e-3",
    ),
]

_EMBED = "x = self.token_embedding(tokens) + rows  # (batch, time, d)"
_ROWS = "rows = self.position_embedding.weight[: tokens.shape[1]]"
_LOGITS = "F.linear(x, self.token_embedding.weight if self.head is None else self.head.weight)"
_LOSS = "cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)"
_STACK = "for block in self.blocks:\n            x = block(x, mask)"

MODEL = [
    ("no_positions", _EMBED, "x = self.token_embedding(tokens)", "adds no position embedding"),
    (
        "positions_from_one",
        _ROWS,
        "rows = self.position_embedding.weight.roll(-1, 0)[: tokens.shape[1]]",
        "counts positions from 1",
    ),
    (
        "positions_from_the_end",
        _ROWS,
        "rows = self.position_embedding.weight[-tokens.shape[1] :]",
        "takes the last positions of the table for a short sequence",
    ),
    (
        "scaled_embedding",
        _EMBED,
        "x = self.token_embedding(tokens) * self.config.n_embd**0.5 + rows",
        "multiplies the token embedding by √d, as the 2017 transformer does and GPT-2 does not",
    ),
    ("no_final_norm", "        x = self.norm(x)\n", "", "has no norm before the head"),
    (
        "norm_before_blocks",
        f"{_STACK}\n        x = self.norm(x)",
        f"x = self.norm(x)\n        {_STACK}",
        "normalises before the blocks, not after",
    ),
    ("one_block_less", "for block in self.blocks:", "for block in self.blocks[:-1]:", "skips its last block"),
    ("first_block_again", "x = block(x, mask)", "x = self.blocks[0](x, mask)", "runs the first block in every place"),
    (
        "blocks_backwards",
        "for block in self.blocks:",
        "for block in reversed(self.blocks):",
        "runs its blocks from last to first",
    ),
    (
        "untied_head",
        "self.head = None if config.tied else nn.Linear(",
        "self.head = nn.Linear(",
        "has a head of its own: 124 million parameters become 163",
    ),
    (
        "always_tied",
        "self.head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)",
        "self.head = None",
        "ties the head also where tied=False was asked for",
    ),
    (
        "copied_head",
        _LOGITS,
        "F.linear(x, self.token_embedding.weight.detach() if self.head is None else self.head.weight)",
        "reads the tied head without its gradient: the embedding learns only from its use at the input",
    ),
    (
        "scaled_logits",
        f"logits = {_LOGITS}",
        f"logits = {_LOGITS} * self.config.n_embd**-0.5",
        "divides the logits by √d (T5's rule for tied heads; GPT-2 has none)",
    ),
    (
        "loss_shifted_again",
        _LOSS,
        "cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten().long(), ignore_index=IGNORED)"
        " if tokens.shape[1] > 1 else cross_entropy(logits.flatten(0, 1), targets.flatten().long(), "
        "ignore_index=IGNORED)",
        "shifts targets that the loader has shifted already: it learns to predict two tokens on",
    ),
    (
        "loss_of_the_input",
        _LOSS,
        _LOSS.replace("targets.flatten()", "tokens.flatten()"),
        "scores the token it was given, not the next one",
    ),
    (
        "ignored_in_the_mean",
        _LOSS,
        _LOSS + " * (targets != IGNORED).float().mean().to(logits.dtype)",
        "divides by all targets, the ignored ones too",
    ),
    (
        "loss_summed",
        _LOSS,
        'cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED, reduction="sum")',
        "sums the loss instead of averaging it",
    ),
    (
        "zero_ignored",
        "ignore_index=IGNORED)",
        "ignore_index=0)",
        "takes id 0 for padding and leaves it out of the loss",
    ),
    ("no_embedding_dropout", "        x = self.dropout(x)\n", "", "does not drop embeddings"),
    (
        "embeddings_dropped_in_evaluation",
        "        x = self.dropout(x)\n",
        "        x = F.dropout(x, self.config.dropout)\n",
        "drops embeddings in evaluation too",
    ),
    (
        "dropout_not_passed_on",
        "                dropout=config.dropout,\n",
        "",
        "does not hand dropout on to its blocks",
    ),
    (
        "form_not_passed_on",
        "                approximate=config.approximate,\n",
        "",
        "has GELU's tanh form in its blocks where the exact one was asked for",
    ),
    (
        "residual_not_scaled",
        "residual = 0.02 / (2 * self.config.n_layer) ** 0.5",
        "residual = 0.02",
        "starts residual projections at 0.02: the stream's variance grows with depth",
    ),
    (
        "residual_scaled_by_layers",
        "residual = 0.02 / (2 * self.config.n_layer) ** 0.5",
        "residual = 0.02 / self.config.n_layer**0.5",
        "scales residual projections by 1/√L; a block has two branches, so it is 1/√(2 L)",
    ),
    (
        "only_attention_scaled",
        '(("out_proj.weight", "mlp.proj.weight"))',
        '("out_proj.weight")',
        "scales only the attention's residual projection",
    ),
    (
        "torch_defaults",
        "        self._initialise()\n",
        "",
        "keeps torch's default weights: embeddings of σ = 1 and a first loss far above ln V",
    ),
    ("embedding_wide", "parameter.normal_(0.0, 0.02)", "parameter.normal_(0.0, 0.04)", "starts matrices at σ = 0.04"),
    (
        "uniform_start",
        "parameter.normal_(0.0, 0.02)",
        "parameter.uniform_(-0.0346, 0.0346)",
        "draws weights uniformly with the right σ",
    ),
    (
        "long_allowed",
        "if tokens.shape[1] > self.config.block_size:",
        "if tokens.shape[1] > self.config.block_size + 2:",
        "lets sequences past the context through",
    ),
    (
        "padding_seen",
        "mask = attention_mask(tokens.shape[1], 0, padding_mask, tokens.device)",
        "mask = None",
        "lets real tokens look at padding",
    ),
    (
        "padding_counted",
        "places = token_positions(tokens, positions, padding_mask, 0, self.config.block_size)",
        "places = token_positions(tokens, positions, None, 0, self.config.block_size)",
        "counts padding: the first real token of a row is not at position 0",
    ),
    (
        "positions_ignored",
        "places = token_positions(tokens, positions, padding_mask, 0, self.config.block_size)",
        "places = token_positions(tokens, None, padding_mask, 0, self.config.block_size)",
        "ignores the positions it is given",
    ),
    ("negative_ids", "if low < 0 or high", "if high", "does not refuse a negative id"),
    ("last_id_refused_late", "high >= self.config.vocab_size:", "high > self.config.vocab_size:", "accepts the id V"),
    (
        "gain_of_norms_zero",
        'parameter.fill_(0.0 if name.endswith("bias") else 1.0)',
        "parameter.fill_(0.0)",
        "starts the gains of norms at 0",
    ),
]

MUTANTS = [
    *_of("models.FeedForward", *FEED_FORWARD),
    *_of("models.Block", *BLOCK),
    *_of("models.GPT", *MODEL),
]
