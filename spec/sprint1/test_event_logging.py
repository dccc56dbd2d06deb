"""Day 36: event files that TensorBoard reads, and TensorBoard's own read here, frame by frame."""

from __future__ import annotations

import math
import struct
import subprocess
import zlib

import numpy as np
import pytest
import torch

from spec.processes import launch
from touchstone import checks, proves, subject

WRITER = "training.TensorBoardWriter"
READER = "training.TensorBoardReader"

pytestmark = subject(WRITER, READER)

#: Logs a scalar and an image under ever higher steps, saying each when the writer has returned.
ENDLESS = """
import itertools, sys, torch
from touchstone import load
writer = load("training.TensorBoardWriter", sys.argv[1])(sys.argv[2])
for step in itertools.count():
    writer.scalar("loss", 1 / (step + 1), step)
    writer.image("sample", torch.full((40, 40, 3), step % 256, dtype=torch.uint8), step)
    print(step, flush=True)
"""


def accumulator(folder):
    """What tensorboard makes of a folder, everything kept."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def theirs(folder, tag):
    return [(event.step, event.value) for event in accumulator(folder).Scalars(tag)]


def pixels_of(data):
    """PNG by Pillow: (height, width, channels)."""
    import io

    from PIL import Image

    array = np.asarray(Image.open(io.BytesIO(data)))
    return array[..., None] if array.ndim == 2 else array


def crc32c(data):
    """Bit by bit, by Castagnoli's polynomial; 0xE3069283 for the digits 1 to 9."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def frames(data):
    """The messages of a file whose every checksum is right."""
    found, at = [], 0
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        assert crc == masked(data[at : at + 8]), "the length's checksum"
        message = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(message), "the message's checksum"
        found.append(message)
        at += 16 + length
    return found


def random_images(draw):
    """A shape of each kind, one pixel and one row among them."""
    shapes = [(5, 7, 3), (1, 1, 1), (1, 9, 4), (6, 2), (28, 28)]
    return [draw.integers(0, 256, *shape).to(torch.uint8) for shape in shapes]


@proves("colab/day036/event-logging#parity")
@checks("oracle", "arguments", "dtype", "purity", "resources")
@subject(WRITER)
def test_tensorboard_reads_what_is_written(impl, needs, draw, tmp_path):
    needs.peer("tensorboard")
    losses, images = draw.normal(20, scale=1e3).tolist(), random_images(draw)
    kept = [image.clone() for image in images]
    with impl.training.TensorBoardWriter(tmp_path) as writer:
        for step, loss in enumerate(losses):
            writer.scalar("train/loss", loss, 3 * step)
            writer.scalar("größe", torch.tensor(-loss, requires_grad=True), step * 2**35)
        for step, image in enumerate(images):
            writer.image("samples", image if step % 2 else image.numpy(), step + 300)
        writer.flush()
    assert all(torch.equal(a, b) for a, b in zip(images, kept, strict=True))
    found = accumulator(tmp_path)
    assert found.Tags()["scalars"] == ["train/loss", "größe"]
    assert theirs(tmp_path, "train/loss") == [(3 * n, float(np.float32(loss))) for n, loss in enumerate(losses)]
    assert theirs(tmp_path, "größe") == [(n * 2**35, float(np.float32(-loss))) for n, loss in enumerate(losses)]
    for event, image, step in zip(found.Images("samples"), images, range(300, 400), strict=False):
        assert event.step == step
        assert (event.height, event.width) == tuple(image.shape[:2])
        assert np.array_equal(pixels_of(event.encoded_image_string), image.reshape(*image.shape[:2], -1).numpy())
    assert len(found.Images("samples")) == len(images)
    events = [event.wall_time for event in found.Scalars("train/loss")]
    assert events == sorted(events)
    assert 1.7e9 < events[0] < 4e9, "seconds since 1970"
    assert found.file_version == 2.0


@proves("colab/day036/event-logging#parity")
@checks("oracle", "edges")
@subject(WRITER)
def test_record_checksums(impl, draw, tmp_path):
    assert crc32c(b"123456789") == 0xE3069283
    with impl.training.TensorBoardWriter(tmp_path) as writer:
        for size in (1, 2, 30, 200):  # messages of less and of more than 127 bytes
            writer.image("image", draw.integers(0, 256, size, 1).to(torch.uint8), size)
            writer.scalar("x" * size, 1.0, 1)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    messages = frames(path.read_bytes())
    assert len(messages) == 9
    assert b"brain.Event:2" in messages[0]


