"""Day 36: embeddings with labels and thumbnails, as TensorBoard's projector loads them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from touchstone import checks, proves, subject

pytestmark = subject("training.export_embeddings")


def config_of(path):
    """The configuration as the projector's plug-in reads it."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    (embedding,) = text_format.Parse(path.read_text(), ProjectorConfig()).embeddings
    return embedding


def table(path):
    assert path.read_bytes().endswith(b"\n")
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def sprite(path):
    from PIL import Image

    array = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
    return torch.from_numpy(array[..., None] if array.ndim == 2 else array.copy())


@proves("colab/day036/embedding-projector#artifact")
@checks("oracle", "arguments", "branches", "dtype", "edges", "purity")
@pytest.mark.parametrize("rows, shape", [(1, (3, 5, 3)), (4, (2, 2)), (5, (4, 3, 1)), (10, (3, 3, 4)), (17, (2, 6))])
def test_files_agree(impl, needs, draw, tmp_path, rows, shape):
    needs.peer("tensorboard")
    dtype = ["float32", "float64", "bfloat16"][rows % 3]
    vectors, pictures = draw.normal(rows, 6, dtype=dtype), draw.integers(0, 256, rows, *shape).to(torch.uint8)
    kept = vectors.clone(), pictures.clone()
    columns = {"class": [f"c{n % 3}" for n in range(rows)], "name": [f"größe {n}" for n in range(rows)]}
    for labels in (columns, {"name": columns["name"]}, columns["name"]):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "deep"
        path = impl.training.export_embeddings(folder, vectors, labels, thumbnails=pictures)
        assert path == folder / "projector_config.pbtxt"
        config = config_of(path)
        found = {name: folder / name for name in (config.tensor_path, config.metadata_path, config.sprite.image_path)}
        assert all(place.is_file() for place in found.values())
        assert len(found) == 3
        assert config.tensor_name

        numbers = table(folder / config.tensor_path)
        assert torch.equal(torch.tensor([[float(x) for x in row] for row in numbers]).double(), vectors.double()) or (
            dtype == "float64"
            and torch.equal(torch.tensor([[float(x) for x in row] for row in numbers], dtype=torch.float64), vectors)
        )
        cells = table(folder / config.metadata_path)
        if labels is columns:
            assert cells.pop(0) == ["class", "name"], "a header from two columns on"
            assert cells == [list(row) for row in zip(*columns.values(), strict=True)]
        else:
            assert cells == [[name] for name in columns["name"]], "and none over one"
        assert len(cells) == len(numbers) == rows

        height, width = shape[:2]
        assert list(config.sprite.single_image_dim) == [width, height]
        sheet, side = sprite(folder / config.sprite.image_path), math.isqrt(rows - 1) + 1
        assert sheet.shape[:2] == (side * height, side * width)
        for n in range(side * side):
            top, left = n // side * height, n % side * width
            tile = sheet[top : top + height, left : left + width]
            assert torch.equal(tile, pictures[n].view(tile.shape) if n < rows else torch.zeros_like(tile))
    assert torch.equal(vectors, kept[0])
    assert torch.equal(pictures, kept[1])


@proves("colab/day036/embedding-projector#artifact")
@checks("branches")
def test_without_thumbnails_no_sprite_is_named(impl, needs, draw, tmp_path):
    needs.peer("tensorboard")
    path = impl.training.export_embeddings(tmp_path, draw.normal(3, 2).requires_grad_(), ["a", "b", "c"])
    assert not config_of(path).HasField("sprite")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["metadata.tsv", "projector_config.pbtxt", "vectors.tsv"]


@proves("colab/day036/embedding-projector#robustness")
@checks("edges", "magnitude")
def test_labels_keep_their_cells(impl, draw, tmp_path):
    strange = ["a\tb", "a\nb", "a\r\nb", "a\\tb", "\\", "tab\t", "<b>", '"quoted']
    back = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}

    def unescaped(text):
        out, at = "", 0
        while at < len(text):
            size = 2 if text[at] == "\\" else 1
            out += back[text[at : at + 2]] if size == 2 else text[at]
            at += size
        return out

    vectors = draw.normal(len(strange), 2) * 1e-30
    impl.training.export_embeddings(tmp_path, vectors, {"x\ty": strange, "z": strange})
    lines = (tmp_path / "metadata.tsv").read_bytes().decode()
    assert "\r" not in lines
    header, *cells = table(tmp_path / "metadata.tsv")
    assert [unescaped(cell) for cell in header] == ["x\ty", "z"]
    assert [[unescaped(cell) for cell in row] for row in cells] == [[one, one] for one in strange]
    found = torch.tensor([[float(x) for x in row] for row in table(tmp_path / "vectors.tsv")], dtype=torch.float64)
    assert torch.equal(found, vectors)


@proves("colab/day036/embedding-projector#robustness")
@checks("edges", "dtype")
def test_bad_input_is_refused_and_nothing_written(impl, draw, tmp_path):
    vectors, pictures = draw.normal(3, 2), torch.zeros(3, 4, 4, dtype=torch.uint8)
    call = impl.training.export_embeddings
    folder = tmp_path / "out"
    for labels in (["a", "b"], {"x": ["a"] * 3, "y": ["b"] * 4}, {}, "abc"):
        with pytest.raises(ValueError, match="labels"):
            call(folder, vectors, labels)
    with pytest.raises(ValueError, match=r"2\b.*3\b|3\b.*2\b"):
        call(folder, vectors, ["a", "b"])
    for wrong in (pictures[:2], torch.zeros(3, 4, dtype=torch.uint8), torch.zeros(3, 4, 4, 2, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="thumbnails"):
            call(folder, vectors, ["a"] * 3, thumbnails=wrong)
    with pytest.raises(TypeError, match="float32"):
        call(folder, vectors, ["a"] * 3, thumbnails=pictures.float())
    for wrong in (vectors[0], torch.ones(3, 2, dtype=torch.int64), vectors[:0], vectors * math.nan, vectors / 0):
        with pytest.raises(ValueError, match="vectors"):
            call(folder, wrong, ["a"] * len(wrong))
    assert not folder.exists()
