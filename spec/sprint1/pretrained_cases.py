"""Small checkpoints that transformers itself writes, with random weights, for the tests of loading and saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The parts of a small GPT-2: square matrices among the ones that are stored transposed (c_proj), and others.
GPT2 = {"vocab_size": 29, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
#: 4 heads of keys and values for 32, as TinyLlama has them.
LLAMA = {
    "vocab_size": 31, "hidden_size": 128, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 32,
    "num_key_value_heads": 4, "max_position_embeddings": 24, "rms_norm_eps": 1e-4,
}  # fmt: skip


def shaken(model: Any, draw: Any, dtype: str) -> Any:
    """Weights at which everything matters, in eval mode."""
    import torch

    model = model.to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(draw.normal(*parameter.shape, scale=0.3).to(parameter.dtype))
    return model


def gpt2(draw: Any, dtype: str = "float32", **changes: Any) -> Any:
    """transformers' GPT-2."""
    import transformers

    options = {**GPT2, "bos_token_id": 0, "eos_token_id": None, **changes}
    return shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**options)), draw, dtype)


def llama(draw: Any, dtype: str = "float32", theta: float = 500.0, **changes: Any) -> Any:
    """transformers' Llama."""
    import transformers

    rope = {"rope_type": "default", "rope_theta": theta}
    options = {**LLAMA, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": None, "rope_parameters": rope}
    return shaken(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**options, **changes})), draw, dtype)


def tensors(folder: Path) -> dict[str, Any]:
    """All tensors of a folder's safetensors files, read by the safetensors package."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def rewrite(folder: Path, values: dict[str, Any]) -> None:
    """The folder's one file again, with these tensors."""
    from safetensors.torch import save_file

    whole = {name: value.contiguous() for name, value in values.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    """Change entries of `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