@proves("colab/day036/event-logging#parity")
@checks("oracle", "branches", "dtype")
@subject(READER)
def test_what_tensorboard_writes_is_read(impl, needs, peers, draw, tmp_path):
    """By its own writer as plain values and as tensors, the newer form; and images as its users encode them."""
    needs.peer("tensorboard")
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from torch.utils.tensorboard import SummaryWriter

    losses, images = draw.normal(12).tolist(), random_images(draw)
    with peers.tensorboard.training.TensorBoardWriter(tmp_path) as writer:
        for step, loss in enumerate(losses):
            writer.scalar("loss", loss, 5 * step)
        writer.scalar("far", 0.25, 2**45 + 77)
        for step, image in enumerate(images):
            writer.image("samples", image, step)
    reader = impl.training.TensorBoardReader(tmp_path)
    assert reader.tags() == {"scalars": ["loss", "far"], "images": ["samples"]}
    assert reader.scalars("far") == [(2**45 + 77, 0.25)]
    assert not reader.torn
    assert reader.scalars("loss") == [(5 * n, float(np.float32(loss))) for n, loss in enumerate(losses)]
    for (step, found), image, n in zip(reader.images("samples"), images, range(9), strict=False):
        assert step == n
        assert found.dtype == torch.uint8
        assert torch.equal(found, image.reshape(*image.shape[:2], -1))

    folder = tmp_path / "tensors"
    smooth = torch.linspace(0, 255, 60 * 40 * 3).view(60, 40, 3).to(torch.uint8)
    noisy = smooth // 2 + draw.integers(0, 40, 60, 40, 3).to(torch.uint8)
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("loss", 0.125, 7, new_style=True)
        writer.add_scalar("double", 0.5, 8, double_precision=True, new_style=True)
        writer.add_image("picture", noisy, 9, dataformats="HWC")
        writer.add_text("notes", "not a scalar", 1)
        writer.add_histogram("weights", torch.randn(10), 1)
        packed = TensorProto(dtype=1, tensor_content=struct.pack("<f", 2.5))
        strings = TensorProto(dtype=7, string_val=[b"40", b"60", png(smooth)])
        values = [Summary.Value(tag="packed", tensor=packed), Summary.Value(tag="newer", tensor=strings)]
        writer._get_file_writer().add_summary(Summary(value=values), 4)
    reader = impl.training.TensorBoardReader(folder)
    assert [reader.scalars(tag) for tag in ("loss", "double", "packed")] == [[(7, 0.125)], [(8, 0.5)], [(4, 2.5)]]
    assert set(reader.tags()["images"]) == {"picture", "newer"}
    for tag, step, image in (("picture", 9, noisy), ("newer", 4, smooth)):
        ((at, found),) = reader.images(tag)
        assert at == step
        assert torch.equal(found, image)


