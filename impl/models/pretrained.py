"""Checkpoints as transformers keeps them, a folder with `config.json` and safetensors: read and written, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impl.models.gpt import GPT
from impl.models.hub import (
    Entry,
    gpt_config,
    gpt_entries,
    llama_config,
    llama_entries,
    to_halves,
    told_gpt,
    told_llama,
)
from impl.models.llama import Llama
from impl.models.safetensors import read_safetensors, write_safetensors

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_BUFFERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias|model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def load_pretrained(folder: str | Path, *, dtype: torch.dtype | None = None) -> GPT | Llama:
    """Build the model of a folder and give it the folder's weights, in `dtype` or as they are stored."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; nothing is fetched from a network")
    told = _json(folder / "config.json")
    family = told.get("model_type")
    stored = _stored(folder)
    model: GPT | Llama
    if family == "gpt2":
        gpt = gpt_config(told)
        entries = list(gpt_entries(gpt))
        stored = {name.removeprefix("transformer."): value for name, value in stored.items()}
        with torch.device("meta"):  # no memory and no random numbers for weights that are thrown away
            model = GPT(gpt)
    elif family == "llama":
        llama = llama_config(told)
        entries = list(llama_entries(llama))
        with torch.device("meta"):
            model = Llama(llama)
    else:
        raise ValueError(f"config.json: model_type must be gpt2 or llama, got {family!r}")
    model.load_state_dict(_ours(entries, stored, model, folder, dtype), strict=True, assign=True)
    return model.eval()


def save_pretrained(model: GPT | Llama, folder: str | Path) -> None:
    """Write a folder that transformers loads; the folder is made where there is none."""
    if isinstance(model, Llama):
        n_hidden = model.state_dict()["blocks.0.mlp.down_proj.weight"].shape[1] if _is_gated(model) else 0
        told, entries = told_llama(model.config, n_hidden), list(llama_entries(model.config))
        prefix = ""
    elif isinstance(model, GPT):
        told, entries, prefix = told_gpt(model.config), list(gpt_entries(model.config)), "transformer."
    else:
        raise TypeError(f"model must be a GPT or a Llama, got {type(model).__name__}")
    own = model.state_dict()
    tensors = {}
    for entry in entries:
        parts = [own[name] for name in entry.ours]
        if entry.turned:
            parts = [to_halves(part, entry.turned) for part in parts]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        name = entry.theirs if entry.theirs == "lm_head.weight" else prefix + entry.theirs
        tensors[name] = (whole.T if entry.transposed else whole).contiguous()
    told["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / _WEIGHTS, tensors)
    (folder / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _ours(
    entries: list[Entry], stored: dict[str, Tensor], model: nn.Module, folder: Path, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Our state dict, each tensor in memory of its own."""
    shapes: Mapping[str, Tensor] = model.state_dict()
    waiting = {name: value for name, value in stored.items() if not _BUFFERS.fullmatch(name)}
    found = {}
    for entry in entries:
        if entry.theirs not in waiting:
            raise ValueError(f"{folder}: the tensor {entry.theirs} is missing")
        value = waiting.pop(entry.theirs)
        rows, *rest = (sum(shapes[name].shape[0] for name in entry.ours), *shapes[entry.ours[0]].shape[1:])
        wanted = (*rest, rows) if entry.transposed else (rows, *rest)
        if tuple(value.shape) != wanted:
            raise ValueError(f"{folder}: {entry.theirs} has shape {tuple(value.shape)}, the model needs {wanted}")
        if not value.is_floating_point():
            raise ValueError(f"{folder}: {entry.theirs} must be floating, got {value.dtype}")
        sizes = [shapes[name].shape[0] for name in entry.ours]
        for name, part in zip(entry.ours, (value.T if entry.transposed else value).split(sizes), strict=True):
            found[name] = part.to(dtype or value.dtype, copy=True, memory_format=torch.contiguous_format)
    if "head.weight" not in shapes and "lm_head.weight" in waiting:
        head, embedding = waiting.pop("lm_head.weight"), found["token_embedding.weight"]
        if not torch.equal(head.to(embedding.dtype), embedding):
            raise ValueError(f"{folder}: lm_head.weight is not the embedding that config.json ties it to")
    for name in waiting:
        raise ValueError(f"{folder}: the tensor {name} of shape {tuple(waiting[name].shape)} has no place in the model")
    return found


def _stored(folder: Path) -> dict[str, Tensor]:
    """The tensors of one file, or of the shards that an index names."""
    if not (folder / _INDEX).exists():
        if not (folder / _WEIGHTS).exists():
            raise ValueError(f"{folder} has neither {_WEIGHTS} nor {_INDEX}")
        return read_safetensors(folder / _WEIGHTS)
    shards = _json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{folder / _INDEX}: there is no weight_map of names and files")
    found: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or shard.startswith("."):
            raise ValueError(f"{folder / _INDEX}: {shard!r} is not a file of the folder")
        if not (folder / shard).is_file():
            raise ValueError(f"{folder}: the shard {shard} is missing")
        tensors = read_safetensors(folder / shard)
        for name in [name for name, place in shards.items() if place == shard]:
            if name not in tensors:
                raise ValueError(f"{folder}: the tensor {name} is missing from {shard}, where the index has it")
        for name in tensors:
            if shards.get(name) != shard:
                raise ValueError(f"{folder}: {shard} holds the tensor {name}, which the index does not have there")
        found |= tensors
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(told, dict):
        raise ValueError(f"{path} is not a table")
    return told


def _is_gated(model: Llama) -> bool:
    return "blocks.0.mlp.down_proj.weight" in model.state_dict()
