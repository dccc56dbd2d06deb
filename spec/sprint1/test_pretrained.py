"""Checkpoints in the hub's format: what transformers saves loads here, and what is saved here loads there."""

from __future__ import annotations

import socket

import pytest
import torch

from spec.sprint1.llama_cases import widened
from spec.sprint1.pretrained_cases import GPT2, LLAMA, gpt2, llama, tensors
from touchstone import checks, proves, subject

LOAD = subject("models.load_pretrained")
BOTH = subject("models.load_pretrained", "models.save_pretrained")


def near(got, want, within):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= within * want.abs().max()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


# -- GPT-2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.process  # imports transformers
@LOAD
@proves("colab/day060/gpt2-model#parity", "karpathy/week11/gpt2-small#parity")
@checks("oracle", "dtype", "branches")
@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-4), ("float64", 1e-10)])
def test_gpt2_equals_transformers(dtype, within, impl, needs, draw, tmp_path):
    needs.peer("transformers")
    for changes in ({}, {"tie_word_embeddings": False, "n_head": 2}, {"resid_pdrop": 0.5, "attn_pdrop": 0.5}):
        theirs = gpt2(draw, dtype, **changes)
        folder = tmp_path / "-".join(["gpt2", *changes])
        theirs.save_pretrained(folder)
        ours = impl.models.load_pretrained(folder)
        assert not ours.training
        assert {p.dtype for p in ours.parameters()} == {getattr(torch, dtype)}
        for length in (1, 7, GPT2["n_positions"]):
            tokens = draw.integers(0, 29, 2, length)
            near(ours(tokens)[0], theirs(tokens).logits, within)
        assert torch.equal(ours.train()(tokens)[0], ours.eval()(tokens)[0]), "a loaded model drops nothing"
        assert ours.config.block_size == 16 and ours.config.tied == changes.get("tie_word_embeddings", True)


@pytest.mark.process  # imports transformers
@subject("models.load_pretrained")
@proves("colab/day060/gpt2-model#property")
@checks("invariance", "branches", "arguments")
def test_left_padding_equals_no_padding(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    theirs = gpt2(draw, "float64")
    theirs.save_pretrained(tmp_path)
    ours = impl.models.load_pretrained(tmp_path)
    tokens = draw.integers(0, 29, 3, 9)
    real = torch.arange(9) >= torch.tensor([[0], [5], [3]])
    places = (real.cumsum(-1) - 1).clamp(min=0)
    padded = ours(tokens, padding_mask=real)[0]
    explicit = ours(tokens, positions=places, padding_mask=real)[0]
    want = theirs(tokens, attention_mask=real, position_ids=places).logits
    assert padded.isfinite().all()
    for row in range(3):
        alone = ours(tokens[row : row + 1, real[row]])[0][0]
        for got in (padded, explicit, want):
            near(got[row, real[row]], alone, 1e-12)
    moved = ours(tokens, positions=torch.arange(9) + 5)[0]
    near(moved, theirs(tokens, position_ids=torch.arange(9)[None] + 5).logits, 1e-12)
    assert (moved - ours(tokens)[0]).abs().max() > 1e-2
    before = ours(tokens)[0]
    for t in range(9):
        other = tokens.clone()
        other[:, t] = (other[:, t] + 1 + draw.integers(0, 28, 3)) % 29
        assert torch.equal(ours(other)[0][:, :t], before[:, :t])
    for options, named in (
        ({"positions": torch.full((9,), 16)}, "16"),
        ({"positions": torch.arange(8)}, "positions"),
        ({"padding_mask": real[:, 1:]}, "padding_mask"),
    ):
        with pytest.raises(ValueError, match=named):
            ours(tokens, **options)
    with pytest.raises(TypeError, match="padding_mask"):
        ours(tokens, padding_mask=real.long())
    with pytest.raises(TypeError, match="positions"):
        ours(tokens, positions=torch.arange(9.0))


@pytest.mark.process
@LOAD
@proves("colab/day060/gpt2-model#robustness")
@checks("edges", "resources")
def test_the_context_of_1024_is_the_end(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    gpt2(draw, n_positions=1024, n_layer=1).save_pretrained(tmp_path)
    ours = impl.models.load_pretrained(tmp_path)
    assert ours(draw.integers(0, 29, 1, 1024))[0].shape == (1, 1024, 29)
    with pytest.raises(ValueError, match=r"(?s)(?=.*\b1025\b)(?=.*\b1024\b)"):
        ours(draw.integers(0, 29, 1, 1025))


@pytest.mark.process  # imports transformers
@BOTH
@proves("karpathy/week11/gpt2-small#parity-2", "nanochat/week07/llama-model#parity")
@checks("oracle", "state", "dtype", "purity")
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "gpt2-untied", "llama", "llama-tied"])
def test_there_and_back(family, dtype, impl, needs, draw, tmp_path):
    """Import, then export: every tensor comes home byte for byte, and transformers loads what was written."""
    needs.peer("transformers")
    import transformers

    tied = family in ("gpt2", "llama-tied")
    theirs = (gpt2 if "gpt2" in family else llama)(draw, dtype, tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = impl.models.load_pretrained(tmp_path / "theirs")
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    impl.models.save_pretrained(ours, tmp_path / "new" / "ours")
    first, second = tensors(tmp_path / "theirs"), tensors(tmp_path / "new" / "ours")
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert second[name].dtype == value.dtype and second[name].shape == value.shape, name
        assert torch.equal(second[name].view(torch.uint8), value.view(torch.uint8)), name
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name]), name

    kind = transformers.AutoModelForCausalLM
    again = kind.from_pretrained(tmp_path / "new" / "ours", dtype=getattr(torch, dtype)).eval()
    tokens = draw.integers(0, 29, 2, 5)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
        within = {"float32": 1e-4, "float64": 1e-10 if "gpt2" in family else 1e-5, "bfloat16": 0.1}[dtype]
        near(ours(tokens)[0], again(tokens).logits, within)
        if dtype == "float64":
            wide = again if "gpt2" in family else widened(again)
            text = wide.generate(tokens, max_new_tokens=8, do_sample=False)
            for _ in range(8):
                tokens = torch.cat([tokens, ours(tokens)[0][:, -1:].argmax(-1)], dim=1)
            assert torch.equal(tokens, text), "the same greedy text"