def filtered_png(image, kinds):
    """PNG by its specification, row y predicted by filter kinds[y]: none, left, above, their mean, Paeth's."""
    height, width, channels = image.shape
    old = np.zeros((height + 1, (width + 1) * channels), np.int64)
    old[1:, channels:] = image.reshape(height, -1).numpy()
    body = b""
    for kind, row, above in zip(kinds, old[1:], old, strict=False):
        a, x, b, c = row[:-channels], row[channels:], above[channels:], above[:-channels]
        p = a + b - c
        nearest = np.stack([abs(p - a), abs(p - b), abs(p - c)]).argmin(axis=0)
        guess = [0 * x, a, b, (a + b) // 2, np.choose(nearest, [a, b, c])][kind]
        body += bytes([kind]) + ((x - guess) & 255).astype(np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    half = zlib.compress(body)
    chunks = ((b"IHDR", header), (b"tEXt", b"a\0b"), (b"IDAT", half[:9]), (b"IDAT", half[9:]), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@proves("colab/day036/event-logging#parity")
@checks("branches", "edges")
@subject(READER)
def test_every_row_filter_of_png(impl, needs, draw, tmp_path):
    needs.peer("tensorboard")
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    images = [draw.integers(0, 256, 10, 7, channels).to(torch.uint8) for channels in (1, 2, 3, 4)]
    kinds = [3, 4, 1, 0, 2, 4, 3, 2, 1, 4]
    broken = filtered_png(images[2], kinds)
    with SummaryWriter(str(tmp_path)) as writer:
        coded = [filtered_png(image, kinds) for image in images]
        bad = [b"GIF89a", broken[:-30], broken.replace(b"IDAT", b"IDAX"), broken[:60] + b"?" + broken[61:]]
        for step, data in enumerate([*coded, *bad]):
            value = Summary.Value(tag=f"{step}", image=Summary.Image(encoded_image_string=data))
            writer._get_file_writer().add_summary(Summary(value=[value]), step)
    reader = impl.training.TensorBoardReader(tmp_path)
    for step, image in enumerate(images):
        assert np.array_equal(pixels_of(coded[step]), image.numpy()), "Pillow reads it so"
        assert torch.equal(reader.images(f"{step}")[0][1], image)
    for step in range(4, 8):
        with pytest.raises(ValueError, match="image"):
            reader.images(f"{step}")


def png(image):
    import io

    from PIL import Image

    kept = io.BytesIO()
    Image.fromarray(image.numpy()).save(kept, "PNG", optimize=True)
    return kept.getvalue()


@proves("colab/day036/event-logging#parity")
@checks("edges", "magnitude")
@subject(WRITER, READER)
@pytest.mark.process
def test_a_changed_bit_is_found(impl, draw, tmp_path):
    with impl.training.TensorBoardWriter(tmp_path / "good") as writer:
        for step in range(3):
            writer.scalar("loss", step + 0.5, step)
    (path,) = (tmp_path / "good").iterdir()
    data = path.read_bytes()
    bad = tmp_path / path.name
    for at in range(len(data)):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(draw.integers(0, 8, 1))]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"events\.out\.tfevents.*byte \d"):
            impl.training.TensorBoardReader(bad)


@proves("colab/day036/event-logging#artifact")
@checks("oracle", "state")
@subject(
    WRITER, READER, "training.train", "training.TrainConfig", "models.GPT", "models.GPTConfig", "data.TokenDataset"
)
@pytest.mark.train
def test_one_scalar_an_epoch_and_a_sample(impl, draw, tmp_path):
    """A real run: its log's mean loss of each epoch of eight updates, and the embedding as a grey image."""
    model = impl.models.GPT(impl.models.GPTConfig(17, 8, 1, 2, 16))
    dataset = impl.data.TokenDataset(draw.integers(0, 17, 400), 8)
    log = impl.training.train(model, dataset, impl.training.TrainConfig(steps=40, batch_size=4))
    epochs = [sum(log.loss[n : n + 8]) / 8 for n in range(0, 40, 8)]
    images = [(torch.rand(17, 16) * 255).to(torch.uint8) for _ in epochs]
    with impl.training.TensorBoardWriter(tmp_path) as writer:
        for epoch, (loss, image) in enumerate(zip(epochs, images, strict=True), 1):
            writer.scalar("loss", loss, epoch)
            writer.image("sample", image, epoch)
    reader = impl.training.TensorBoardReader(tmp_path)
    assert reader.scalars("loss") == [(n, float(np.float32(loss))) for n, loss in enumerate(epochs, 1)]
    steps = [step for step, _ in reader.scalars("loss")]
    assert steps == sorted(set(steps)) == [1, 2, 3, 4, 5]
    assert [step for step, _ in reader.images("sample")] == steps
    for (_, found), image in zip(reader.images("sample"), images, strict=True):
        assert torch.equal(found[..., 0], image)


@proves("colab/day036/event-logging#artifact")
@checks("edges", "branches")
@subject(WRITER)
def test_steps_increase(impl, tmp_path):
    image = torch.zeros(2, 2, dtype=torch.uint8)
    with impl.training.TensorBoardWriter(tmp_path / "a") as writer:
        writer.scalar("loss", 1.0, 4)
        writer.scalar("other", 1.0, 2)  # each tag has steps of its own
        for wrong in (4, 3, 0):
            with pytest.raises(ValueError, match=rf"loss.*{wrong}"):
                writer.scalar("loss", 1.0, wrong)
        with pytest.raises(ValueError, match=r"loss.*4"):
            writer.image("loss", image, 4)
        with pytest.raises(ValueError, match=r"fresh.*-1"):
            writer.scalar("fresh", 1.0, -1)
        with pytest.raises(ValueError, match="tag"):
            writer.scalar("", 1.0, 5)
        writer.scalar("loss", 1.0, 5)
    with pytest.raises(ValueError, match="-2"):
        impl.training.TensorBoardWriter(tmp_path / "b", purge_step=-2)
    with impl.training.TensorBoardWriter(tmp_path / "b", purge_step=7) as writer:
        with pytest.raises(ValueError, match=r"loss.*6"):
            writer.scalar("loss", 1.0, 6)
        writer.scalar("loss", 1.0, 7)


@proves("colab/day036/event-logging#artifact")
@checks("dtype", "edges")
@subject(WRITER)
def test_what_is_no_image_is_refused(impl, draw, tmp_path):
    with impl.training.TensorBoardWriter(tmp_path) as writer:
        for image, error, word in (
            (torch.rand(4, 4), TypeError, "float32"),
            (torch.ones(4, 4, dtype=torch.int64), TypeError, "int64"),
            (torch.zeros(3, 4, 5, dtype=torch.uint8), ValueError, "3, 4, 5"),
            (torch.zeros(4, dtype=torch.uint8), ValueError, "4,"),
            (torch.zeros(0, 4, 3, dtype=torch.uint8), ValueError, "0, 4, 3"),
        ):
            with pytest.raises(error, match=word):
                writer.image("image", image, 1)


@proves("colab/day036/event-logging#robustness")
@checks("edges", "branches")
def test_a_file_cut_anywhere_reads_to_its_last_whole_record(impl, needs, tmp_path):
    needs.peer("tensorboard")
    with impl.training.TensorBoardWriter(tmp_path / "whole") as writer:
        for step in range(3):
            writer.scalar("loss", step, step)
    (path,) = (tmp_path / "whole").iterdir()
    data = path.read_bytes()
    ends = [0]
    for message in frames(data):
        ends.append(ends[-1] + 16 + len(message))
    for cut in range(1, len(data)):
        (tmp_path / f"{cut}").mkdir()
        (tmp_path / f"{cut}" / path.name).write_bytes(data[:cut])
        whole = max(0, sum(end <= cut for end in ends[1:]) - 1)
        reader = impl.training.TensorBoardReader(tmp_path / f"{cut}")
        assert reader.torn == (cut not in ends)
        assert (reader.scalars("loss") if whole else []) == [(n, float(n)) for n in range(whole)]
        if cut % 9 == 0 and whole:
            assert theirs(tmp_path / f"{cut}", "loss") == reader.scalars("loss")


@proves("colab/day036/event-logging#robustness")
@checks("state")
@pytest.mark.process
def test_a_killed_run_is_readable_and_resumed(impl, needs, draw, tmp_path):
    needs.peer("tensorboard")
    with impl.training.TensorBoardWriter(tmp_path / "stub") as writer:  # unwritten: a todo here, not a crash there
        writer.scalar("loss", 1.0, 0)
    process = launch(ENDLESS, impl.label, str(tmp_path / "run"))
    for _ in range(int(draw.integers(10, 300, 1))):
        process.stdout.readline()
    process.kill()
    try:
        said = process.communicate(timeout=60)[0].split("\n")[:-1]
    except subprocess.TimeoutExpired as error:
        raise AssertionError("a killed process goes on") from error
    reader = impl.training.TensorBoardReader(tmp_path / "run")
    scalars, images = reader.scalars("loss"), reader.images("sample")
    assert scalars == [(n, float(np.float32(1 / (n + 1)))) for n in range(len(scalars))]
    assert len(scalars) - 1 <= len(images) <= len(scalars)
    assert len(images) > (int(said[-1]) if said else 0), "what was acknowledged is in the file"
    assert all(int(found[3, 4, 1]) == step % 256 for step, found in images)
    assert theirs(tmp_path / "run", "loss") == scalars

    begin = int(draw.integers(1, len(images), 1))
    with impl.training.TensorBoardWriter(tmp_path / "run", purge_step=begin) as writer:
        for step in range(begin, begin + 3):
            writer.scalar("loss", -1.0, step)
    reader = impl.training.TensorBoardReader(tmp_path / "run")
    assert reader.scalars("loss") == [*scalars[:begin], *((n, -1.0) for n in range(begin, begin + 3))]
    assert [step for step, _ in reader.images("sample")] == list(range(begin))
    assert theirs(tmp_path / "run", "loss") == reader.scalars("loss")
    assert [event.step for event in accumulator(tmp_path / "run").Images("sample")] == list(range(begin))


@proves("colab/day036/event-logging#robustness")
@checks("state", "invariance", "branches")
def test_resuming_does_not_duplicate_steps(impl, needs, peers, tmp_path):
    """Four writers within a second, each resumed from before the last one's end; and tensorboard's own resumption."""
    needs.peer("tensorboard")
    expected = {}
    for attempt, begin in enumerate([0, 5, 3, 0]):
        options = {} if attempt == 0 else {"purge_step": begin}
        with impl.training.TensorBoardWriter(tmp_path / "ours", **options) as writer:
            for step in range(begin, begin + 6):
                writer.scalar("loss", attempt + step / 64, step)
        expected = {n: value for n, value in expected.items() if n < begin}
        expected |= {n: attempt + n / 64 for n in range(begin, begin + 6)}
        reader = impl.training.TensorBoardReader(tmp_path / "ours")
        assert reader.scalars("loss") == sorted(expected.items())
        assert theirs(tmp_path / "ours", "loss") == sorted(expected.items())
    with peers.tensorboard.training.TensorBoardWriter(tmp_path / "theirs") as writer:
        for step in range(5):
            writer.scalar("loss", 1.0, step)
    with peers.tensorboard.training.TensorBoardWriter(tmp_path / "theirs", purge_step=3) as writer:
        writer.scalar("loss", 2.0, 3)
    reader = impl.training.TensorBoardReader(tmp_path / "theirs")
    assert reader.scalars("loss") == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]


