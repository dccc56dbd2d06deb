"""Mistakes that people make in key/value caches; patches of impl/attention/cache.py, paged.py and impl/scaling."""

from __future__ import annotations

from touchstone import Mutant

CACHE = "attention.KVCache"
PAGED = "attention.PagedKVCache"
BYTES = "scaling.kv_cache_bytes"
FLOPS = "scaling.decode_flops"

_KEYS = "self.keys[layer, :, :, begin:end] = key.detach()"
_SHARED = "shared = own.length % size != 0 and self._owners[own.table[-1]] > 1"
_COPY = "            own.table[-1] = self._copied(own.table[-1])"
_FORK = "            self._owners[block] += 1\n"
_SEQUENCE = "_Sequence(own.length, list(own.table))"
_NEEDED = "if fresh + shared > len(self._free):"
_HELD = "held = -(-tokens // size) * size"
_TOTAL = "return 2 * n_layers * n_kv_heads * head_dim * held * batch * bytes_per_element"

CONTIGUOUS = [
    ("values_are_keys", "= value.detach()", "= key.detach()", "stores the keys twice"),
    ("overwrites_the_start", "begin = self._lengths[layer]\n", "begin = 0\n", "writes every portion over the first"),
    ("one_length_for_all", "self._lengths[layer] = end", "self._lengths = [end] * len(self._lengths)",
     "counts all layers' tokens in one place"),
    ("gives_only_the_new", "return self.keys[layer, :, :, :end]", "return self.keys[layer, :, :, begin:end]",
     "returns the new keys, not all"),
    ("gives_its_whole_capacity", "self.values[layer, :, :, :end]\n", "self.values[layer]\n",
     "returns empty places as values"),
    ("keeps_the_graph", _KEYS, "self.keys = self.keys.clone()\n        self.keys[layer, :, :, begin:end] = key",
     "keeps every step's graph alive"),
    ("first_layer_only", _KEYS, _KEYS.replace("layer,", "0,"), "stores every layer's keys in the first"),
    ("last_place_lost", "if end > capacity:", "if end >= capacity:", "refuses the last token that fits"),
    ("wraps_around", "            raise ValueError(f\"{begin} cached and",
     "            self._lengths[layer] = 0\n            raise ValueError(f\"{begin} cached and",
     "forgets what it holds when it refuses"),
    ("in_float32", "self.keys = torch.zeros(shape, dtype=dtype", "self.keys = torch.zeros(shape, dtype=torch.float32",
     "stores keys in float32 whatever it is told"),
    ("values_on_the_cpu", "self.values = torch.zeros(shape, dtype=dtype, device=device)",
     "self.values = torch.zeros(shape, dtype=dtype)", "leaves the values on the CPU"),
]  # fmt: skip

BLOCKS = [
    ("no_copy_on_write", _SHARED, "shared = False", "writes into a block that a fork still reads"),
    ("copies_full_blocks", _SHARED, "shared = own.length > 0 and self._owners[own.table[-1]] > 1",
     "copies a full block before it appends behind it"),
    ("copies_always", _SHARED, "shared = own.length % size != 0", "copies the last block though nobody shares it"),
    ("copy_is_empty", "        self._pool[:, fresh] = self._pool[:, block]\n", "", "takes a block without its content"),
    ("copy_of_keys_only", "        self._pool[:, fresh] = self._pool[:, block]\n",
     "        self._pool[0, fresh] = self._pool[0, block]\n", "copies the keys of a shared block, not its values"),
    ("copy_keeps_the_owner", "        self._release(block)\n        return fresh", "        return fresh",
     "leaves the old block counted after a copy"),
    ("copy_is_not_counted", _NEEDED, "if fresh > len(self._free):", "forgets the copied block when it asks for room"),
    ("fork_without_count", _FORK, "            pass\n", "does not count a fork as an owner"),
    ("fork_shares_the_table", _SEQUENCE, "_Sequence(own.length, own.table)", "lets parent and child grow one table"),
    ("fork_is_the_parent", "return self._add(_Sequence(own.length, list(own.table)))", "return self._add(own)",
     "forks nothing: both ids are one sequence"),
    ("fork_copies_at_once", "        return self._add(_Sequence(own.length, list(own.table)))",
     "        if own.length % self.block_size and self._free:\n"
     "            return self._add(_Sequence(own.length, [*own.table[:-1], self._copied(own.table[-1])]))\n"
     "        return self._add(_Sequence(own.length, list(own.table)))",
     "copies the last block when it forks, not when somebody writes"),
    ("free_leaks_the_last", "        for block in own.table:\n            self._release(block)",
     "        for block in own.table[: own.length // self.block_size]:\n            self._release(block)",
     "never gives a partly filled block back"),
    ("free_takes_all", "        if self._owners[block] == 0:\n            self._free.append(block)",
     "        if block not in self._free:\n            self._free.append(block)",
     "gives shared blocks back while somebody holds them"),
    ("free_twice", "        del self._sequences[sequence]\n", "        own.table, own.length = [], 0\n",
     "accepts a sequence that was freed"),
    ("free_counts_the_table", "return len(self._free) - before", "return len(own.table)",
     "counts shared blocks as freed"),
    ("ids_used_again", "name, self._next = self._next, self._next + 1", "name = len(self._sequences)",
     "gives a freed sequence's id to the next"),
    ("partial_append", _NEEDED, "if fresh + shared and not self._free:", "takes what blocks there are, then fails"),
    ("refused_late", "        if fresh + shared > len(self._free):\n",
     "        if shared and self._free:\n            own.table[-1] = self._copied(own.table[-1])\n"
     "            shared = False\n        if fresh + shared > len(self._free):\n",
     "copies before it looks whether the rest fits"),
    ("exhaustion_counts_swapped", "raise OutOfBlocks(fresh + shared, len(self._free))",
     "raise OutOfBlocks(len(self._free), fresh + shared)", "names free blocks as requested"),
    ("requested_without_copy", "raise OutOfBlocks(fresh + shared,", "raise OutOfBlocks(fresh,",
     "names too few requested blocks"),
    ("requested_in_tokens", "raise OutOfBlocks(fresh + shared,", "raise OutOfBlocks(new,", "names tokens for blocks"),
    ("a_block_too_many", "fresh = -(-end // size) - len(own.table)", "fresh = end // size + 1 - len(own.table)",
     "holds an empty block behind a full one"),
    ("place_in_the_chunk", "places = torch.arange(own.length, end,", "places = torch.arange(0, new,",
     "writes each portion from the start of the sequence"),
    ("places_by_blocks", "places % size]", "places // size % size]", "takes the block's number for the place in it"),
    ("heads_as_tokens", ".detach().transpose(1, 2)", ".detach().reshape(2, new, *self._pool.shape[3:])",
     "reads heads as tokens"),
    ("keys_and_values_swapped", "torch.stack((key, value))", "torch.stack((value, key))", "swaps keys and values"),
    ("gathers_sorted", "blocks = torch.tensor(own.table, dtype", "blocks = torch.tensor(sorted(own.table), dtype",
     "reads blocks by their numbers, not by the table"),
    ("gathers_whole_blocks", "[:, : own.length]", "", "returns the empty places of the last block"),
    ("keeps_the_graph", "torch.stack((key, value)).detach()", "torch.stack((key, value))",
     "keeps the graph of what it stores"),
    ("unequal_lengths", "        if key.shape != value.shape:", "        if False:", "accepts unequal lengths"),
    ("dtype_is_cast", "            if new.dtype != self._pool.dtype:", "            if False:",
     "casts what it is given without a word"),
    ("table_handed_out", "return tuple(self._get(sequence).table)", "return self._get(sequence).table",
     "hands out its own table"),
    ("used_counts_owners", "return self.n_blocks - len(self._free)", "return sum(self._owners)",
     "counts a shared block once for each owner"),
]  # fmt: skip

