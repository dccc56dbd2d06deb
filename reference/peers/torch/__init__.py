"""torch's own functions and modules behind the house's names."""

from __future__ import annotations

#: Where torch does otherwise on purpose: proof line → why.
DEVIATIONS: dict[str, str] = {
    "sprints/day001/softmax-crossentropy-gradient#robustness": "a mean over ignored targets alone is NaN in torch",
    "karpathy/week02/losses#robustness-2": "a mean over ignored targets alone is NaN in torch",
    "sprints/day017/stable-logsoftmax#property": "torch's softmax of all −∞, and of +∞, is NaN",
    "sprints/day018/crossentropy-manual-gradient#robustness": "torch smooths by 1, and by nothing for less than 0",
    "nanochat/week07/rmsnorm#parity": "torch multiplies by the gain before it rounds to half precision",
}
