"""Mistakes that people make in multi-head attention; each is a patch of impl/attention/heads.py."""

from __future__ import annotations

from touchstone import Mutant

HEADS = "attention.MultiHeadAttention"

_SPLIT = "return x.unflatten(-1, (self.n_heads, self.d_model // self.n_heads)).transpose(-2, -3)"
_MERGE = "return heads.transpose(-2, -3).flatten(-2)"
_FUSED = "scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)"
_DROP = "weights = F.dropout(weights, self.dropout, training=dropping)"
_OUT = "output = self.out_proj(self._merge(weights @ v))"

HEAD = [
    (
        "split_without_transpose",
        _SPLIT,
        "return x.reshape(*x.shape[:-2], self.n_heads, x.shape[-2], self.d_model // self.n_heads)",
        "views (seq, d_model) as (heads, seq, d_head) without a transpose: positions become heads",
    ),
    (
        "merged_without_transpose",
        _MERGE,
        "return heads.reshape(*heads.shape[:-3], heads.shape[-2], self.d_model)",
        "puts heads together without a transpose: heads become positions",
    ),
    (
        "heads_interleaved",
        _SPLIT,
        "return x.unflatten(-1, (self.d_model // self.n_heads, self.n_heads)).movedim(-1, -3)",
        "gives head i every h-th channel instead of its own block",
    ),
    (
        "heads_reversed",
        _MERGE,
        "return heads.flip(-3).transpose(-2, -3).flatten(-2)",
        "concatenates the heads backwards",
    ),
    (
        "scaled_by_d_model",
        _FUSED,
        _FUSED[:-1] + ", scale=self.d_model**-0.5)",
        "divides by √d_model instead of √d_head",
    ),
    (
        "query_from_the_key_projection",
        "self.q_proj(query)",
        "self.k_proj(query)",
        "projects queries with the keys' weights",
    ),
    (
        "value_from_the_key_projection",
        "self.v_proj(value)",
        "self.k_proj(value)",
        "projects values with the keys' weights",
    ),
    ("values_are_keys", "self.v_proj(value)", "self.v_proj(key)", "mixes the keys where values of their own are given"),
    (
        "memory_ignored",
        "self.k_proj(key)",
        "self.k_proj(query if key.shape == query.shape else key)",
        "compares queries with themselves in cross-attention of equal lengths",
    ),
    (
        "query_bias_forgotten",
        "self.q_proj(query)",
        "F.linear(query, self.q_proj.weight)",
        "leaves out the queries' bias",
    ),
    (
        "value_bias_forgotten",
        "self.v_proj(value)",
        "F.linear(value, self.v_proj.weight)",
        "leaves out the values' bias",
    ),
    (
        "weight_transposed",
        "self.k_proj(key)",
        "key @ self.k_proj.weight + (0.0 if self.k_proj.bias is None else self.k_proj.bias)",
        "multiplies by W where the contract has Wᵀ",
    ),
    (
        "no_output_projection",
        f"return self.out_proj(self._merge({_FUSED}))",
        f"return self._merge({_FUSED})",
        "leaves the output projection out",
    ),
    (
        "keys_detached",
        "k = self._split(self.k_proj(key))",
        "k = self._split(self.k_proj(key)).detach()",
        "gives keys no gradient",
    ),
    (
        "output_always_biased",
        "self.out_proj = nn.Linear(d_model, d_model, bias=bias)",
        "self.out_proj = nn.Linear(d_model, d_model)",
        "keeps the output's bias with bias=False",
    ),
    (
        "padding_inverted",
        "real = key_padding_mask[..., None, None, :]",
        "real = ~key_padding_mask[..., None, None, :]",
        "takes True for padding, as torch.nn.MultiheadAttention does",
    ),
    (
        "padding_hides_queries",
        "real = key_padding_mask[..., None, None, :]",
        "real = key_padding_mask[..., None, :, None]",
        "masks padded queries instead of padded keys",
    ),
    (
        "padding_lost_with_a_mask",
        "return attn_mask & real if attn_mask.dtype == torch.bool else torch.where(real, attn_mask, -torch.inf)",
        "return attn_mask",
        "ignores padding where an attention mask is given",
    ),
    (
        "causal_lost_with_padding",
        _FUSED,
        _FUSED.replace("=is_causal", "=is_causal and mask is None"),
        "ignores is_causal under padding",
    ),
    (
        "causal_lost_with_weights",
        "weights = attention_weights(q, k, mask, is_causal=is_causal)",
        "weights = attention_weights(q, k, mask)",
        "ignores is_causal where the weights are asked for",
    ),
    (
        "weights_averaged",
        "return (output, weights)",
        "return (output, weights.mean(dim=-3))",
        "averages the heads' weights unasked",
    ),
    (
        "dropout_in_evaluation",
        "dropping = self.training and self.dropout > 0.0",
        "dropping = self.dropout > 0.0",
        "drops weights in evaluation mode too",
    ),
    ("dropout_never", "dropping = self.training and self.dropout > 0.0", "dropping = False", "never drops a weight"),
    (
        "dropout_unscaled",
        _DROP,
        "weights = weights * (torch.rand_like(weights) >= self.dropout * dropping)",
        "does not divide the weights that are kept by 1 − p",
    ),
    (
        "dropout_on_scores",
        _DROP,
        "weights = torch.softmax(F.dropout(weights.log(), self.dropout, training=dropping), dim=-1)",
        "drops scores before the softmax, so that rows still sum to 1",
    ),
    (
        "dropout_on_the_output",
        _OUT,
        "output = F.dropout(self.out_proj(self._merge(weights @ v)), self.dropout, training=dropping)",
        "drops outputs as well",
    ),
    (
        "dropout_shared_by_heads",
        _DROP,
        "weights = weights * F.dropout(torch.ones_like(weights[..., :1, :, :]), self.dropout, training=dropping)",
        "drops the same weights in every head",
    ),
    (
        "weights_before_dropout",
        f"{_DROP}\n        {_OUT}",
        "output = self.out_proj(self._merge(F.dropout(weights, self.dropout, training=dropping) @ v))",
        "returns other weights than it applied",
    ),
    ("division_unchecked", " or d_model % n_heads:", ":", "accepts a width that does not divide into heads"),
    (
        "any_mask_shape",
        "if attn_mask is not None and attn_mask.ndim not in (2, len(scores)):",
        "if False:",
        "guesses whether three dimensions mean rows or heads",
    ),
]

MUTANTS = [Mutant(name, HEADS, old, new, says) for name, old, new, says in HEAD]
