"""Mistakes that people make in gated feed-forward layers and in root-mean-square normalisation."""

from __future__ import annotations

from touchstone import Mutant

_OUT = "return self.down_proj(GATES[self.variant](self.gate_proj(x)) * self.up_proj(x))"
_SCALED = "scaled = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)"
_GAIN = "return self.weight * scaled.to(x.dtype)"


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


MUTANTS = [
    *_of(
        "nn.GatedMLP",
        (
            "gate_and_up_exchanged",
            _OUT,
            "return self.down_proj(GATES[self.variant](self.up_proj(x)) * self.gate_proj(x))",
            "puts the activation on the up projection instead of the gate",
        ),
        (
            "gate_twice",
            _OUT,
            "return self.down_proj(GATES[self.variant](self.gate_proj(x)) * self.gate_proj(x))",
            "multiplies the gate by itself and never uses the up projection",
        ),
        (
            "gate_added",
            _OUT,
            "return self.down_proj(GATES[self.variant](self.gate_proj(x)) + self.up_proj(x))",
            "adds the gate to the up projection; it must multiply",
        ),
        (
            "activated_after_the_product",
            _OUT,
            "return self.down_proj(GATES[self.variant](self.gate_proj(x) * self.up_proj(x)))",
            "activates the product of both projections instead of the gate alone",
        ),
        ("gelu_tanh", '"geglu": F.gelu', '"geglu": lambda x: F.gelu(x, approximate="tanh")', "has GELU's tanh form"),
        ("swish_is_sigmoid", '"swiglu": F.silu', '"swiglu": torch.sigmoid', "gates by σ(z) where SiLU is z · σ(z)"),
        ("glu_is_tanh", '"glu": torch.sigmoid', '"glu": torch.tanh', "gates by tanh: GLU's gate is the logistic"),
        ("reglu_leaks", '"reglu": F.relu', '"reglu": lambda x: F.leaky_relu(x, 0.01)', "lets 1 % through closed gates"),
        (
            "variant_ignored",
            _OUT,
            "return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))",
            "is SwiGLU whatever variant was asked for",
        ),
        (
            "gate_detached",
            _OUT,
            "return self.down_proj(GATES[self.variant](self.gate_proj(x)).detach() * self.up_proj(x))",
            "passes no gradient through the gate",
        ),
        (
            "bias_ignored",
            "self.up_proj = nn.Linear(d_model, n_hidden, bias=bias)",
            "self.up_proj = nn.Linear(d_model, n_hidden, bias=False)",
            "has no bias in its up projection also where bias=True was asked for",
        ),
        (
            "four_times_wide",
            "n_hidden = gated_width(d_model) if n_hidden is None else n_hidden",
            "n_hidden = 4 * d_model if n_hidden is None else n_hidden",
            "is 4 d wide by default: three such matrices weigh half as much again as a plain layer",
        ),
        (
            "any_variant",
            "if variant not in GATES:",
            "if False:",
            "does not look at the variant until it is called",
        ),
    ),
    *_of(
        "nn.gated_width",
        (
            "rounds_down",
            "return -(-(8 * d_model // 3) // multiple_of) * multiple_of",
            "return 8 * d_model // 3 // multiple_of * multiple_of",
            "rounds down to the multiple",
        ),
        (
            "not_two_thirds",
            "return -(-(8 * d_model // 3) // multiple_of) * multiple_of",
            "return -(-(4 * d_model) // multiple_of) * multiple_of",
            "forgets the two thirds",
        ),
        (
            "one_multiple_more",
            "return -(-(8 * d_model // 3) // multiple_of) * multiple_of",
            "return (8 * d_model // 3 // multiple_of + 1) * multiple_of",
            "adds a multiple where the width already is one",
        ),
    ),
    *_of(
        "nn.RMSNorm",
        (
            "mean_subtracted",
            "wide = x.to(working_dtype(x))",
            "wide = x.to(working_dtype(x)) - x.to(working_dtype(x)).mean(dim=-1, keepdim=True)",
            "takes the mean away: that is LayerNorm without bias",
        ),
        (
            "eps_outside_the_root",
            _SCALED,
            "scaled = wide / (wide.square().mean(dim=-1, keepdim=True).sqrt() + self.eps)",
            "adds ε to the root instead of under it",
        ),
        (
            "eps_ignored",
            _SCALED,
            "scaled = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + 1e-5)",
            "has ε = 1e-5 whatever it was given",
        ),
        (
            "sum_not_mean",
            _SCALED,
            "scaled = wide * torch.rsqrt(wide.square().sum(dim=-1, keepdim=True) + self.eps)",
            "divides by the length of the row, not by its root mean square",
        ),
        (
            "half_precision_squares",
            "wide = x.to(working_dtype(x))",
            "wide = x",
            "squares in half precision, where 300² is infinite",
        ),
        (
            "gain_before_the_cast",
            _GAIN,
            "return (self.weight * scaled).to(x.dtype)",
            "multiplies by the gain in float32 and rounds once: Llama rounds first",
        ),
        ("gain_forgotten", _GAIN, "return scaled.to(x.dtype) + 0 * self.weight", "never multiplies by its gain"),
        ("gain_plus_one", _GAIN, "return (1 + self.weight) * scaled.to(x.dtype)", "multiplies by 1 + gain, as Gemma"),
        (
            "whole_tensor",
            _SCALED,
            "scaled = wide * torch.rsqrt(wide.square().mean() + self.eps)",
            "takes one mean square over the whole batch",
        ),
        (
            "root_detached",
            _SCALED,
            "scaled = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps).detach()",
            "passes no gradient through the root mean square",
        ),
    ),
]
