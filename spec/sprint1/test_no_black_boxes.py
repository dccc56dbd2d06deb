"""The GPT from elementary operations: its reference needs no ready-made module, and the implementation no package."""

from __future__ import annotations

import ast
import json

import pytest
import torch

from spec.processes import output
from spec.sprint1 import gpt_on_tensors
from spec.sprint1.gpt_cases import drawn, loaded, shapes
from touchstone import checks, proves, subject

PACKAGES = {"transformers", "peft", "tokenizers"}

pytestmark = subject("models.GPT", "models.GPTConfig")

#: In a process where torch's ready-made parts raise: build from given weights, train by plain descent, generate.
FROM_ELEMENTS = """
import json, sys
from types import SimpleNamespace
import numpy as np
import torch
from torch import nn

def forbidden(*args, **kwargs):
    raise AssertionError("a ready-made part was used")

parts = [name for name in dir(nn) if name.startswith("Transformer")]
parts += ["MultiheadAttention", "LayerNorm", "GELU", "Embedding", "Linear"]
for name in parts:
    setattr(nn, name, forbidden)
functions = ["scaled_dot_product_attention", "multi_head_attention_forward", "layer_norm", "gelu", "embedding"]
functions += ["linear"]
for name in functions:
    setattr(nn.functional, name, forbidden)
for name in ("Linear", "Embedding"):
    try:
        getattr(nn, name)(2, 2)
    except AssertionError:
        continue
    raise SystemExit(f"nn.{name} still works")

from reference.models import gpt, gpt_backward
sent = json.load(open(sys.argv[1]))
weights = {name: np.array(value) for name, value in sent["weights"].items()}
config = SimpleNamespace(**sent["config"])
tokens, targets = np.array(sent["tokens"]), np.array(sent["targets"])
losses = []
for _ in range(60):
    logits, loss = gpt(tokens, targets, weights=weights, config=config)
    losses.append(float(loss))
    one = np.zeros_like(logits), np.ones_like(loss)
    _, gradients = gpt_backward(one, tokens, targets, weights=weights, config=config)
    weights = {name: value - 0.5 * gradients[name] for name, value in weights.items()}
text = tokens[:1, :2]
while text.shape[1] < config.block_size:
    logits, _ = gpt(text, weights=weights, config=config)
    text = np.concatenate([text, logits[:, -1:].argmax(axis=-1)], axis=1)
print(json.dumps({"losses": losses, "text": text.tolist()}))
"""


@proves("karpathy/week08/no-black-boxes#property")
@checks("oracle", "gradient", "purity")
@pytest.mark.process
def test_the_reference_trains_and_generates_without_ready_made_parts(impl, draw, seed, tmp_path):
    """The same model: its first loss is the implementation's.  Learnt by heart, it says what it was taught."""
    torch.manual_seed(seed)
    config = impl.models.GPTConfig(11, 8, 2, 2, 16)
    model = impl.models.GPT(config).double()
    row = draw.permutation(9)
    tokens, targets = row[None, :-1], row[None, 1:]
    sent = {
        "weights": {name: value.tolist() for name, value in model.named_parameters()},
        "config": vars(config),
        "tokens": tokens.tolist(),
        "targets": targets.tolist(),
    }
    (tmp_path / "sent.json").write_text(json.dumps(sent))
    found = json.loads(output(FROM_ELEMENTS, str(tmp_path / "sent.json")))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for step, loss in enumerate(found["losses"][:5]):  # five updates, so that gradients are compared too
        own = model(tokens, targets)[1]
        assert abs(own.item() / loss - 1) <= 1e-9, f"update {step}"
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    assert found["losses"][-1] < 0.05 < 1.0 < found["losses"][0]
    assert found["text"] == tokens.tolist()


@proves("karpathy/week08/no-black-boxes#parity")
@checks("oracle", "gradient")
@subject("models.GPT", "models.GPTConfig", "autograd.Tensor")
def test_the_houses_own_engine_agrees(impl, draw):
    """Two layers of width 16, in float64: logits, loss and every gradient on our engine and on torch's, rel 1e-8."""
    shape = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
    model = loaded(impl.models.GPT(impl.models.GPTConfig(**shape)), drawn(draw, shapes(shape)))
    tokens, targets = draw.integers(0, 11, 3, 8), draw.integers(0, 11, 3, 8)
    logits, loss = model(tokens, targets)
    loss.backward()
    weights = {
        name: impl.autograd.Tensor(value.detach().numpy(), requires_grad=True)
        for name, value in model.named_parameters()
    }
    own_logits, own = gpt_on_tensors.gpt(tokens.numpy(), targets.numpy(), weights, 2, 2)
    own.backward()
    assert abs(own.item() / loss.item() - 1) <= 1e-8
    assert abs(own_logits.data - logits.detach().numpy()).max() <= 1e-8 * logits.abs().max()
    for name, value in model.named_parameters():
        wanted = value.grad.numpy()
        found, most = weights[name].grad, max(abs(wanted).max(), 1e-4)  # the bias of keys has gradient 0
        assert abs(found - wanted).max() <= 1e-8 * most, name


def imported(source):
    """Top packages that a module names in an import, by a statement or by a call with the name as a string."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            words = [
                one.value
                for one in [*node.args, *(word.value for word in node.keywords)]
                if isinstance(one, ast.Constant)
            ]
            if called in {"import_module", "__import__", "find_spec", "exec", "eval", "run_module", "LazyLoader"}:
                found |= {part for word in words if isinstance(word, str) for part in word.replace(".", " ").split()}
    return found


@proves("karpathy/week08/no-black-boxes#property-2")
@checks("purity")
@subject("models.GPT", "models.GPTConfig")
@pytest.mark.process
def test_the_implementation_imports_no_such_package(impl):
    """Every file of the layer that has the GPT, statements and dynamic imports; and the scan finds what it must."""
    impl.models.GPT(impl.models.GPTConfig(11, 8, 1, 1, 4))  # a stub imports nothing either
    root = impl.home("models.GPT").root
    files = sorted(root.rglob("*.py"))
    assert any("GPT" in path.read_text() for path in files)
    guilty = {path.relative_to(root).as_posix(): imported(path.read_text()) & PACKAGES for path in files}
    assert {name: packages for name, packages in guilty.items() if packages} == {}
    for line in (
        "import transformers.models as m", "from peft import LoraConfig",
        "def f():\n    from tokenizers import Tokenizer",
        "import_module('transformers')", "importlib.import_module(name='peft.utils')", "__import__('tokenizers')",
        "exec('import transformers')",
    ):  # fmt: skip
        assert imported(line) & PACKAGES, line
    assert (
        not imported("from impl.tokenizers import CharTokenizer\nfrom .tokenizers import x\nname = 'transformers'")
        & PACKAGES
    )
