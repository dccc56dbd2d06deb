"""Mistakes that people make when they read and write other people's checkpoints."""

from __future__ import annotations

from touchstone import Mutant

_SPLIT = "(value.T if entry.transposed else value).split(sizes)"
_KEPT = "waiting = {name: value for name, value in stored.items() if not _BUFFERS.fullmatch(name)}"
_SHARDED = "for shard in sorted(set(shards.values())):"


def _load(name: str, old: str, new: str, says: str) -> Mutant:
    return Mutant(name, "models.load_pretrained", old, new, says)


def _save(name: str, old: str, new: str, says: str) -> Mutant:
    return Mutant(name, "models.save_pretrained", old, new, says)


MUTANTS = [
    _load("never_transposed", _SPLIT, "value.reshape(-1, *value.shape[:-1][:1]).split(sizes)"
          " if entry.transposed else value.split(sizes)",
          "reads a Conv1D's numbers in their order instead of transposing them"),
    _load("squares_not_transposed", _SPLIT,
          "(value.T if entry.transposed and value.shape[0] != value.shape[1] else value).split(sizes)",
          "leaves square matrices as they are stored: their shape does not tell"),
    _load("buffers_by_suffix", _KEPT,
          'waiting = {n: value for n, value in stored.items() if "attn.bias" not in n and "masked" not in n}',
          "leaves aside what ends like a buffer"),
    _load("extras_ignored", "    for name in waiting:\n", "    for name in []:\n",
           "does not look at what is left over"),
    _load("buffers_refused", _KEPT, "waiting = dict(stored)", "does not know the buffers of old files"),
    _load("shapes_unchecked", "if tuple(value.shape) != wanted:", "if value.numel() != torch.Size(wanted).numel():",
          "compares sizes, not shapes"),
    _load("dropout_kept", "    return model.eval()", "    return model", "leaves a loaded model in training mode"),
    _load("first_shard_only", _SHARDED, "for shard in sorted(set(shards.values()))[:1]:", "reads one shard of several"),
    _load("missing_shard_skipped", _SHARDED,
          "for shard in sorted(s for s in set(shards.values()) if (folder / s).is_file()):",
          "skips a shard that is missing"),
    _load("any_path", 'if Path(shard).name != shard or shard.startswith("."):', "if False:",
          "lets an index name files outside the folder"),
    _load("dtype_ignored", "part.to(dtype or value.dtype,", "part.to(value.dtype,", "ignores the dtype it is given"),
    _load("always_float32", "part.to(dtype or value.dtype,", "part.to(dtype or torch.float32,",
          "turns everything into float32"),
    _load("maps_of_the_file", "part.to(dtype or value.dtype, copy=True, memory_format=torch.contiguous_format)",
          "part.to(dtype or value.dtype)", "keeps views of one file's memory, transposed as they lie there"),
    _load("head_unchecked", "if not torch.equal(head.to(embedding.dtype), embedding):", "if False:",
          "does not look whether a stored head is the embedding it is tied to"),
    _load("prefix_required", 'stored = {name.removeprefix("transformer."): value for name, value in stored.items()}',
          'stored = {name.removeprefix("transformer."): value for name, value in stored.items()'
          ' if name.startswith(("transformer.", "lm_head"))}',
          "knows only names with the prefix"),
    _load("random_first", "            model = GPT(gpt)", "            model = GPT(gpt)\n        torch.rand(1)",
          "draws random numbers, as one does who makes weights only to throw them away"),
    _save("saved_untransposed", "(whole.T if entry.transposed else whole).contiguous()",
          "(whole.T.reshape(whole.shape[::-1]) if entry.transposed and whole.shape[0] != whole.shape[1] else whole)"
          ".contiguous()", "writes square matrices untransposed"),
    _save("pairs_not_turned", "if entry.turned:", "if False:", "writes interleaved pairs where halves are read"),
    _save("model_changed", "parts = [own[name] for name in entry.ours]",
          "parts = [own[name].clamp_(-0.5, 0.5) for name in entry.ours]",
          "changes the model while it writes it"),
    _save("float32_written",
          "whole = torch.cat(parts) if len(parts) > 1 else parts[0]",
          "whole = (torch.cat(parts) if len(parts) > 1 else parts[0]).float()", "writes float32 whatever the model is"),
    _save("no_prefix_on_head", 'name = entry.theirs if entry.theirs == "lm_head.weight" else prefix + entry.theirs',
          "name = prefix + entry.theirs", "writes the head under the prefix of the body"),
]  # fmt: skip
