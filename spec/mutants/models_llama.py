"""Mistakes that people make in a Llama: its groups, its rotations, its cache, its padding and its switches."""

from __future__ import annotations

from touchstone import Mutant

_REPEAT = "k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)"
_ROTATE = "q, k = rotary(q, k, positions)"
_KEEP = "k, v = kept(k, v)  # rotated once, by their own positions"
_ATTEND = "x = x + self.dropout(self.attention(self.norm1(x), rotary, positions, mask, kept))"
_FEED = "return x + self.dropout(self.mlp(self.norm2(x)))"
_PLACES = "positions = token_positions(tokens, positions, padding_mask, past, self.config.block_size)"
_MASK = "mask = attention_mask(tokens.shape[1], past, padding_mask, tokens.device)"
_LOGITS = "logits = F.linear(x, self.token_embedding.weight if self.head is None else self.head.weight)"
_ROPE = "RotaryEmbedding(width, base=config.rope_base, pairing=config.pairing)"


def _llama(name: str, old: str, new: str, says: str) -> Mutant:
    return Mutant(name, "models.Llama", old, new, says)


MUTANTS = [
    _llama("groups_tiled", _REPEAT, "k, v = k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1)",
           "deals query heads out to key heads in turn (tile); neighbours share a key head (repeat_interleave)"),
    _llama("values_tiled", _REPEAT, "k, v = k.repeat_interleave(group, dim=1), v.repeat(1, group, 1, 1)",
           "repeats the keys by neighbours and the values in turn"),
    _llama("values_rotated", _ROTATE, "q, k = rotary(q, k, positions)\n            v = rotary(v, v, positions)[0]",
           "rotates the values too"),
    _llama("queries_only", _ROTATE, "q = rotary(q, k, positions)[0]", "rotates queries and leaves the keys"),
    _llama("positions_from_zero", _ROTATE, "q, k = rotary(q, k, torch.arange(q.shape[2]))",
           "rotates by the index in the chunk: a token that continues a cache has another position"),
    _llama("rotated_again", f"{_ROTATE}\n        if kept is not None:\n            {_KEEP}",
           "q = rotary(q, k, positions)[0]\n        if kept is not None:\n            k, v = kept(k, v)"
           "\n        if rotary is not None:\n            k = rotary(k, k, torch.arange(k.shape[2]))[1]",
           "keeps keys unrotated and rotates all of them by their index, which padding shifts"),
    _llama("cache_forgotten", _KEEP, "kept(k, v)", "fills the cache and never reads it"),
    _llama("one_layer_cached", "_Kept(cache, layer)", "_Kept(cache, 0)",
           "keeps every layer's keys in layer 0"),
    _llama("norm_plain_base", _ROPE, "RotaryEmbedding(width, pairing=config.pairing)", "ignores rope_base"),
    _llama("pairing_ignored", _ROPE, "RotaryEmbedding(width, base=config.rope_base)", "pairs halves whatever is asked"),
    _llama("width_of_the_model", _ROPE,
           "RotaryEmbedding(width, base=config.rope_base ** (width / config.n_embd), pairing=config.pairing)",
           "takes the model's width for the head's in the angles"),
    _llama("post_norm", _FEED, "return self.norm2(x + self.dropout(self.mlp(x)))", "normalises after the feed-forward"),
    _llama("no_norm", _FEED, "return x + self.dropout(self.mlp(x))", "feeds the feed-forward without normalising"),
    _llama("parallel", f"{_ATTEND}\n        {_FEED}",
           "attended = self.dropout(self.attention(self.norm1(x), rotary, positions, mask, kept))\n"
           "        return x + attended + self.dropout(self.mlp(self.norm2(x)))",
           "runs both branches on the same input"),
    _llama("no_final_norm", "        x = self.norm(x)\n", "", "has no norm before the head"),
    _llama("no_dropout", _FEED, "return x + self.mlp(self.norm2(x))", "does not drop the feed-forward's output"),
    _llama("attention_not_dropped", _ATTEND, _ATTEND.replace("self.dropout(self.attention(", "(self.attention("),
           "does not drop the attention's output"),
    _llama("eps_fixed", "return RMSNorm(config.n_embd, config.eps)", "return RMSNorm(config.n_embd)", "ignores eps"),
    _llama("layer_norm_eps_fixed", "return Norm(config.n_embd, eps=config.eps, bias=config.bias)",
           "return Norm(config.n_embd, bias=config.bias)", "ignores eps in layer norms"),
    _llama("bias_on_head", "nn.Linear(config.n_embd, config.vocab_size, bias=False)",
           "nn.Linear(config.n_embd, config.vocab_size, bias=config.bias)", "has a bias on its head"),
    _llama("always_untied", "self.head = None if config.tied else", "self.head =", "has a head of its own when tied"),
    _llama("key_bias_missing", "self.k_proj = nn.Linear(config.n_embd, self.kv_heads * width, bias=config.bias)",
           "self.k_proj = nn.Linear(config.n_embd, self.kv_heads * width, bias=False)", "has no bias on its keys"),
    _llama("narrow_default", "n_hidden = gated_width(config.n_embd, 256)", "n_hidden = gated_width(config.n_embd)",
           "does not round the default width up to a multiple of 256"),
    _llama("padding_seen", _MASK, "mask = attention_mask(tokens.shape[1], past, None, tokens.device)",
           "lets real tokens look at padding"),
    _llama("padding_counted", _PLACES,
           "positions = token_positions(tokens, positions, None, past, self.config.block_size)",
           "counts padding: the first real token of a row is not at 0"),
    _llama("cache_not_counted", _PLACES,
           "positions = token_positions(tokens, positions, None if past else padding_mask, 0, self.config.block_size)",
           "begins at position 0 again behind a cache"),
    _llama("future_seen", "is_causal=mask is None", "is_causal=False", "lets every position see the future"),
    _llama("last_block_skipped", "for layer, block in enumerate(self.blocks):",
           "for layer, block in enumerate(self.blocks[:-1]):", "skips its last block"),
    _llama("scaled_logits", _LOGITS, _LOGITS + "\n        logits = logits * self.config.n_embd**-0.5",
           "divides the logits by √d"),
    _llama("loss_shifted_again", "cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)",
           "cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten().long(), ignore_index=IGNORED)",
           "shifts targets that are shifted already"),
    _llama("residual_not_scaled", "residual = 0.02 / (2 * self.config.n_layer) ** 0.5", "residual = 0.02",
           "starts the matrices that end a branch at 0.02"),
    _llama("down_not_scaled", '("out_proj.weight", "mlp.proj.weight", "mlp.down_proj.weight")',
           '("out_proj.weight", "mlp.proj.weight")', "forgets that a gated layer ends in down_proj"),
    _llama("kv_heads_unchecked", "if config.n_kv_head is not None and config.n_head % config.n_kv_head:", "if False:",
           "does not look whether the heads of keys divide those of queries"),
    _llama("pairing_unchecked", '        ("pairing", ("halves", "interleaved")),\n', "",
           "does not look at a pairing that nobody uses"),
]  # fmt: skip
