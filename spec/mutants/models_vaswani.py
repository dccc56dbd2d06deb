"""Mistakes that people make in the encoder, in the encoder-decoder Transformer, in beam search and in its schedule."""

from __future__ import annotations

from touchstone import Mutant

_ORDER = "return x + function(norm(x)) if norm_first else norm(x + function(x))"
_SELF = "x = self.norm1(x + self.dropout(self.attention(x, is_causal=True)))"
_CROSS = "x = self.norm2(x + self.dropout(self.cross_attention(x, memory, key_padding_mask=source_mask)))"
_FEED = "return self.norm3(x + self.dropout(self.mlp(x)))"
_SCALED = "scaled = self.embedding(ids) * self.config.d_model**0.5"
_SUM = "return self.dropout(scaled + places.to(scaled.dtype))"
_OUT = "return F.linear(x, self.embedding.weight)"
_TOTAL = "total = (scores[:, None] + logits.double().log_softmax(dim=-1)).flatten()"
_LP = "return score.item() / ((5 + length) / 6) ** length_penalty"
_NOAM = "return factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)"


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


MUTANTS = [
    *_of(
        "models.EncoderBlock",
        ("order_ignored", _ORDER, "return norm(x + function(x))", "is post-norm whatever was asked for"),
        ("norm_of_the_branch", _ORDER, "return x + function(norm(x)) if norm_first else x + norm(function(x))",
         "normalises what a branch gives instead of the sum"),
        ("pre_norm_residual", _ORDER,
         "return norm(x) + function(norm(x)) if norm_first else norm(x + function(x))",
         "adds to the normalised stream in pre-norm form"),
        ("mask_forgotten", "self.attention(h, key_padding_mask=padding_mask)", "self.attention(h)",
         "lets everybody attend to padding"),
        ("mask_inverted", "key_padding_mask=padding_mask)", "key_padding_mask=None if padding_mask is None else"
         " ~padding_mask | padding_mask.all(-1, keepdim=True))", "means padding by True, as torch does"),
        ("causal", "key_padding_mask=padding_mask))", "key_padding_mask=padding_mask, is_causal=True))",
         "looks only back: an encoder sees the whole row"),
        ("width_ignored", "PlainMLP(d_model, n_hidden,", "PlainMLP(d_model, 4 * d_model,", "ignores n_hidden"),
        ("attention_not_dropped", "return self.dropout(self.attention(", "return (self.attention(",
         "does not drop the attention's output"),
        ("weights_dropped", "MultiHeadAttention(d_model, n_heads)",
           "MultiHeadAttention(d_model, n_heads, dropout=dropout)",
         "drops attention weights as well"),
        ("one_norm", "sublayer(x, self.norm2,", "sublayer(x, self.norm1,", "uses the first norm in both places"),
    ),
    *_of(
        "models.Encoder",
        ("mask_in_no_block", "x = block(x, padding_mask=padding_mask)", "x = block(x)", "does not hand the mask on"),
        ("mask_in_the_first", "x = block(x, padding_mask=padding_mask)",
         "x = block(x, padding_mask=padding_mask if block is self.blocks[0] else None)",
           "masks in its first block only"),
        ("shared_blocks", "for block in self.blocks:", "for block in [self.blocks[0]] * len(self.blocks):",
         "runs its first block again and again"),
        ("order_not_passed", "norm_first=norm_first, dropout=dropout) for", "dropout=dropout) for",
         "does not hand norm_first on"),
        ("dropout_not_passed", "norm_first=norm_first, dropout=dropout) for", "norm_first=norm_first) for",
         "does not hand dropout on"),
    ),
    *_of(
        "models.Transformer",
        ("embedding_not_scaled", _SCALED, "scaled = self.embedding(ids)", "does not multiply the embedding by √d"),
        ("positions_scaled", _SUM, "return self.dropout(scaled + places.to(scaled.dtype) * self.config.d_model**0.5)",
         "multiplies the positions by √d too"),
        ("no_positions", _SUM, "return self.dropout(scaled)", "adds no positions"),
        ("half_split", _SUM, "places = torch.cat([places[:, 0::2], places[:, 1::2]], dim=1)\n"
         "        return self.dropout(scaled + places.to(scaled.dtype))",
         "puts sines in the first half and cosines in the second"),
        ("only_embeddings_dropped", _SUM, "return self.dropout(scaled) + places.to(scaled.dtype)",
         "drops the embedding, not its sum with the positions"),
        ("logits_scaled", _OUT, "return F.linear(x, self.embedding.weight) * self.config.d_model**0.5",
         "multiplies by √d at the output as well"),
        ("output_detached", _OUT, "return F.linear(x, self.embedding.weight.detach())",
         "does not learn the embedding from its use as projection"),
        ("not_causal", _SELF, "x = self.norm1(x + self.dropout(self.attention(x)))", "sees targets to come"),
        ("cross_mask_forgotten", _CROSS, "x = self.norm2(x + self.dropout(self.cross_attention(x, memory)))",
         "attends to source padding in the decoder"),
        ("cross_values_from_target", _CROSS,
         "x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory * 0 + memory.mean(1, keepdim=True),"
         " key_padding_mask=source_mask)))", "mixes the mean of the source whatever it attends to"),
        ("cross_causal", _CROSS,
         "x = self.norm2(x + self.dropout(self.cross_attention(x, memory, key_padding_mask=source_mask,"
         " is_causal=True)))", "looks at the source causally"),
        ("pre_norm_feed_forward", _FEED, "return x + self.dropout(self.mlp(self.norm3(x)))",
         "normalises before its feed-forward layer"),
        ("cross_not_added", _CROSS,
         "x = self.norm2(self.dropout(self.cross_attention(x, memory, key_padding_mask=source_mask)))",
         "has no residual connection around the attention to the source"),
        ("encoder_mask_forgotten", "self._embed(\"source\", source), padding_mask=source_mask)",
         "self._embed(\"source\", source))", "lets the encoder see padding"),
        ("encoder_without_dropout", "config.n_hidden, dropout=config.dropout)", "config.n_hidden)",
           "drops nothing in the encoder"),
        ("embedding_wide", "parameter.normal_(0.0, self.config.d_model**-0.5)", "parameter.normal_(0.0, 1.0)",
         "starts the embedding at σ = 1, which √d makes √d"),
        ("last_id_accepted", "if not 0 <= int(bound) < self.config.vocab_size:",
         "if not -1 <= int(bound) <= self.config.vocab_size:", "looks for ids outside by one too far"),
    ),
    *_of(
        "decoding.beam_search",
        ("probabilities_summed", _TOTAL, "total = (scores[:, None] + logits.double().softmax(dim=-1)).flatten()",
         "adds probabilities instead of their logarithms"),
        ("logits_summed", _TOTAL, "total = (scores[:, None] + logits.double()).flatten()", "adds raw logits"),
        ("sums_forgotten", _TOTAL, "total = (0 * scores[:, None] + logits.double().log_softmax(dim=-1)).flatten()",
         "ranks by the last token alone"),
        ("ends_extended", "if place % vocab == end_id:", "if False:", "goes on after the end"),
        ("any_end", "if rank < n_beams:", "if True:", "takes an end that did not make the beam for a result"),
        ("one_candidate_a_beam", "best.indices[: 2 * n_beams]", "best.indices[:n_beams]",
         "loses a place of the beam to each continuation that ends"),
        ("no_penalty", _LP, "return score.item()", "ignores the length penalty"),
        ("plain_length", _LP, "return score.item() / length**length_penalty", "divides by n^α, not by ((5 + n)/6)^α"),
        ("stops_at_the_first_end", "(len(done) == n_beams and done[-1][1] >= normalised(scores[0], max_new_tokens))",
         "len(done) == n_beams", "stops at n results even where an open prefix could still win"),
        ("never_stops", "(len(done) == n_beams and done[-1][1] >= normalised(scores[0], max_new_tokens))", "False",
         "goes on although nothing open can win"),
        ("parents_confused", "alive = torch.cat([alive[chosen // vocab],",
           "alive = torch.cat([alive[chosen % len(alive)],",
         "appends tokens to the wrong prefixes"),
        ("half_precision_sums", "logits.double().log_softmax", "logits.log_softmax", "sums in the logits' precision"),
        ("worst_first", "key=lambda each: -each[1]", "key=lambda each: each[1]", "puts the worst result first"),
    ),
    *_of(
        "optim.noam_schedule",
        ("maximum", _NOAM, "return factor * d_model**-0.5 * max(step**-0.5, step * warmup**-1.5)", "takes the larger"),
        ("from_zero", _NOAM, "return factor * d_model**-0.5 * min((step + 1) ** -0.5, (step + 1) * warmup**-1.5)",
         "counts updates from 0"),
        ("no_width", _NOAM, "return factor * min(step**-0.5, step * warmup**-1.5)", "forgets d^−½"),
        ("linear_fall", _NOAM, "return factor * d_model**-0.5 * min(warmup**0.5 / step, step * warmup**-1.5)",
         "falls as 1/s after the warm-up"),
        ("factor_ignored", _NOAM, "return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)", "ignores its factor"),
    ),
]  # fmt: skip
