"""Mistakes that people make with rows of unequal length in a GPT."""

from __future__ import annotations

from touchstone import Mutant

_MASK = "mask = attention_mask(tokens.shape[1], 0, padding_mask, tokens.device)"
_PLACES = "places = token_positions(tokens, positions, padding_mask, 0, self.config.block_size)"


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the GPT."""
    return [Mutant(name, "models.GPT", old, new, says) for name, says, old, new in patches]


MUTANTS = _of(
    (
        "first_rows_padding_for_all",
        "hides the first row's padding from every row",
        _MASK,
        _MASK.replace("padding_mask,", "None if padding_mask is None else padding_mask[:1].expand_as(padding_mask),"),
    ),
    (
        "first_rows_positions_for_all",
        "gives every row the positions of the first",
        _PLACES,
        f"{_PLACES}\n            places = places[:1].expand_as(places) if places.ndim == 2 else places",
    ),
    (
        "mask_upside_down",
        "takes True for padding",
        _MASK,
        _MASK.replace("padding_mask,", "None if padding_mask is None else ~padding_mask,"),
    ),
    (
        "given_positions_and_counted_ones",
        "counts real tokens under a mask, whatever positions it is given",
        _PLACES,
        _PLACES.replace("tokens, positions,", "tokens, positions if padding_mask is None else None,"),
    ),
    (
        "int32_positions_refused",
        "refuses positions that are int32",
        _PLACES,
        f"if positions is not None and positions.dtype == torch.int32:\n"
        f'                raise TypeError("positions must be int64")\n            {_PLACES}',
    ),
    (
        "padding_forgets_the_future",
        "gives up causality where there is a padding mask",
        _MASK,
        f"{_MASK}\n            mask = None if mask is None else padding_mask[:, None, None, :] | mask",
    ),
    (
        "sorts_positions",
        "puts the positions that it is given in order from the smallest, counted by ones",
        _PLACES,
        f"{_PLACES}\n            places = places - places.amin(dim=-1, keepdim=True)",
    ),
)