@proves("colab/day036/event-logging#robustness")
@checks("magnitude", "edges")
def test_nan_and_infinity_survive(impl, needs, tmp_path):
    needs.peer("tensorboard")
    given = [math.nan, math.inf, -math.inf, 1e39, -0.0, 1e-45]
    with impl.training.TensorBoardWriter(tmp_path) as writer:
        for step, value in enumerate(given):
            writer.scalar("loss", value, step)
    for found in (impl.training.TensorBoardReader(tmp_path).scalars("loss"), theirs(tmp_path, "loss")):
        values = [value for _, value in found]
        assert math.isnan(values[0])
        assert values[1:4] == [math.inf, -math.inf, math.inf]
        assert math.copysign(1, values[4]) == -1
        assert 0 < values[5] < 2e-45


@proves("colab/day036/event-logging#robustness")
@checks("edges")
@subject(WRITER, READER)
def test_what_cannot_be_read_is_named(impl, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        impl.training.TensorBoardReader(tmp_path / "nothing")
    with impl.training.TensorBoardWriter(tmp_path / "run") as writer:
        writer.scalar("loss", 1.0, 0)
        writer.image("sample", torch.zeros(3, 3, dtype=torch.uint8), 0)
    reader = impl.training.TensorBoardReader(tmp_path / "run")
    with pytest.raises(KeyError, match=r"los.*loss"):
        reader.scalars("los")
    with pytest.raises(KeyError, match="sample"):
        reader.images("loss")
    path = tmp_path / "events.out.tfevents.1.made.up"
    for message in (b"\x2a\x05ab", b"\x0b", b"\x10" + b"\xff" * 11, b"\x2a\x04\x0a\x02\x0a\x09", b"\x10"):
        length = struct.pack("<Q", len(message))
        path.write_bytes(length + struct.pack("<I", masked(length)) + message + struct.pack("<I", masked(message)))
        with pytest.raises(ValueError, match=r"made\.up.*byte 0"):
            impl.training.TensorBoardReader(path)
