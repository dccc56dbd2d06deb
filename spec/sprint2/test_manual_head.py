"""A language model's head by hand: cross-entropy, output projection and final normalisation, without autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from touchstone import checks, proves, subject

BY_HAND = subject("nn.cross_entropy", "nn.cross_entropy_backward", "nn.layer_norm", "nn.layer_norm_backward")

TOKENS, VOCABULARY, WIDTH = 7, 11, 5


@proves("sprints/day018/crossentropy-manual-gradient#parity")
@checks("oracle", "gradient", "arguments")
@BY_HAND
@pytest.mark.parametrize("ignore_index", [-100, 4])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_gradient_of_the_head_equals_autograd(weighted, label_smoothing, ignore_index, impl, draw):
    hidden, gamma, beta = draw.normal(TOKENS, WIDTH, scale=2.0), draw.uniform(0.5, 2.0, WIDTH), draw.normal(WIDTH)
    head, bias = draw.normal(VOCABULARY, WIDTH), draw.normal(VOCABULARY)
    targets = draw.integers(0, VOCABULARY, TOKENS)
    targets[2], targets[5] = ignore_index if ignore_index != -100 else 1, 4
    options = {
        "weight": draw.uniform(0.2, 3.0, VOCABULARY) if weighted else None,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
    }
    tensors = [tensor.requires_grad_() for tensor in (hidden, gamma, beta, head, bias)]
    logits = functional.linear(functional.layer_norm(hidden, (WIDTH,), gamma, beta), head, bias)
    logits.retain_grad()
    loss = functional.cross_entropy(logits, targets, **options)
    loss.backward()

    with torch.no_grad():
        normalised = impl.nn.layer_norm(hidden, gamma, beta)
        scores = normalised @ head.T + bias
        assert abs(impl.nn.cross_entropy(scores, targets, **options) - loss) <= 1e-12
        dlogits = impl.nn.cross_entropy_backward(torch.ones((), dtype=torch.float64), scores, targets, **options)
        dhead, dbias = dlogits.T @ normalised, dlogits.sum(0)
        dhidden, dgamma, dbeta = impl.nn.layer_norm_backward(dlogits @ head, hidden, gamma)
    assert (dlogits - logits.grad).abs().max() <= 1e-11
    for by_hand, tensor in zip((dhidden, dgamma, dbeta, dhead, dbias), tensors, strict=True):
        assert by_hand.shape == tensor.shape
        assert (by_hand - tensor.grad).abs().max() <= 1e-11


@proves("sprints/day018/crossentropy-manual-gradient#property")
@checks("gradient", "invariance")
@BY_HAND
def test_a_tied_embedding_gets_both_paths(impl, draw):
    embedding, gamma = draw.normal(VOCABULARY, WIDTH).requires_grad_(), draw.uniform(0.5, 2.0, WIDTH)
    tokens, targets = draw.integers(0, VOCABULARY, TOKENS), draw.integers(0, VOCABULARY, TOKENS)
    tokens[3] = tokens[0]  # a token that occurs twice receives twice
    logits = functional.layer_norm(embedding[tokens], (WIDTH,), gamma) @ embedding.T
    loss = functional.cross_entropy(logits, targets)
    loss.backward()

    with torch.no_grad():
        inputs = embedding[tokens]
        normalised = impl.nn.layer_norm(inputs, gamma)
        scores = normalised @ embedding.T
        assert abs(impl.nn.cross_entropy(scores, targets) - loss) <= 1e-12
        dlogits = impl.nn.cross_entropy_backward(torch.ones((), dtype=torch.float64), scores, targets)
        as_head = dlogits.T @ normalised
        dinputs, _, _ = impl.nn.layer_norm_backward(dlogits @ embedding, inputs, gamma)
        as_input = torch.zeros_like(embedding).index_add_(0, tokens, dinputs)
    assert (as_head + as_input - embedding.grad).abs().max() <= 1e-12
    for one_path in (as_head, as_input):
        assert (one_path - embedding.grad).abs().max() > 1e-6