LAW = [
    ("one_tensor", _TOTAL, _TOTAL.replace("return 2 *", "return"), "counts keys and forgets the values"),
    ("batch_ignored", _TOTAL, _TOTAL.replace(" * batch", ""), "ignores the batch"),
    ("two_bytes_always", _TOTAL, _TOTAL.replace("bytes_per_element", "2"), "takes every element for two bytes"),
    ("one_layer", _TOTAL, _TOTAL.replace("n_layers * ", ""), "counts one layer"),
    ("block_size_ignored", _HELD, "held = tokens", "counts tokens where whole blocks are held"),
    ("rounds_down", _HELD, "held = tokens // size * size", "rounds down to whole blocks"),
    ("always_one_more", _HELD, "held = (tokens // size + 1) * size if size > 1 else tokens",
     "adds a block where the last one is full"),
    ("blocks_over_the_batch", _HELD + "\n", "held = -(-tokens * batch // size) * size // batch\n",
     "lets sequences share a block's rest"),
    ("by_floats", _HELD, "import math\n\n    held = math.ceil(tokens / size) * size", "divides in floating point"),
    ("accepts_zero", "or value < 1:", "or value < 0:", "accepts a size of zero"),
    ("accepts_fractions", "if not isinstance(value, int) or isinstance(value, bool) or value < 1:",
     "if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 1:", "accepts fractions"),
]  # fmt: skip

WORK = [
    ("cache_does_not_help", "projected = tokens if cached else triangle", "projected = triangle",
     "projects everything again though it is cached"),
    ("halves", "projected = tokens if cached else triangle", "projected = tokens if cached else 2 * tokens",
     "takes the saving for a half"),
    ("scores_saved_whole", "scores = triangle if cached", "scores = tokens if cached",
     "lets a new token look at one key only"),
    ("scores_not_squared", "triangle * (2 * tokens + 1) // 3", "triangle", "scores one row a step"),
    ("causal_half", "triangle * (2 * tokens + 1) // 3", "triangle * (tokens + 2) // 3",
     "counts only the scores that the mask keeps"),
    ("triangle_off_by_one", "tokens * (tokens + 1) // 2", "tokens * (tokens - 1) // 2", "begins with none"),
    ("adds_not_counted", "8 * projected", "4 * projected", "counts a multiply-add once"),
    ("values_not_mixed", "4 * scores * d_model", "2 * scores * d_model", "forgets the product with the values"),
    ("scores_as_cached", "    # Four projections of each token",
     "    scores = triangle\n    # Four projections of each token", "scores a recomputed step as a cached one"),
]  # fmt: skip

MUTANTS = [
    *(Mutant(name, CACHE, old, new, says) for name, old, new, says in CONTIGUOUS),
    *(Mutant(f"paged_{name}", PAGED, old, new, says) for name, old, new, says in BLOCKS),
    *(Mutant(f"bytes_{name}", BYTES, old, new, says) for name, old, new, says in LAW),
    *(Mutant(f"work_{name}", FLOPS, old, new, says) for name, old, new, says in WORK),
]
