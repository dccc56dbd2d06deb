"""Why transformers: recall over a distance, the depth of the computation, and what it costs, beside a plain RNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from impl.attention import scaled_dot_product_attention
from impl.models import GPT, GPTConfig


@dataclass(frozen=True)
class RecallStudy:
    """At every position, name the token `distance` steps back; both models see the same examples in the same order."""

    distance: int = 32
    length: int = 48
    vocab_size: int = 8
    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 32
    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 3e-3
    test_examples: int = 200


class PlainRNN(nn.Module):
    """h_t = tanh(W x_t + U h_{t−1} + b), and logits V h_t: nothing else reaches the next position."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab_size, width)
        self.input = nn.Linear(width, width)
        self.hidden = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) to logits (batch, time, V)."""
        h = tokens.new_zeros(len(tokens), self.width, dtype=self.head.weight.dtype)
        states = []
        for x in self.input(self.embedding(tokens)).unbind(dim=1):
            h = torch.tanh(x + self.hidden(h))
            states.append(h)
        return self.head(torch.stack(states, dim=1))


def transformer_vs_rnn(
    study: RecallStudy,
    *,
    seed: int = 0,
    lengths: Sequence[int] = (8, 16, 32),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train both on recall, count depth and operations at each of `lengths`; plain values."""
    if not 1 <= study.distance < study.length:
        raise ValueError(f"distance = {study.distance} must lie between 1 and length = {study.length}")
    for name in ("vocab_size", "steps", "batch_size", "test_examples"):
        if getattr(study, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(study, name)}")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths must be positive, got {tuple(lengths)}")
    block = max(study.length, *lengths)
    shape = GPTConfig(study.vocab_size, block, study.n_layer, study.n_head, study.n_embd)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gpt = GPT(shape)
        rnn = PlainRNN(study.vocab_size, _equal_width(study.vocab_size, _size(gpt)))
    arms: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
        "transformer": (gpt, lambda tokens: gpt(tokens)[0]),
        "rnn": (rnn, rnn),
    }
    found: dict[str, Any] = {"study": asdict(study), "seed": seed}
    for name, (model, logits) in arms.items():
        untrained = _accuracy(logits, study, seed)
        losses = _train(name, model, logits, study, seed, progress)
        found[name] = {
            "parameters": _size(model),
            "losses": losses,
            "untrained": untrained,
            "accuracy": _accuracy(logits, study, seed),
            "depth": {n: _depth(logits(torch.zeros(1, n, dtype=torch.long))) for n in lengths},
        }
    found["transformer"]["operations"] = {n: study.n_layer * _attention_operations(shape, n) for n in lengths}
    found["rnn"]["operations"] = {n: _operations(partial(rnn, torch.zeros(1, n, dtype=torch.long))) for n in lengths}
    return found


def _train(
    name: str,
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    study: RecallStudy,
    seed: int,
    progress: Callable[[str], None] | None,
) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=study.learning_rate)
    generator, losses = torch.Generator().manual_seed(seed), []
    for step in range(study.steps):
        tokens = torch.randint(study.vocab_size, (study.batch_size, study.length), generator=generator)
        asked = logits(tokens)[:, study.distance :]
        loss = F.cross_entropy(asked.flatten(0, 1), tokens[:, : -study.distance].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # a plain RNN explodes without it
        optimizer.step()
        losses.append(loss.item())
        if progress is not None and (step + 1) % 100 == 0:
            progress(f"{name}: update {step + 1}, {losses[-1]:.3f} nats")
    return losses


@torch.no_grad()
def _accuracy(logits: Callable[[Tensor], Tensor], study: RecallStudy, seed: int) -> float:
    """On examples of their own."""
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    tokens = torch.randint(study.vocab_size, (study.test_examples, study.length), generator=generator)
    right = logits(tokens)[:, study.distance :].argmax(dim=-1) == tokens[:, : -study.distance]
    return right.double().mean().item()


def _depth(result: Tensor) -> int:
    """Nodes on the longest path of the graph that autograd kept of `result`: what no number of processors shortens."""
    longest: dict[Any, int] = {}
    waiting = [result.grad_fn]
    while waiting:
        node = waiting[-1]
        parents = [parent for parent, _ in node.next_functions if parent is not None]  # type: ignore[union-attr]
        open_parents = [parent for parent in parents if parent not in longest]
        if open_parents:
            waiting.extend(open_parents)
        else:
            waiting.pop()
            longest[node] = 1 + max((longest[parent] for parent in parents), default=0)
    return longest[result.grad_fn]


def _attention_operations(shape: GPTConfig, time: int) -> int:
    """Of one layer: the products of queries, keys and values, which grow with the square of the length."""
    heads = torch.zeros(1, shape.n_head, time, shape.n_embd // shape.n_head)
    return _operations(lambda: scaled_dot_product_attention(heads, heads, heads, is_causal=True))


def _operations(run: Callable[[], Any]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _equal_width(vocab_size: int, parameters: int) -> int:
    """The width whose 2 w² + (2 V + 1) w + V is nearest to `parameters`."""

    def off(width: int) -> int:
        return abs(2 * width * width + (2 * vocab_size + 1) * width + vocab_size - parameters)

    return min(range(1, parameters + 2), key=off)
