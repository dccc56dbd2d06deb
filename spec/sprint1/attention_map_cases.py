"""GPTs whose heads are looked at, and how a picture of their maps is read back."""

from __future__ import annotations

from typing import Any

import pytest

VOCABULARY, CONTEXT = 11, 12


def drawn_gpt(impl: Any, draw: Any, n_layer: int = 2, n_head: int = 3, n_embd: int = 12, **options: Any) -> Any:
    """A GPT in float64 in which every weight matters."""
    import torch

    config = impl.models.GPTConfig(VOCABULARY, CONTEXT, n_layer, n_head, n_embd, **options)
    model = impl.models.GPT(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(draw.normal(*parameter.shape, scale=0.4))
    return model


def patterns(draw: Any, batch: int, layers: int, heads: int, time: int) -> Any:
    """Random maps as heads make them: causal, each row sums to 1."""
    import torch

    late = torch.ones(time, time, dtype=torch.bool).triu(1)
    return draw.normal(batch, layers, heads, time, time, scale=2.0).masked_fill(late, -torch.inf).softmax(dim=-1)


def previous_token_gpt(impl: Any, time: int) -> Any:
    """One layer of two heads by hand: the first looks at position t − 1, the second everywhere alike.

    Positions are unit vectors; the first head's queries are the unit vectors of the position before.
    """
    import torch

    model = impl.models.GPT(impl.models.GPTConfig(VOCABULARY, time, 1, 2, 2 * time)).double().eval()
    weights = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    for norm in ("blocks.0.norm1.weight", "blocks.0.norm2.weight", "norm.weight"):
        weights[norm] += 1.0
    weights["position_embedding.weight"][:, :time] = torch.eye(time)
    weights["blocks.0.attention.k_proj.weight"][:time, :time] = torch.eye(time)
    weights["blocks.0.attention.q_proj.weight"][: time - 1, 1:time] = 100.0 * torch.eye(time - 1)
    model.load_state_dict(weights)
    return model


def grey_at(picture: Any, point: Any) -> float:
    """The grey of a picture where the figure has a point, 0 black to 1 white."""
    red, green, blue = picture[len(picture) - 1 - int(point[1]), int(point[0]), :3].tolist()
    assert red == green == blue, "a scale of greys has no colour"
    return red


def brightness(figure: Any, path: Any, panel: int, time: int) -> Any:
    """What the picture shows in the middle of each cell of a panel, (time, time)."""
    import matplotlib.image
    import torch

    picture, where = matplotlib.image.imread(path), figure.axes[panel].transData
    return torch.tensor([[grey_at(picture, where.transform((j, t))) for j in range(time)] for t in range(time)])


def bar_ends(figure: Any, path: Any) -> tuple[float, float]:
    """The greys of the colour bar near 0 and near 1."""
    import matplotlib.image

    picture, where = matplotlib.image.imread(path), figure.axes[-1].transAxes
    low, high = (grey_at(picture, where.transform((0.5, height))) for height in (0.02, 0.98))
    return low, high


def ticks(axis: Any) -> tuple[list[int], list[str]]:
    """Where an axis is labelled, and with what."""
    return [round(place) for place in axis.get_ticklocs()], [text.get_text() for text in axis.get_ticklabels()]


def as_oracle(model: Any) -> dict[str, Any]:
    """A model's weights as the oracle takes them."""
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def without(impl: Any, model: Any, heads: Any) -> Any:
    """A copy of the model whose output projections have no columns for these heads."""
    copy = impl.models.GPT(model.config).to(next(model.parameters()).dtype)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    width = model.config.n_embd // model.config.n_head
    for layer, head in heads:
        weights[f"blocks.{layer}.attention.out_proj.weight"][:, head * width : (head + 1) * width] = 0.0
    copy.load_state_dict(weights)
    return copy.eval()


def rows_of(report: str) -> list[tuple[int, int, str, float, float]]:
    """The report's rows: (layer, head, label, score, delta)."""
    lines = report.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "layer", "head", "label", "score", "loss without it"
    ]  # fmt: skip
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return [(int(a), int(b), label, float(score), float(delta)) for a, b, label, score, delta in cells]


def held_to_the_model(impl: Any, model: Any, tokens: Any, targets: Any, report: str, threshold: float) -> None:
    """Every cited score and difference, computed again; and no head with a habit is left out."""
    import torch

    scores = impl.evaluation.head_scores(impl.evaluation.attention_maps(model, tokens), tokens)
    labels = {"previous": "previous-token", "first": "first-token", "induction": "induction"}
    with torch.no_grad():
        whole = model(tokens, targets)[1].item()
    found = {row[:3]: row[3:] for row in rows_of(report)}
    wanted = {}
    for name, label in labels.items():
        for layer, head in (scores[name] >= threshold).nonzero().tolist():
            with torch.no_grad():
                lost = without(impl, model, [(layer, head)])(tokens, targets)[1].item()
            wanted[layer, head, label] = (scores[name][layer, head].item(), lost - whole)
    assert sorted(found) == sorted(wanted)
    assert list(found) == sorted(found, key=lambda key: (key[:2], list(labels.values()).index(key[2])))
    for key, cited in found.items():
        assert cited == pytest.approx(wanted[key], abs=6e-5 + 1e-5 * abs(whole))
