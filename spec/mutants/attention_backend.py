"""What goes wrong in a switch between backends."""

from __future__ import annotations

from touchstone import Mutant

BACKEND = "attention.AttentionBackend"

_TOP_LEFT = "key, value = key[..., :queries, :], value[..., :queries, :]"
_KERNEL = "with sdpa_kernel([_TORCH[self.name]]):"

MUTANTS = [
    Mutant(f"backend_{name}", BACKEND, old, new, says)
    for name, old, new, says in [
        ("ignored", _KERNEL, "if True:", "lets torch choose: the name selects nothing"),
        (
            "falls_back",
            "        except RuntimeError as error:\n            query",
            "        except RuntimeError as error:\n"
            "            return F.scaled_dot_product_attention(*args, **kwargs)\n            query",
            "falls back to whatever runs, and says nothing",
        ),
        (
            "any_of_torch",
            _KERNEL,
            "with sdpa_kernel([_TORCH[self.name], SDPBackend.MATH]):",
            "allows the plain road beside the one that was asked for",
        ),
        (
            "tiled_is_naive",
            "return flash_attention\n",
            "return scaled_dot_product_attention\n",
            "runs the naive road for the tiled one",
        ),
        (
            "outer_wins",
            "_inside.found = True\n",
            "_inside.found = False\n",
            "lets an outer context take over from the inner one",
        ),
        ("stays_found", "            _inside.found = False\n", "            pass\n", "switches once and never again"),
        (
            "scale_lost",
            "square = attend(query[..., :keys, :], key, value, is_causal=True, scale=scale)",
            "square = attend(query[..., :keys, :], key, value, is_causal=True)",
            "drops the scale of a causal call",
        ),
        ("causal_lost", "        if not is_causal:\n", "        if True:\n", "drops is_causal"),
        (
            "bottom_right",
            _TOP_LEFT,
            "return attend(query, key, value, is_causal=True, scale=scale)",
            "aligns a causal mask bottom-right where the function means top-left",
        ),
        (
            "groups_interleaved",
            "key, value = (x.repeat_interleave(group, dim=-3) for x in (key, value))",
            "key, value = (x.repeat(1, group, 1, 1) for x in (key, value))",
            "gives grouped heads each other's keys",
        ),
        (
            "mask_ignored",
            '            if self.name != "naive":\n',
            '            if self.name == "tiled":\n'
            "                return flash_attention(query, key, value, scale=scale)\n"
            "            if False:\n",
            "drops a mask that the backend does not take",
        ),
        ("dropout_ignored", "        if dropout_p:\n", "        if False:\n", "drops dropout"),
        (
            "unnamed",
            "attention backend {self.name!r} cannot run here ({what})",
            "no attention here ({what})",
            "does not say which backend is missing",
        ),
        ("any_name", "        if name not in (*_OURS, *_TORCH):", "        if False:", "accepts a name nobody knows"),
        (
            "triton_is_tiled",
            "        return _triton\n",
            "        return flash_attention\n",
            "runs the tiled road where there is no GPU for the kernel",
        ),
    ]
]
