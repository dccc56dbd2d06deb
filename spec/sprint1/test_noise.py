"""Nothing can be learnt from noise: on tokens that are independent, a loss below ln V is a leak."""

from __future__ import annotations

import math

import pytest
import torch

from touchstone import checks, proves, subject

pytestmark = [
    pytest.mark.train,
    pytest.mark.limit(seconds=3600),
    subject(
        "models.GPT",
        "models.GPTConfig",
        "data.TokenDataset",
        "training.train",
        "training.TrainConfig",
        "training.set_seed",
    ),
]


class Leaky(torch.nn.Module):
    """torch's own transformer under a causal mask that is off by one: position t sees t + 1, its target."""

    def __init__(self, vocab_size, time, width):
        super().__init__()
        self.tokens, self.places = torch.nn.Embedding(vocab_size, width), torch.nn.Embedding(time, width)
        layer = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, norm=torch.nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = torch.nn.Linear(width, vocab_size)
        self.mask = torch.ones(time, time, dtype=torch.bool).triu(2)

    def forward(self, tokens, targets=None):
        x = self.tokens(tokens) + self.places.weight
        logits = self.head(self.layers(x, mask=self.mask))
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


@proves("nanochat/week04/causal-mask#threshold")
@checks("oracle", "invariance")
def test_noise_cannot_be_predicted(impl, record):
    """On i.i.d. uniform tokens no model goes below ln V; one that sees its target does, so this probe can fail.

    The lowest of 200 batches lies 0.006, 0.005 and 0.010 below ln V at seeds 0, 1, 2; under the leak at 0.17.
    """
    vocab_size, time = 16, 16
    noise = torch.randint(vocab_size, (400_000,), generator=torch.Generator().manual_seed(0))
    dataset = impl.data.TokenDataset(noise, time)
    config = impl.training.TrainConfig(steps=200, batch_size=32, learning_rate=3e-3, warmup=20, grad_clip=1.0)
    losses = {}
    impl.training.set_seed(0)
    sound = impl.models.GPT(
        impl.models.GPTConfig(vocab_size=vocab_size, block_size=time, n_layer=2, n_head=4, n_embd=64)
    )
    for name, model in (("the model", sound), ("off-by-one mask", Leaky(vocab_size, time, 64))):
        log = impl.training.train(model, dataset, config)
        losses[name] = log.loss
        record.series(f"i.i.d. uniform tokens, {name}", log.step, log.loss, "update", "nats per token")
    record("lowest loss on noise", min(losses["the model"]), "nats")
    record("lowest loss on noise under an off-by-one mask", min(losses["off-by-one mask"]), "nats", 0.5)
    assert min(losses["the model"]) >= math.log(vocab_size) - 0.02
    assert min(losses["off-by-one mask"]) < 0.5