@pytest.mark.study
@pytest.mark.limit(seconds=1800)
@LOAD
@proves("karpathy/week11/gpt2-small#parity")
@checks("oracle")
def test_gpt2_small_in_full(impl, needs, draw, record, tmp_path):
    """All of it: 12 layers, 12 heads, width 768, 1,024 positions, 50,257 ids."""
    needs.peer("transformers")
    import transformers

    torch.manual_seed(draw.seed % 2**31)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1:  # the library begins with biases of 0 and gains of 1
                parameter.add_(draw.normal(*parameter.shape, scale=0.1).float())
            elif "c_" in name:
                parameter.mul_(3)
    theirs.save_pretrained(tmp_path)
    ours = impl.models.load_pretrained(tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == 124_439_808
    with torch.no_grad():
        for dtype, within in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
            ours, theirs = ours.to(dtype), theirs.to(dtype)
            for length in (1, 7, 1024):
                tokens = draw.integers(0, 50257, 1, length)
                got, want = ours(tokens)[0], theirs(tokens).logits
                error = ((got - want).abs().max() / want.abs().max()).item()
                record(f"GPT-2 small, {dtype}, length {length}: error of the logits", error, "", within)
                assert error <= within


# -- Llama ------------------------------------------------------------------------------------------------------------


@pytest.mark.process  # imports transformers
@subject("models.load_pretrained", "attention.KVCache")
@proves("colab/day075/llama-model#parity")
@checks("oracle", "branches", "dtype")
@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-4), ("float64", 1e-10)])
def test_a_sharded_llama_equals_transformers(dtype, within, impl, needs, draw, tmp_path):
    """Prefill and cached decoding.  The library's norms and angles are float32; in float64 they are widened."""
    needs.peer("transformers")
    theirs = llama(draw, dtype)
    theirs.save_pretrained(tmp_path, max_shard_size="100KB" if dtype == "float32" else "200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = impl.models.load_pretrained(tmp_path)
    assert (ours.config.n_head, ours.config.n_kv_head, ours.config.rope_base) == (32, 4, 500.0)
    theirs = widened(theirs) if dtype == "float64" else theirs
    tokens = draw.integers(0, 31, 2, LLAMA["max_position_embeddings"])
    want = theirs(tokens).logits
    near(ours(tokens)[0], want, within)
    cache = impl.attention.KVCache(2, 2, 4, 24, 4, dtype=getattr(torch, dtype))
    kept = theirs(tokens[:, :9], use_cache=True)
    near(ours(tokens[:, :9], cache=cache)[0], kept.logits, within)
    for t in range(9, 24):
        kept = theirs(tokens[:, t : t + 1], past_key_values=kept.past_key_values, use_cache=True)
        got = ours(tokens[:, t : t + 1], cache=cache)[0]
        near(got, kept.logits, within)
        near(got, want[:, t : t + 1], within)


@pytest.mark.process  # imports transformers
@BOTH
@subject("models.load_pretrained", "models.save_pretrained", uses=["models.Llama", "models.LlamaConfig"])
@proves("colab/day075/llama-model#parity")
@checks("invariance", "branches", "arguments")
def test_interleaved_pairs_are_written_as_halves(impl, needs, draw, tmp_path):
    """The layout of the authors' own files; biases of q and k are turned like their rows."""
    needs.peer("transformers")
    import transformers

    for bias in (False, True):
        config = impl.models.LlamaConfig(31, 24, 2, 4, 32, n_kv_head=2, n_hidden=20, pairing="interleaved", bias=bias)
        ours = impl.models.Llama(config).double()
        with torch.no_grad():
            for parameter in ours.parameters():
                parameter.add_(draw.normal(*parameter.shape, scale=0.3))
        folder = tmp_path / str(bias)
        impl.models.save_pretrained(ours, folder)
        tokens = draw.integers(0, 31, 2, 9)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        near(widened(theirs)(tokens).logits, ours(tokens)[0], 1e-10)
        again = impl.models.load_pretrained(folder)
        assert again.config.pairing == "halves"
        near(again(tokens)[0], ours(tokens)[0], 1e-12)
