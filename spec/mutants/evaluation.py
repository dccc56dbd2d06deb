"""Mistakes that people make when they look at heads; patches of impl/evaluation."""

from __future__ import annotations

from touchstone import Mutant

MAPS = "evaluation.attention_maps"
LOSS = "evaluation.ablation_loss"
SCORES = "evaluation.head_scores"
DIVERSITY = "evaluation.head_diversity"
REPORT = "evaluation.head_report"
DRAW = "evaluation.draw_attention_maps"
LOAD = "evaluation.load_attention_maps"

_WEIGHTS = "weights = attention_weights(query, key, is_causal=True)"
_STACK = "torch.stack([found[layer] for layer in chosen], dim=1)"
LOOKING = [
    ("no_mask", _WEIGHTS, _WEIGHTS.replace(", is_causal=True", ""), "shows weights that the causal mask forbids"),
    ("scores_not_scaled", _WEIGHTS, _WEIGHTS.replace("is_causal=True", "is_causal=True, scale=1.0"), "forgets 1/√d"),
    (
        "scaled_by_the_model",
        _WEIGHTS,
        _WEIGHTS.replace("is_causal=True", "is_causal=True, scale=(query.shape[1] * query.shape[3]) ** -0.5"),
        "scales by the model's width, not the head's",
    ),
    ("keys_look", _WEIGHTS, "weights = attention_weights(key, query, is_causal=True)", "swaps queries and keys"),
    (
        "transposed",
        "found.append(weights[:, shown])",
        "found.append(weights[:, shown].mT)",
        "shows who is looked at by row",
    ),
    ("first_layer_for_all", _STACK, _STACK.replace("found[layer]", "found[0]"), "shows the first layer everywhere"),
    ("layers_sorted", "else list(layers)", "else sorted(layers)", "returns layers in the model's order"),
    ("heads_ignored", "found.append(weights[:, shown])", "found.append(weights)", "returns all heads"),
    (
        "heads_averaged",
        "found.append(weights[:, shown])",
        "found.append(weights.mean(dim=1, keepdim=True).expand_as(weights)[:, shown])",
        "averages the heads",
    ),
    ("heads_before_layers", _STACK, _STACK.replace("dim=1", "dim=2"), "puts heads before layers"),
    (
        "mixes_its_own_way",
        "return weights @ value\n",
        "return weights.mT @ value\n",
        "carries another stream to the layers above",
    ),
    ("in_float32", "found.append(weights[:, shown])", "found.append(weights[:, shown].float())", "rounds to float32"),
    (
        "layer_unchecked",
        '    _check_indices("layer", chosen, int(config.n_layer))  # type: ignore[union-attr, arg-type]\n',
        "",
        "takes layer −1 for the last",
    ),
    (
        "head_unchecked",
        '    _check_indices("head", shown, int(config.n_head))  # type: ignore[union-attr, arg-type]\n',
        "",
        "takes head −1 for the last",
    ),
]
_SILENT = "mixed[:, silent.get(layer, [])] = 0.0"
SILENCING = [
    ("nothing_silenced", _SILENT, "pass", "silences nothing"),
    (
        "every_layer",
        _SILENT,
        "mixed[:, [head for found in silent.values() for head in found]] = 0.0",
        "silences the head in every layer",
    ),
    (
        "others_silenced",
        _SILENT,
        "mixed[:, [h for h in range(mixed.shape[1]) if silent and h not in silent.get(layer, [])]] = 0.0",
        "silences all heads but the one",
    ),
    (
        "last_only",
        "silent.setdefault(layer, []).append(head)",
        "silent[layer] = [head]",
        "silences one head of a layer only",
    ),
    (
        "mean_for_zero",
        _SILENT,
        "mixed[:, silent.get(layer, [])] = mixed[:, silent.get(layer, [])].mean(dim=2, keepdim=True)",
        "puts the mean where zero is asked for",
    ),
    ("row_silenced", _SILENT, "mixed[silent.get(layer, [])] = 0.0", "silences rows of the batch"),
    (
        "no_causal",
        "mixed = scaled_dot_product_attention(query, key, value, is_causal=True)",
        "mixed = scaled_dot_product_attention(query, key, value)",
        "lets queries see ahead",
    ),
    ("all_targets", "targets.flatten().long()))", "targets.flatten().long().clamp(min=0)))", "scores what is −100"),
]
_FOLLOWED = "followed[:, :, 1:] = (same & earlier)[:, :, :-1]"
SCORING = [
    ("itself", "diagonal(offset=-1", "diagonal(offset=0", "scores how much a token looks at itself"),
    ("two_back", "diagonal(offset=-1", "diagonal(offset=-2", "scores two positions back"),
    ("next", "diagonal(offset=-1", "diagonal(offset=1", "scores the next token"),
    ("first_counts_itself", "maps[..., 1:, 0]", "maps[..., 0]", "counts the first query, which has no choice"),
    ("first_is_last", "maps[..., 1:, 0]", "maps[..., 1:, -1]", "scores the last token"),
    ("repeats_for_followers", _FOLLOWED, "followed = same & earlier", "scores equal tokens, not what followed them"),
    ("preceded", _FOLLOWED, "followed[:, :, :-1] = (same & earlier)[:, :, 1:]", "scores what came before equal tokens"),
    ("counts_itself", ".tril(-1)", ".tril()", "takes a token for an earlier occurrence of itself"),
    ("over_all_queries", "/ again.sum()", "/ again.numel()", "divides by queries that have nothing to find"),
    (
        "latest_only",
        "mass = (maps * followed[:, None, None]).sum(dim=-1)",
        "mass = (maps * followed[:, None, None]).amax(dim=-1)",
        "counts one occurrence of several",
    ),
    (
        "zero_for_nothing",
        "induction = (mass * again[:, None, None]).sum(dim=(0, 3)) / again.sum()",
        "induction = (mass * again[:, None, None]).sum(dim=(0, 3)) / again.sum().clamp(min=1)",
        "gives 0 where nothing can be scored",
    ),
    (
        "rows_mixed",
        "same = tokens[:, :, None] == tokens[:, None, :]",
        "same = (tokens[:1, :, None] == tokens[:1, None, :]).expand(len(tokens), -1, -1).clone()",
        "takes the first row's tokens for all",
    ),
    (
        "heads_mixed",
        "maps[..., 1:, 0].mean(dim=(0, 3))",
        "maps[..., 1:, 0].mean(dim=(0, 2, 3))[:, None].expand_as(induction)",
        "averages the heads",
    ),
]
DIVERSE = [
    ("similarity", "return 1 - (", "return (", "gives the similarity"),
    (
        "counts_itself",
        " - cosines.diagonal(dim1=1, dim2=2).sum(dim=1)) / pairs",
        ") / (heads * heads)",
        "compares each head with itself too",
    ),
    (
        "not_normalised",
        "patterns = patterns / patterns.norm(dim=-1, keepdim=True)",
        "patterns = patterns * 1.0",
        "takes products of patterns for cosines",
    ),
    (
        "centred",
        "patterns = patterns / patterns.norm(dim=-1, keepdim=True)",
        "patterns = torch.nn.functional.normalize(patterns - patterns.mean(dim=-1, keepdim=True), dim=-1)",
        "gives a correlation",
    ),
    (
        "all_layers_together",
        "    return 1 - (",
        "    cosines = cosines.mean(dim=0, keepdim=True).expand_as(cosines)\n    return 1 - (",
        "mixes the layers",
    ),
    ("first_row", "maps.permute(1, 2, 0, 3, 4)", "maps[:1].permute(1, 2, 0, 3, 4)", "looks at the first row only"),
    (
        "neighbours",
        "    return 1 - (cosines.sum",
        "    return 1 - cosines.diagonal(offset=1, dim1=1, dim2=2).mean(dim=1)\n    return 1 - (cosines.sum",
        "compares neighbours only",
    ),
]
REPORTING = [
    (
        "sign_lost",
        "(layer, head)]) - whole",
        "(layer, head)]) - whole\n                delta = abs(delta)",
        "hides that a loss fell",
    ),
    ("whole_loss", "(layer, head)]) - whole", "(layer, head)])", "cites the loss, not the difference"),
    ("strictly_above_half", "score >= threshold]", "score >= 0.5]", "ignores its threshold"),
    (
        "best_habit_only",
        "habits = [name for name, score in found.items() if score >= threshold]",
        "habits = [name for name, score in found.items() if score >= threshold][:1]",
        "names one habit a head",
    ),
    (
        "labels_mixed",
        '"first": "first-token", "induction": "induction"',
        '"first": "induction", "induction": "first-token"',
        "mixes two labels up",
    ),
    (
        "one_head_for_all",
        "ablation_loss(model, tokens, targets, [(layer, head)])",
        "ablation_loss(model, tokens, targets, [(layer, 0)])",
        "silences the first head of each layer",
    ),
    ("score_of_another", "{found[name]:.4f}", "{max(found.values()):.4f}", "cites the best score for every habit"),
    ("first_layer_only", "for layer in range(layers):", "for layer in range(1):", "stops after the first layer"),
]
DRAWING = [
    ("bar_inverted", 'cmap="gray"', 'cmap="gray_r"', "draws the colour bar the other way round"),
    (
        "stretched",
        "panel.imshow(_greys(numbers[layer, head])",
        "panel.imshow(_greys(numbers[layer, head] / numbers[layer, head].max())",
        "stretches each panel to its own largest weight",
    ),
    (
        "upside_down",
        'interpolation="nearest")',
        'interpolation="nearest", origin="lower")',
        "puts the first query at the bottom",
    ),
    ("transposed", "_greys(numbers[layer, head])", "_greys(numbers[layer, head].mT)", "draws keys as rows"),
    ("smoothed", 'interpolation="nearest"', 'interpolation="bicubic"', "blurs the cells"),
    ("inverted", "(255 * weights.clamp(max=1.0))", "(255 - 255 * weights.clamp(max=1.0))", "draws large weights dark"),
    (
        "heads_by_rows",
        "panel = axes[layer][head]",
        "panel = axes[(head * layers + layer) // heads][(head * layers + layer) % heads]",
        "fills the panels column by column",
    ),
    (
        "invisible_spaces",
        "[label.translate(_VISIBLE) for label in labels]",
        "list(labels)",
        "leaves spaces and newlines invisible",
    ),
    (
        "stripped",
        "[label.translate(_VISIBLE) for label in labels]",
        "[label.strip().translate(_VISIBLE) for label in labels]",
        "strips the labels",
    ),
    ("mathematics", "text.set_parse_math(False)", "pass", "reads dollars as mathematics"),
    (
        "labels_on_one_axis",
        "for axis in (panel.xaxis, panel.yaxis):",
        "for axis in (panel.xaxis,):",
        "labels the keys only",
    ),
    (
        "every_other_label",
        "axis.set_ticks(range(time), shown, fontsize=6)",
        "axis.set_ticks(range(0, time, 2), shown[::2], fontsize=6)",
        "leaves every other token out",
    ),
    (
        "dated",
        'metadata={"Software": None}',
        'metadata={"Software": None, "Creation Time": str(__import__("time").time_ns())}',
        "writes the date into the picture",
    ),
    (
        "rounded_twin",
        '"maps": numbers.tolist()',
        '"maps": (numbers * 1000).round().div(1000).tolist()',
        "rounds the numbers of the twin",
    ),
    ("visible_twin", '{"labels": list(labels)', '{"labels": shown', "keeps the drawn labels for the tokens'"),
    (
        "counted_titles",
        "layer {layer}, head {head}",
        "layer {layer + 1}, head {head + 1}",
        "counts layers and heads from 1",
    ),
    (
        "own_scale",
        "Normalize(0.0, 1.0)",
        "Normalize(0.0, float(numbers.max()))",
        "scales the colour bar by the largest weight",
    ),
    (
        "any_weights",
        "if not ((maps >= 0) & (maps <= 1 + 1e-6)).all():",
        "if (maps < 0).any():",
        "draws NaN and weights above 1",
    ),
]
READING = [
    (
        "any_labels",
        "if len(labels) != maps.shape[-1]:",
        "if len(labels) < maps.shape[-1]:",
        "accepts more labels than tokens",
    ),
    ("float32", "dtype=torch.float64), twin", "dtype=torch.float32), twin", "reads the numbers in float32"),
    (
        "unchecked",
        "    _check(maps, labels)\n    return maps, labels",
        "    return maps, labels",
        "believes every file",
    ),
    ("labels_unchecked", "if not isinstance(labels, list) or", "if False and", "takes a string for a list of labels"),
    (
        "errors_escape",
        "except (KeyError, TypeError, ValueError) as error:",
        "except ValueError as error:",
        "lets a missing entry escape as KeyError",
    ),
]

MUTANTS = [
    Mutant(f"{prefix}_{name}", target, old, new, says)
    for prefix, target, mistakes in (
        ("maps", MAPS, LOOKING),
        ("ablation", LOSS, SILENCING),
        ("scores", SCORES, SCORING),
        ("diversity", DIVERSITY, DIVERSE),
        ("report", REPORT, REPORTING),
        ("figure", DRAW, DRAWING),
        ("twin", LOAD, READING),
    )
    for name, old, new, says in mistakes
]
