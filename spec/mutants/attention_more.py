"""Mistakes that slipped through the first checks of `attention`: dtypes, devices, masks together, equal sizes."""

from __future__ import annotations

from touchstone import Mutant

DENSE, WEIGHTS, HEADS = (
    "attention.scaled_dot_product_attention",
    "attention.attention_weights",
    "attention.MultiHeadAttention",
)
PADDING, ROTARY, MODULE = "attention.padding_mask", "attention.apply_rotary", "attention.RotaryEmbedding"

MUTANTS = [
    Mutant(
        "causal_mask_on_the_cpu",
        DENSE,
        old="causal = causal_mask(queries, keys, device=query.device)",
        new="causal = causal_mask(queries, keys)",
        says="makes its causal mask on the CPU, wherever the inputs are",
    ),
    Mutant(
        "query_scaled_in_half_precision",
        DENSE,
        old="scores = (query.to(compute) * scale) @ key.to(compute).mT",
        new="scores = (query * scale).to(compute) @ key.to(compute).mT",
        says="scales the queries before it lifts them to float32: every large score is off",
    ),
    Mutant(
        "integers_attended",
        DENSE,
        old="    if not tensor.is_floating_point():",
        new="    if False:",
        says="does not refuse integers by name",
    ),
    Mutant(
        "mixed_dtypes",
        DENSE,
        old="    if tensor.dtype != query.dtype:",
        new="    if False:",
        says="lets keys and values of another dtype through",
    ),
    Mutant(
        "weights_of_integers",
        WEIGHTS,
        old="    if not tensor.is_floating_point():",
        new="    if False:",
        says="does not refuse integers by name",
    ),
    Mutant(
        "weights_of_mixed_dtypes",
        WEIGHTS,
        old="    if tensor.dtype != query.dtype:",
        new="    if False:",
        says="lets keys of another dtype through",
    ),
    Mutant(
        "weights_of_an_infinite_scale",
        WEIGHTS,
        old="if scale is not None and not abs(scale) < math.inf:",
        new="if False:",
        says="accepts an infinite scale, and gives NaN",
    ),
    Mutant(
        "weights_hide_nan",
        WEIGHTS,
        old="return _weights(query, key, attn_mask, is_causal, scale).to(query.dtype)",
        new="return _weights(query, key, attn_mask, is_causal, scale).nan_to_num(0.0).to(query.dtype)",
        says="turns every NaN into 0, and so hides a model that has diverged",
    ),
    Mutant(
        "padding_or_mask",
        HEADS,
        old="return attn_mask & real if",
        new="return attn_mask | real if",
        says="lets a query see what either mask allows, not what both allow",
    ),
    Mutant(
        "padded_bias_detached",
        HEADS,
        old="torch.where(real, attn_mask, -torch.inf)",
        new="torch.where(real, attn_mask.detach(), -torch.inf)",
        says="gives an additive mask no gradient once there is padding beside it",
    ),
    Mutant(
        "value_without_key",
        HEADS,
        old="        if key is None and value is not None:",
        new="        if False:",
        says="mixes a value that came without a key by the queries' own positions",
    ),
    Mutant(
        "lengths_are_booleans",
        PADDING,
        old="    if lengths.dtype not in _INTEGERS:",
        new="    if lengths.is_floating_point():",
        says="takes a mask for lengths of 0 and 1",
    ),
    Mutant(
        "positions_in_the_dtype_of_the_lengths",
        PADDING,
        old="places = torch.arange(keys, device=lengths.device)",
        new="places = torch.arange(keys, device=lengths.device).to(lengths.dtype)",
        says="counts keys in the lengths' own integers, which wrap at 128 or 256",
    ),
    Mutant(
        "positions_are_booleans",
        ROTARY,
        old="    if positions.dtype not in _INTEGERS:",
        new="    if positions.is_floating_point():",
        says="takes a mask for positions 0 and 1",
    ),
    Mutant(
        "unturned_is_the_input_itself",
        ROTARY,
        old="    return _rotate(x, cos, sin, pairing)\n",
        new="    return _rotate(x, cos, sin, pairing) if positions.any() else x\n",
        says="gives back the very tensor it was given where nothing turns",
    ),
    Mutant(
        "heads_taken_for_tokens",
        ROTARY,
        old="    return _rotate(x, cos, sin, pairing)\n",
        new="    square = x.ndim == 4 and x.shape[-2] == x.shape[-3]\n"
        "    x = x.transpose(-2, -3) if square else x\n"
        "    turned = _rotate(x, cos, sin, pairing)\n"
        "    return turned.transpose(-2, -3) if square else turned\n",
        says="turns heads by the positions of tokens where there are as many of them",
    ),
    Mutant(
        "one_batch_dimension",
        MODULE,
        old="positions = positions.unsqueeze(-2)  #",
        new="positions = positions.unsqueeze(1)  #",
        says="puts the heads after the first dimension: right for one batch dimension only",
    ),
    Mutant(
        "no_tokens",
        MODULE,
        old='if positions.device.type == "meta" or not positions.numel() or torch.compiler.is_compiling():',
        new='if positions.device.type == "meta" or torch.compiler.is_compiling():',
        says="asks for the largest position where there is none",
    ),
]
