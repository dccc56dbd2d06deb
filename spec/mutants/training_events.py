"""Mistakes that people make in event files and in what the projector loads."""

from __future__ import annotations

from touchstone import Mutant

WRITER, READER, EXPORT = "training.TensorBoardWriter", "training.TensorBoardReader", "training.export_embeddings"
_FRAME = "length + _masked_crc(length) + message + _masked_crc(message)"
_START_EVENT = "        if purge_step is not None:\n            self._write(_field(7, _field(1, _START)), purge_step)\n"
_STEP = "step < least"
_DROP = "kept[:] = [one for one in kept if one[0] < step]"


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


MUTANTS = [
    *_of(
        WRITER,
        ("crc_unmasked", "writes the checksum as it is", "((crc >> 15 | crc << 17) + 0xA282EAD8)", "(crc)"),
        ("crc32_of_zip", "takes zip's polynomial, not Castagnoli's", "0x82F63B78", "0xEDB88320"),
        ("crc_not_inverted", "forgets the last inversion", "    crc ^= 0xFFFFFFFF\n", ""),
        (
            "crc_of_all",
            "takes the message's checksum over its length too",
            _FRAME,
            _FRAME.replace("crc(message)", "crc(length + message)"),
        ),
        (
            "big_endian_length",
            "writes the length with its high byte first",
            'struct.pack("<Q", len(message))',
            'struct.pack(">Q", len(message))',
        ),
        (
            "no_version",
            "leaves out the first event, the version",
            '        self._write(_field(3, b"brain.Event:2"), 0)\n',
            "",
        ),
        (
            "varint_of_a_byte",
            "writes numbers above 127 in one byte",
            "    while value > 127:\n",
            "    while value > 10**9:\n",
        ),
        ("step_of_32_bits", "keeps 32 bits of a step", "+ _field(2, step) +", "+ _field(2, step & 0xFFFFFFFF) +"),
        ("step_forgotten", "writes no steps", "+ _field(2, step) +", "+"),
        (
            "relative_time",
            "gives seconds since the machine started",
            'struct.pack("<d", time.time())',
            'struct.pack("<d", time.monotonic())',
        ),
        ("no_start_event", "resumes without saying so: every step twice", _START_EVENT, ""),
        (
            "start_one_later",
            "keeps the step that is written again",
            "_START)), purge_step)",
            "_START)), purge_step + 1)",
        ),
        ("start_at_zero", "drops the whole run when it resumes", "_START)), purge_step)", "_START)), 0)"),
        (
            "names_of_one_second",
            "gives two writers of one second names in any order",
            "second = max([int(time.time()), *(found + 1 for found in times)])",
            "second = int(time.time()) - len(times)",
        ),
        ("same_step_twice", "takes a step twice", "self._last[tag] + 1 if", "self._last[tag] if"),
        (
            "steps_of_all_tags",
            "wants steps to increase over all tags together",
            "self._last[tag] = step",
            "self._last = dict.fromkeys([*self._last, tag, 'other', 'loss'], step)",
        ),
        ("any_step", "takes any step", "        if step < least:\n", "        if False:\n"),
        (
            "steps_before_the_purge",
            "takes steps from before the one it resumes at",
            "self._first = 0 if purge_step is None else purge_step",
            "self._first = 0",
        ),
        (
            "nan_as_zero",
            "writes NaN as 0",
            "single = np.float32(float(value))",
            "single = np.nan_to_num(np.float32(float(value)), posinf=np.inf, neginf=-np.inf)",
        ),
        (
            "clamped",
            "writes infinity as the largest float",
            "single = np.float32(float(value))",
            "single = np.clip(np.float32(float(value)), -3.4e38, 3.4e38)",
        ),
        (
            "double_precision",
            "writes eight bytes where four are promised",
            "_key(2, 5) + single)",
            "_key(2, 1) + np.float64(float(value)).tobytes())",
        ),
        (
            "width_first",
            "swaps height and width",
            "_field(1, height) + _field(2, width)",
            "_field(1, width) + _field(2, height)",
        ),
        (
            "channels_first",
            "takes images for (channels, height, width)",
            "        height, width, channels = array.shape\n",
            "        array = np.ascontiguousarray(array.transpose(1, 0, 2))\n        height, width, channels = "
            "array.shape\n",
        ),
        (
            "floats_as_bytes",
            "casts floats in [0, 1] to bytes: black",
            '        if array.dtype != np.uint8:\n            raise TypeError(f"pixels must be uint8, got '
            '{array.dtype}")\n',
            "        array = array.astype(np.uint8)\n",
        ),
        (
            "buffered",
            "keeps events in memory until it is closed",
            "        os.write(self._descriptor, " + _FRAME + ")\n",
            "        self._late = getattr(self, '_late', b'') + " + _FRAME + "\n        if len(self._late) > "
            "4096:\n            os.write(self._descriptor, self._late)\n            self._late = b''\n",
        ),
        ("empty_tag", "takes an empty tag", "        if not tag:\n", "        if tag is None:\n"),
    ),
    *_of(
        READER,
        (
            "crc_of_length_ignored",
            "does not check the length's checksum",
            "if data[at + 8 : at + 12] != _masked_crc(length):",
            "if False:",
        ),
        (
            "crc_ignored",
            "does not check the message's checksum",
            "if data[end - 4 : end] != _masked_crc(message):",
            "if False:",
        ),
        (
            "ends_at_damage",
            "ends at a damaged record without a word",
            "            if data[end - 4 : end] != _masked_crc(message):\n",
            "            if data[end - 4 : end] != _masked_crc(message):\n                break\n            if "
            "False:\n",
        ),
        ("torn_unsaid", "does not say that a record was torn", "self.torn |= at < len(data)", "pass"),
        (
            "torn_raises",
            "cannot read a file whose last record is torn",
            "            if end > len(data):\n                break\n",
            "            if end > len(data):\n                raise ValueError(path)\n",
        ),
        ("start_ignored", "gives steps of a resumed run twice", _DROP, "kept[:] = list(kept)"),
        ("start_drops_too_little", "keeps the step at which a run resumed", _DROP, _DROP.replace("<", "<=")),
        (
            "start_drops_scalars_only",
            "drops scalars only",
            "dict[str, list[Any]], ...] = (self._scalars, self._images)",
            "dict[str, list[Any]], ...] = (self._scalars,)",
        ),
        ("newest_file_only", "reads the newest file only", "else _files(folder)", "else _files(folder)[-1:]"),
        ("any_order", "reads files from the newest to the oldest", "else _files(folder)", "else _files(folder)[::-1]"),
        ("plain_values_only", "knows no tensors", "        elif 8 in value:\n", "        elif 99 in value:\n"),
        (
            "content_only",
            "knows only one of a tensor's two forms",
            'of.get(4) or of.get(5 if kind == _FLOAT else 6, b"")',
            'of.get(5 if kind == _FLOAT else 6, b"")',
        ),
        (
            "grey_lost",
            "gives grey images without a channel",
            "torch.from_numpy(decode_png(data))",
            "torch.from_numpy(decode_png(data)).squeeze(-1)",
        ),
        (
            "step_of_one_byte",
            "reads the first byte of a number only",
            "        value |= (byte & 127) << shift\n        if byte < 128:\n",
            "        value |= (byte & 127) << shift\n        if byte < 128 or shift >= 21:\n",
        ),
        (
            "text_as_image",
            "takes texts for images",
            "if len(strings) > 2 and strings[0].isdigit() and strings[1].isdigit():",
            "if strings := [b'', b'', strings[-1]]:",
        ),
        (
            "unknown_tag_empty",
            "gives nothing for a tag that is not there",
            "        if tag not in self._scalars:\n            raise",
            "        if tag not in self._scalars:\n            return []\n            raise",
        ),
    ),
    *_of(
        EXPORT,
        (
            "header_over_one_column",
            "writes a header over a single column: the projector takes it for a label",
            "if len(columns) > 1:",
            "if len(columns) > 0:",
        ),
        ("no_header", "leaves out the header", "if len(columns) > 1:", "if len(columns) > 9:"),
        ("not_escaped", "lets a tab in a label make a cell", "str(cell).translate(_ESCAPES)", "str(cell)"),
        (
            "header_not_escaped",
            "lets a tab in a column's name make a column",
            "name.translate(_ESCAPES) for",
            "name for",
        ),
        ("backslash_forgotten", "does not escape the backslash: two labels look alike", '"\\\\": "\\\\\\\\", ', ""),
        ("six_digits", "keeps six digits", "map(repr, row)", "map('{:.6f}'.format, row)"),
        (
            "length_not_checked",
            "cuts the longer of labels and vectors",
            "or len(column) != rows:",
            "or len(column) < 0:",
        ),
        (
            "thumbnails_not_counted",
            "takes too few thumbnails",
            "        if len(thumbnails) != rows:\n",
            "        if len(thumbnails) > rows:\n",
        ),
        ("strip", "lays the sprite out in one row", "side = math.isqrt(rows - 1) + 1", "side = rows"),
        (
            "grid_too_small",
            "rounds the grid's side down",
            "side = math.isqrt(rows - 1) + 1",
            "side = max(1, math.isqrt(rows))\n    rows = side * side\n    pictures = pictures[:rows]",
        ),
        ("by_columns", "fills the sprite by columns", ".permute(0, 2, 1, 3, 4)", ".permute(1, 2, 0, 3, 4)"),
        (
            "tiles_transposed",
            "reshapes without permuting: pictures are sliced",
            "    sheet = grid.view(side, side, height, width, channels).permute(0, 2, 1, 3, 4)\n",
            "    sheet = grid\n",
        ),
        (
            "height_first",
            "gives a thumbnail's size as height, width",
            'single_image_dim: {width}",\n            f"    single_image_dim: {height}',
            'single_image_dim: {height}",\n            f"    single_image_dim: {width}',
        ),
        (
            "sprite_always",
            "names a sprite that is not there",
            "    if thumbnails is not None:\n        (folder",
            "    if thumbnails is None:\n        config += ['  sprite { image_path: \"sprite.png\" }']\n    if "
            "thumbnails is not None:\n        (folder",
        ),
        (
            "absolute_path",
            "names files by where they are on this machine",
            'tensor_path: "vectors.tsv"\'',
            'tensor_path: "vectors"\'',
        ),
        (
            "written_before_checked",
            "writes before it checks",
            "    if vectors.ndim != 2",
            "    Path(folder).mkdir(parents=True, exist_ok=True)\n    if vectors.ndim != 2",
        ),
        (
            "nan_taken",
            "writes vectors that are not finite",
            "    if not vectors.isfinite().all():\n",
            "    if False:\n",
        ),
    ),
]
