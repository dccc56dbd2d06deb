"""Mistakes that people make in cross-entropy: what counts, what divides, and where ε goes."""

from __future__ import annotations

from touchstone import Mutant

MUTANTS = [
    Mutant(
        "mean_over_every_row",
        "nn.cross_entropy",
        old='return (total / w.sum() if reduction == "mean" else total).to(logits.dtype)',
        new='return (total / kept.numel() if reduction == "mean" else total).to(logits.dtype)',
        says="divides by the number of rows, ignored ones and weights included",
    ),
    Mutant(
        "weighted_mean_over_kept_rows",
        "nn.cross_entropy",
        old='return (total / w.sum() if reduction == "mean" else total).to(logits.dtype)',
        new='return (total / kept.sum() if reduction == "mean" else total).to(logits.dtype)',
        says="divides a weighted sum by the number of rows, not by the sum of their weights",
    ),
    Mutant(
        "mean_over_the_first_dimension",
        "nn.cross_entropy",
        old='return (total / w.sum() if reduction == "mean" else total).to(logits.dtype)',
        new="batch = targets.shape[0] if targets.dim() else 1\n"
        '        return (total / max(1, batch) if reduction == "mean" else total).to(logits.dtype)',
        says="divides by the batch size and not by the number of tokens",
    ),
    Mutant(
        "sum_is_mean",
        "nn.cross_entropy",
        old='(total / w.sum() if reduction == "mean" else total)',
        new="(total / w.sum())",
        says='gives the mean for reduction="sum"',
    ),
    Mutant(
        "loss_without_shift",
        "nn.cross_entropy",
        old="z = z - m.masked_fill_(m == -torch.inf, 0.0)",
        new="z = z.clone()",
        says="takes exponentials of the logits as they are",
    ),
    Mutant(
        "ignore_index_fixed",
        "nn.cross_entropy",
        old="        kept, index, w = _target_weights(targets, weight, ignore_index, z.dtype)",
        new="        kept, index, w = _target_weights(targets, weight, -100, z.dtype)",
        says="ignores −100 whatever ignore_index is",
    ),
    Mutant(
        "ignored_rows_have_smoothing_loss",
        "nn.cross_entropy",
        old="losses = losses.masked_fill_(~kept, 0.0)",
        new="losses = losses.clone()",
        says="smooths the labels of ignored rows too",
    ),
    Mutant(
        "smoothing_over_the_others",
        "nn.cross_entropy",
        old="losses = (1 - label_smoothing) * losses + label_smoothing * spread",
        new="k = z.shape[-1] / max(1, z.shape[-1] - 1)\n"
        "            losses = (1 - label_smoothing * k) * losses + label_smoothing * k * spread",
        says="shares ε among the K − 1 wrong classes where it belongs to all K",
    ),
    Mutant(
        "smoothing_summed",
        "nn.cross_entropy",
        old="surprise.mul_(weight)).mean(-1)",
        new="surprise.mul_(weight)).sum(-1)",
        says="adds ε of every class's loss, not of their mean",
    ),
    Mutant(
        "smoothing_unweighted",
        "nn.cross_entropy",
        old="(surprise if weight is None else surprise.mul_(weight))",
        new="surprise",
        says="leaves the class weights out of the smoothing term",
    ),
    Mutant(
        "smoothing_added",
        "nn.cross_entropy",
        old="(1 - label_smoothing) * losses + label_smoothing * spread",
        new="losses + label_smoothing * spread",
        says="adds the smoothing term without taking its share from the target",
    ),
    Mutant(
        "smoothing_ignored",
        "nn.cross_entropy",
        old="        if label_smoothing > 0:\n            surprise",
        new="        if label_smoothing > 1:\n            surprise",
        says="leaves the labels as they are",
    ),
    Mutant(
        "weights_ignored",
        "nn.cross_entropy",
        old="    return _CrossEntropy.apply(logits, targets, weight, ignore_index, reduction, label_smoothing)",
        new="    return _CrossEntropy.apply(logits, targets, None, ignore_index, reduction, label_smoothing)",
        says="leaves the class weights out",
    ),
    Mutant(
        "normalised_twice",
        "nn.cross_entropy",
        old="    return _CrossEntropy.apply(logits, targets,",
        new="    return _CrossEntropy.apply(softmax(logits), targets,",
        says="normalises twice: takes a softmax before the cross-entropy, which cannot fall below ln(e + V − 1) − 1",
    ),
    Mutant(
        "negative_targets_wrap_round",
        "nn.cross_entropy",
        old="    _check(logits, targets, weight, ignore_index, reduction, label_smoothing)\n    return _CrossEntropy",
        new="    wrapped = targets + logits.shape[-1]\n"
        "    targets = torch.where((targets < 0) & (targets != ignore_index), wrapped, targets)\n"
        "    _check(logits, targets, weight, ignore_index, reduction, label_smoothing)\n    return _CrossEntropy",
        says="reads target −1 as the last class",
    ),
    Mutant(
        "targets_clamped",
        "nn.cross_entropy",
        old="    _check(logits, targets, weight, ignore_index, reduction, label_smoothing)\n    return _CrossEntropy",
        new="    clamped = targets.clamp(0, logits.shape[-1] - 1)\n"
        "    targets = torch.where(targets == ignore_index, targets, clamped)\n"
        "    _check(logits, targets, weight, ignore_index, reduction, label_smoothing)\n    return _CrossEntropy",
        says="clamps a target that is no class",
    ),
    Mutant(
        "mean_of_nothing_is_nan",
        "nn.cross_entropy",
        old="        if not kept.any():",
        new="        if False:",
        says="divides by zero when every target is ignored",
    ),
    Mutant(
        "loss_in_half_precision",
        "nn.cross_entropy",
        old="z = logits.to(working_dtype(logits))\n        m",
        new="z = logits.clone()\n        m",
        says="computes the loss of half-precision logits in half precision",
    ),
    Mutant(
        "loss_comes_back_in_float32",
        "nn.cross_entropy",
        old='return (total / w.sum() if reduction == "mean" else total).to(logits.dtype)',
        new='return total / w.sum() if reduction == "mean" else total',
        says="returns float32 for half-precision logits",
    ),
    Mutant(
        "loss_through_the_probabilities",
        "nn.cross_entropy",
        old="    return _CrossEntropy.apply(logits, targets, weight, ignore_index, reduction, label_smoothing)",
        new="    logits = (softmax(logits) + 1e-12).log()\n"
        "    return _CrossEntropy.apply(logits, targets, weight, ignore_index, reduction, label_smoothing)",
        says="takes the logarithm of a probability kept away from 0: no loss exceeds 27.6",
    ),
    Mutant(
        "loss_gradient_summed",
        "nn.cross_entropy",
        old='reaching = grad.to(p.dtype) / w.sum() if reduction == "mean" else grad.to(p.dtype)',
        new="reaching = grad.to(p.dtype)",
        says="backward forgets that the mean divides",
    ),
    Mutant(
        "gradient_not_divided",
        "nn.cross_entropy_backward",
        old='reaching = grad.to(p.dtype) / w.sum() if reduction == "mean" else grad.to(p.dtype)',
        new="reaching = grad.to(p.dtype)",
        says="leaves out the mean's 1/N",
    ),
    Mutant(
        "gradient_divided_by_every_row",
        "nn.cross_entropy_backward",
        old='grad.to(p.dtype) / w.sum() if reduction == "mean"',
        new='grad.to(p.dtype) / kept.numel() if reduction == "mean"',
        says="divides by the number of rows, ignored ones included",
    ),
    Mutant(
        "ignored_rows_have_a_gradient",
        "nn.cross_entropy_backward",
        old="onto_every = (label_smoothing * reaching * kept).unsqueeze(-1)\n",
        new="onto_every = (label_smoothing * reaching).expand_as(w).unsqueeze(-1)\n    kept = torch.ones_like(kept)\n",
        says="lets ignored rows pull on their logits through the smoothing term",
    ),
    Mutant(
        "gradient_ignores_upstream",
        "nn.cross_entropy_backward",
        old='grad.to(p.dtype) / w.sum() if reduction == "mean" else grad.to(p.dtype)',
        new='torch.ones_like(grad) / w.sum() if reduction == "mean" else torch.ones_like(grad)',
        says="takes 1 for the gradient that arrives",
    ),
    Mutant(
        "gradient_without_onehot",
        "nn.cross_entropy_backward",
        old="    rows.scatter_add_(-1, index.unsqueeze(-1), -onto_target)\n",
        new="",
        says="is the softmax, without the 1 taken from the target",
    ),
    Mutant(
        "gradient_with_the_sign_flipped",
        "nn.cross_entropy_backward",
        old="return rows.masked_fill_",
        new="return rows.neg_().masked_fill_",
        says="is onehot − p",
    ),
    Mutant(
        "gradient_unsmoothed",
        "nn.cross_entropy_backward",
        old="    if label_smoothing > 0:\n        rows",
        new="    if label_smoothing > 1:\n        rows",
        says="leaves the smoothing term out of the gradient",
    ),
    Mutant(
        "gradient_smoothed_without_weights",
        "nn.cross_entropy_backward",
        old="spread = torch.ones_like(p[..., :1]) if weight is None else weight.to(p.dtype)",
        new="spread = torch.ones_like(p[..., :1])",
        says="leaves the class weights out of the smoothing term",
    ),
]
