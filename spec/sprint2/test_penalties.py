"""Penalties on weights: L1, L2, the elastic net, and the proximal step that makes zeros."""

from __future__ import annotations

import math

import pytest
import torch

from spec.refusals import naming
from touchstone import checks, proves, subject

L1, L2, NET, SOFT = "nn.l1_penalty", "nn.l2_penalty", "nn.elastic_net_penalty", "nn.soft_threshold"


@proves("inference/0.6/adamw#property-3")
@checks("oracle", "arguments", "gradient", "invariance", "edges", "dtype", "magnitude", "branches", "purity")
@subject(L1, L2, NET)
def test_the_net_reduces_to_its_parts(impl, draw):
    """Values and gradients; a tied weight is penalised once, an empty one by nothing."""
    nn = impl.nn
    for dtype, bound in (("float64", 1e-13), ("float32", 1e-5)):
        weights = [draw.normal(*shape, dtype=dtype, scale=scale).requires_grad_()
                   for shape, scale in (((3, 4), 1.0), ((5,), 1e-3), ((), 30.0), ((0, 2), 1.0))]  # fmt: skip
        absolute = sum(float(one.detach().double().abs().sum()) for one in weights)
        square = sum(float((one.detach().double() ** 2).sum()) for one in weights)
        for strength in (0.0, 1e-3, 2.5):
            parts = {0.0: nn.l2_penalty(weights, strength), 1.0: nn.l1_penalty(iter(weights), strength)}
            for ratio in (0.0, 0.3, 1.0):
                value = nn.elastic_net_penalty(iter(weights), strength, l1_ratio=ratio)
                want = strength * (ratio * absolute + (1 - ratio) / 2 * square)
                assert value.shape == ()
                assert value.dtype == weights[0].dtype
                assert abs(float(value) - want) <= bound * max(want, 1e-3)
                slopes = torch.autograd.grad(value, weights)
                for one, slope in zip(weights, slopes, strict=True):
                    expected = strength * (ratio * one.detach().sign() + (1 - ratio) * one.detach())
                    assert torch.allclose(slope, expected, rtol=bound, atol=bound * strength)
                if ratio in parts:
                    assert float(value) == float(parts[ratio])
        for penalty, options in (
            (nn.l1_penalty, {}), (nn.l2_penalty, {}), (nn.elastic_net_penalty, {"l1_ratio": 0.5})
        ):  # fmt: skip
            tied = float(penalty([weights[0], weights[1], weights[0]], 1.0, **options))
            assert tied == pytest.approx(float(penalty(weights[:2], 1.0, **options)), rel=bound)
    zero = torch.zeros(3, requires_grad=True)
    assert torch.equal(torch.autograd.grad(nn.l1_penalty([zero], 2.0), zero)[0], torch.zeros(3))


@proves("inference/0.6/adamw#property-3")
@checks("oracle", "gradient", "dtype", "edges", "branches", "purity", "invariance", "magnitude", "arguments")
@subject(SOFT)
def test_soft_threshold_equals_the_oracle(parity, impl, draw):
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        for threshold in (0.0, 0.3, 1.5):
            x = draw.normal(4, 5, dtype=dtype, scale=2.0)  # some beyond every threshold
            parity(SOFT, x, threshold, within={"float64": 1e-15}, gradients=True)
    edge = torch.tensor([0.5, -0.5, 0.5000001, -0.5000001, 0.0], dtype=torch.float64)
    assert (impl.nn.soft_threshold(edge, 0.5)[[0, 1, 4]] == 0).all()
    assert (impl.nn.soft_threshold(edge, 0.5)[2:4] != 0).all()
    assert impl.nn.soft_threshold(edge[:0], 0.5).shape == (0,)


@proves("inference/0.6/adamw#property-3")
@checks("branches", "invariance")
@subject(L1, SOFT, "optim.SGD")
def test_the_proximal_step_makes_zeros(impl, draw):
    """After a gradient step, exact zeros where |w| ≤ lr λ and there only; the subgradient's step leaves none."""
    lr, strength = 0.1, 2.0
    start, gradient = draw.normal(400), draw.normal(400)
    weight = torch.nn.Parameter(start.clone())
    optimizer = impl.optim.SGD([weight], lr=lr)
    weight.grad = gradient.clone()
    optimizer.step()
    stepped = weight.detach().clone()
    proximal = impl.nn.soft_threshold(stepped, lr * strength)
    assert torch.equal(proximal == 0, stepped.abs() <= lr * strength)
    assert 20 < int((proximal == 0).sum()) < 200
    # To least squares ½ (w − a)² both converge near soft(a, λ); only one of them arrives.
    target = draw.normal(400, scale=3.0)
    weights = {kind: torch.nn.Parameter(start.clone()) for kind in ("proximal", "subgradient")}
    for kind, one in weights.items():
        optimizer = impl.optim.SGD([one], lr=lr)
        for _ in range(300):
            optimizer.zero_grad()
            loss = 0.5 * ((one - target) ** 2).sum()
            (loss + impl.nn.l1_penalty([one], strength) if kind == "subgradient" else loss).backward()
            optimizer.step()
            if kind == "proximal":
                with torch.no_grad():
                    one.copy_(impl.nn.soft_threshold(one, lr * strength))
    dead = target.abs() <= strength
    assert torch.equal(weights["proximal"] == 0, dead)
    assert not (weights["subgradient"] == 0).any()
    want = target.sign() * (target.abs() - strength).clamp(min=0)
    assert (weights["proximal"] - want).abs().max() < 1e-9


@proves("inference/0.6/adamw#property-3")
@checks("edges", "arguments")
@pytest.mark.parametrize("name", [pytest.param(name, marks=subject(name)) for name in (L1, L2, NET)])
def test_what_they_refuse(impl, draw, name):
    options = {"l1_ratio": 0.5} if name == NET else {}
    weights = [draw.normal(3)]
    for strength in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=naming("strength", strength)):
            impl[name](weights, strength, **options)
    with pytest.raises(ValueError, match="parameters"):
        impl[name]([], 0.1, **options)
    if name == NET:
        for ratio in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match=naming("l1_ratio", ratio)):
                impl[name](weights, 0.1, l1_ratio=ratio)


@proves("inference/0.6/adamw#property-3")
@checks("edges")
@subject(SOFT)
def test_what_the_threshold_refuses(impl, draw):
    for threshold in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=naming("threshold", threshold)):
            impl.nn.soft_threshold(draw.normal(3), threshold)
