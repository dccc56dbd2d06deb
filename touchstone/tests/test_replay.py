from __future__ import annotations

import numpy as np
import pytest
import torch

from touchstone.judgement.calls import Call
from touchstone.judgement.replay import Case, replay_inputs, save_case

DTYPES = ["float64", "float32", "bfloat16", "float16"]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "bool"])
def test_a_case_survives_its_file(dtype, tmp_path):
    tensor = normal(4, 6).to(getattr(torch, dtype))
    gaps = tensor[::2, 1::2]
    options = {"flags": [True, None, "text", 3], "scale": 0.1, "inf": float("-inf"), "dtype": torch.bfloat16}
    call = Call((tensor, gaps, tensor[:1].expand(4, 6), tensor.T, tensor[:0]), options, {"width": 3}, {"w": tensor})
    save_case(Case("r.x", "mine,impl", call, {"result": np.arange(3.0)}, {"result": 0.5}), tmp_path / "case.npz")
    back = replay_inputs(tmp_path / "case.npz")
    assert (back.name, back.layers, back.allowed) == ("r.x", "mine,impl", {"result": 0.5})
    assert back.call.kwargs == options
    assert back.call.init == {"width": 3}
    for one, other in zip(call.tensors(), back.call.tensors(), strict=True):
        assert one[0] == other[0]
        assert one[1].dtype == other[1].dtype
        assert one[1].stride() == other[1].stride()
        assert torch.equal(one[1], other[1])


def test_files_from_outside_are_not_trusted(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(ValueError, match="is not a case"):
        replay_inputs(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", case=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        replay_inputs(tmp_path / "pickle.npz")
