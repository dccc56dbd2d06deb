"""Small GPTs that are trained until their heads have a habit: apart from the tests, so that they are trained once."""

from __future__ import annotations

from typing import Any

#: Names that `build` uses.
NAMES = ("models.GPT", "models.GPTConfig")

#: Random symbols, then themselves again: from the offset on, a row repeats what stood `offset` before.
#: After 700 updates, at seeds 0, 1, 2, the best induction score is 0.90, 0.91, 0.90, and the loss without those heads
#: 4.3, 4.4, 3.8 nats higher; without the previous-token head 2.4 and 5.3, and at seed 2 two heads share its work.
INDUCTION = {
    "vocab_size": 16, "time": 32, "n_layer": 2, "n_head": 2, "n_embd": 64, "offsets": [6, 14], "steps": 700,
    "batch": 32, "learning_rate": 3e-3,
}  # fmt: skip
#: One offset for all: positions alone tell where to look, and no induction is needed.
POSITIONAL = {**INDUCTION, "offsets": [10, 10], "steps": 150}
#: Symbols to be copied from three positions back, by one layer; what comes before is not scored.
#: After 600 updates the best head's mean weight there is 0.934, 0.944, 0.938 at seeds 0, 1, 2.
COPY = {
    "vocab_size": 16, "time": 16, "n_layer": 1, "n_head": 2, "n_embd": 32, "offsets": None, "steps": 600, "batch": 32,
    "learning_rate": 5e-3,
}  # fmt: skip


def repeated(config: dict[str, Any], count: int, generator: Any, offsets: list[int] | None = None) -> tuple[Any, Any]:
    """Tokens and targets (count, time): only what can be known, the repetition, is scored; the rest is −100."""
    import torch

    time, (low, high) = config["time"], offsets or config["offsets"]
    rows = torch.randint(config["vocab_size"], (count, time + 1), generator=generator)
    lags = torch.randint(low, high + 1, (count, 1), generator=generator)
    places = torch.arange(time + 1)
    rows = rows.gather(1, places % lags)  # the first `lag` symbols, again and again
    return rows[:, :-1], torch.where(places[1:] >= lags, rows[:, 1:], -100)


def three_back(config: dict[str, Any], count: int, generator: Any) -> tuple[Any, Any]:
    """Random tokens; the target at t is the token at t − 3."""
    import torch

    rows = torch.randint(config["vocab_size"], (count, config["time"]), generator=generator)
    return rows, torch.nn.functional.pad(rows[:, :-3], (3, 0), value=-100)


def batch_of(config: dict[str, Any], count: int, generator: Any) -> tuple[Any, Any]:
    return (repeated if config["offsets"] else three_back)(config, count, generator)


def fresh(impl: Any, config: dict[str, Any]) -> Any:
    shape = ("n_layer", "n_head", "n_embd")
    return impl.models.GPT(
        impl.models.GPTConfig(config["vocab_size"], config["time"], **{name: config[name] for name in shape})
    )


def build(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """AdamW with a short warm-up and a rate that falls to zero over the last third; the weights, and the losses."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model, steps = fresh(impl, config), config["steps"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in range(steps):
        share = min(1.0, (step + 1) / 50, (steps - step) / (0.3 * steps))
        for group in optimiser.param_groups:
            group["lr"] = share * config["learning_rate"]
        _, loss = model(*batch_of(config, config["batch"], generator))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return dict(model.state_dict()), {"loss": losses}
