"""Checkpoints: a resumed run is the unbroken one, a file is whole or not there, and nothing in it is code."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from spec.sprint1.training_cases import T, V, bigram, config, dropping
from touchstone import checks, proves, subject

pytestmark = subject("training.train", "training.TrainConfig", "data.TokenDataset")


@pytest.fixture
def corpus(draw):
    return draw.integers(0, V, 200)


@proves("sprints/day007/baseline-run#property")
@checks("state")
@pytest.mark.parametrize("half", [1, 5, 8])
@pytest.mark.process
def test_resuming_equals_never_having_stopped(half, impl, corpus, tmp_path):
    dataset, held_out = impl.data.TokenDataset(corpus[:150], T), impl.data.TokenDataset(corpus[150:], T)
    settings = config(
        impl,
        steps=12,
        learning_rate=0.05,
        warmup=7,
        weight_decay=0.3,
        grad_clip=0.5,
        checkpoint_every=1,
        evaluate_every=3,
    )
    straight = dropping()
    whole = impl.training.train(straight, dataset, settings, validation=held_out, checkpoints=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08}.pt" for step in range(1, 13)]

    resumed = dropping(seed=5)  # other weights, other random state: all of it must come from the file
    torch.manual_seed(1234)
    lines = []
    log = impl.training.train(
        resumed, dataset, settings, validation=held_out, resume=tmp_path / f"step-{half:08}.pt", progress=lines.append
    )
    assert dataclasses.asdict(log) == dataclasses.asdict(whole)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@checks("branches", "state")
def test_when_checkpoints_are_written(impl, corpus, draw, tmp_path):
    dataset = impl.data.TokenDataset(corpus, T)
    for every, steps in ((0, [7]), (3, [3, 6, 7])):
        folder = tmp_path / str(every)
        impl.training.train(bigram(draw), dataset, config(impl, steps=7, checkpoint_every=every), checkpoints=folder)
        assert sorted(path.name for path in folder.iterdir()) == [f"step-{step:08}.pt" for step in steps]


@checks("edges", "state")
def test_another_run_is_not_resumed(impl, corpus, draw, tmp_path):
    dataset = impl.data.TokenDataset(corpus, T)
    impl.training.train(bigram(draw), dataset, config(impl), checkpoints=tmp_path)
    (path,) = tmp_path.iterdir()
    for name, value in (("learning_rate", 0.5), ("seed", 3), ("batch_size", 2), ("betas", (0.1, 0.2))):
        with pytest.raises(ValueError, match=name):
            impl.training.train(bigram(draw), dataset, config(impl, **{name: value}), resume=path)
    log = impl.training.train(bigram(draw), dataset, config(impl, workers=1), resume=path)  # the same run all the same
    assert log.step == [1, 2, 3, 4, 5, 6]
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt"):
        impl.training.train(bigram(draw), dataset, config(impl), resume=tmp_path / "other.pt")


@subject("training.save_checkpoint", "training.load_checkpoint")
@checks("state", "edges")
def test_a_checkpoint_takes_its_name_in_one_step_when_it_is_on_the_disk(impl, tmp_path, monkeypatch, draw):
    """Until then the old file stands, whole; the new one lies beside it: a rename to another disk would be a copy."""
    path = tmp_path / "step.pt"
    impl.training.save_checkpoint(path, {"a": 1})
    old, events = path.read_bytes(), []

    def flushing(flush):
        def recorded(file):
            flush(file)
            status = os.fstat(file)
            events.append(("flushed", status.st_ino, status.st_size))

        return recorded

    def naming(rename):
        def recorded(source, target, **options):
            if Path(target) == path:
                status = os.stat(source)
                events.append(("named", status.st_ino, status.st_size))
                assert Path(source).parent == tmp_path
                assert path.read_bytes() == old
            return rename(source, target, **options)

        return recorded

    for name in ("fsync", "fdatasync"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, flushing(getattr(os, name)))
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, naming(getattr(os, name)))
    impl.training.save_checkpoint(path, {"a": 2, "w": draw.normal(1000)})
    monkeypatch.undo()
    assert impl.training.load_checkpoint(path)["a"] == 2
    (named,) = (event[1:] for event in events if event[0] == "named")
    assert ("flushed", *named) in events[: events.index(("named", *named))], "what took the name was not on the disk"
    assert [file.name for file in tmp_path.iterdir()] == ["step.pt"]


class Payload:
    """What a hostile checkpoint would hold: unpickling it would call open()."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@subject("training.save_checkpoint", "training.load_checkpoint")
@checks("state", "edges", "oracle", "dtype")
def test_checkpoints_are_whole_and_hold_no_code(impl, tmp_path, draw):
    state = {
        "a": draw.normal(3, 2),
        "n": 7,
        "x": 0.1,
        "s": "text",
        "t": (1, [2.5, None, True], {"k": draw.integers(0, 9, 2)}),
    }
    tensors = {
        name: draw.uniform(0, 9, 4).to(getattr(torch, name))
        for name in ("float32", "bfloat16", "float16", "uint8", "bool")
    }
    state |= tensors
    path = tmp_path / "deep" / "step.pt"
    impl.training.save_checkpoint(path, state)
    found = impl.training.load_checkpoint(str(path))
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert torch.equal(found["a"], state["a"])
    assert torch.equal(found["t"][2]["k"], state["t"][2]["k"])
    assert (found["n"], found["x"], found["s"], found["t"][:2]) == (7, 0.1, "text", (1, [2.5, None, True]))

    with pytest.raises((AttributeError, TypeError, ValueError, RuntimeError)):
        impl.training.save_checkpoint(path, {"a": lambda: None})  # fails on the way: the old file must survive
    assert torch.equal(impl.training.load_checkpoint(path)["a"], state["a"])
    assert [file.name for file in path.parent.iterdir()] == ["step.pt"], "nothing half-written is left behind"

    whole = path.read_bytes()
    for name, content in (("cut.pt", whole[: len(whole) // 2]), ("empty.pt", b""), ("text.pt", b"not a checkpoint")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            impl.training.load_checkpoint(tmp_path / name)
    torch.save({"a": Payload(tmp_path / "ran")}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="hostile"):
        impl.training.load_checkpoint(tmp_path / "hostile.pt")
    assert not (tmp_path / "ran").exists(), "loading a checkpoint ran code from it"
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list"):
        impl.training.load_checkpoint(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        impl.training.load_checkpoint(tmp_path / "missing.pt")
