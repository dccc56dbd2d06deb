"""Golden values: what a small GPT computes, to the last bit, kept from before the code was last rewritten.

Bits belong to a machine: they are kept by implementation, processor and PyTorch.  To keep those of this machine, of
code that is known to be right and not yet touched:  python -m spec.sprint1.golden impl
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from pathlib import Path

from spec.processes import output
from touchstone.runs.records import hardware

KEPT = Path(__file__).with_name("golden.json")

#: What the values are computed with.
NAMES = (
    "models.GPT",
    "models.GPTConfig",
    "nn.cross_entropy",
    "data.TokenDataset",
    "training.TrainConfig",
    "training.train",
    "training.set_seed",
)

_RUN = """
import hashlib, json, sys
import torch
from touchstone import load
GPT, GPTConfig, cross_entropy, TokenDataset, TrainConfig, train, set_seed = (load(name, sys.argv[1]) for name in NAMES)
torch.set_num_threads(1)

def bits(tensor):
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()[:32]

set_seed(3)
model = GPT(GPTConfig(vocab_size=31, block_size=16, n_layer=2, n_head=2, n_embd=32))
tokens = torch.tensor([[(7 * i * i + 3 * i + row) % 31 for i in range(17)] for row in range(4)])
logits, _ = model(tokens[:, :-1])
loss = cross_entropy(logits.reshape(-1, 31), tokens[:, 1:].reshape(-1))
loss.backward()
found = {"logits": bits(logits), "loss": loss.item().hex()}
found |= {f"gradient of {name}": bits(value.grad) for name, value in model.named_parameters()}
text = torch.tensor([i * i % 31 for i in range(700)])
log = train(model, TokenDataset(text, 16), TrainConfig(steps=8, batch_size=4, warmup=3, seed=3))
found |= {f"loss of step {step}": value.hex() for step, value in enumerate(log.loss, start=1)}
found |= {f"{name} after training": bits(value) for name, value in model.named_parameters()}
print(json.dumps(found))
""".replace("NAMES", repr(NAMES))


def machine() -> str:
    """What the bits of a result depend on: the processor, its instructions as PyTorch uses them, PyTorch."""
    import torch

    processor = hardware().partition(",")[0]
    return f"{processor} {_kind()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def _kind() -> str:
    """Processors of one name differ: family, model, instructions, and caches, by which products are cut up; a hash."""
    fields = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "cache size")
    found = set()
    with contextlib.suppress(OSError):  # not Linux: the name alone
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in fields:
                found.add(f"{name.strip()}: {value.strip()}")
        for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
            found.add(f"{cache.parent.name}: {cache.read_text().strip()}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:8]


def values(layers: str) -> dict[str, str]:
    """Each value's name → its bits, of `layers` in a process of its own."""
    said = output(_RUN, layers, MKL_NUM_THREADS="1")
    found: dict[str, str] = json.loads(said.splitlines()[-1])
    return found


def kept() -> dict[str, dict[str, dict[str, str]]]:
    """Implementation → machine → name → bits."""
    found: dict[str, dict[str, dict[str, str]]] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    return found


if __name__ == "__main__":
    everything = kept()
    everything.setdefault(sys.argv[1], {})[machine()] = values(sys.argv[1])
    KEPT.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n", encoding="utf-8")
