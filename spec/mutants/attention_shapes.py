"""Mistakes that people make in the sizes of attention and in the order of a block."""

from __future__ import annotations

from touchstone import Mutant

SHAPES = "attention.attention_shapes"
BLOCK = "models.EncoderBlock"

SIZES = [
    (
        "heads_last",
        "(batch, n_heads, seq, d_model // n_heads)",
        "(batch, seq, n_heads, d_model // n_heads)",
        "leaves heads behind tokens",
    ),
    (
        "full_width_heads",
        "(batch, n_heads, seq, d_model // n_heads)",
        "(batch, n_heads, seq, d_model)",
        "gives each head the model's width",
    ),
    (
        "one_score_matrix",
        "scores = (batch, n_heads, seq, seq)",
        "scores = (batch, seq, seq)",
        "forgets that each head scores",
    ),
    ("remainder_dropped", "    if d_model % n_heads:\n", "    if n_heads > d_model:\n", "drops the rest of the width"),
    ("joined_by_head", '"joined": row', '"joined": head', "does not put the heads together"),
    ("any_size", "or value < 1:", "or value < 0:", "accepts a size of zero"),
]
ORDER = [
    ("activation_ignored", 'F.relu if activation == "relu" else F.gelu', "F.relu", "is a ReLU whatever it is told"),
    (
        "activations_swapped",
        'F.relu if activation == "relu" else F.gelu',
        'F.gelu if activation == "relu" else F.relu',
        "swaps the two activations",
    ),
    ("tanh_form", "else F.gelu\n", 'else (lambda h: F.gelu(h, approximate="tanh"))\n', "takes GELU in its tanh form"),
    (
        "any_activation",
        'if activation not in ("relu", "gelu"):',
        "if False:",
        "takes every unknown activation for GELU",
    ),
    (
        "no_activation",
        "self.mlp.proj(self.activate(self.mlp.fc(h)))",
        "self.mlp.proj(self.mlp.fc(h))",
        "has nothing between its two matrices",
    ),
    (
        "orders_swapped",
        "return x + function(norm(x)) if norm_first else norm(x + function(x))",
        "return norm(x + function(x)) if norm_first else x + function(norm(x))",
        "swaps pre-norm and post-norm",
    ),
    (
        "norm_on_the_branch",
        "else norm(x + function(x))",
        "else x + norm(function(x))",
        "normalises the branch, not the sum",
    ),
    (
        "normalised_stream",
        "return x + function(norm(x)) if norm_first",
        "return norm(x) + function(norm(x)) if norm_first",
        "carries the normalised stream on",
    ),
    ("no_residual", "else norm(x + function(x))", "else norm(function(x))", "loses the residual path"),
    (
        "one_norm",
        "sublayer(x, self.norm2, self.norm_first, self._feed_forward)",
        "sublayer(x, self.norm1, self.norm_first, self._feed_forward)",
        "uses the first norm twice",
    ),
]

MUTANTS = [
    *(Mutant(f"shapes_{name}", SHAPES, old, new, says) for name, old, new, says in SIZES),
    *(Mutant(f"block_{name}", BLOCK, old, new, says) for name, old, new, says in ORDER),
]
