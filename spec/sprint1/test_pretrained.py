"""Checkpoints in the hub's format: what transformers saves loads here, and what is saved here loads there."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from spec.sprint1.llama_cases import widened
from spec.sprint1.pretrained_cases import GPT2, LLAMA, configure, gpt2, llama, rewrite, tensors
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


@BOTH
@subject("models.load_pretrained", "models.save_pretrained", "models.Llama", "models.LlamaConfig")
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


# -- what is stored, and what else ------------------------------------------------------------------------------------


@LOAD
@proves("karpathy/week11/gpt2-small#robustness")
@checks("branches", "edges", "state")
def test_what_old_files_hold_besides(impl, needs, draw, tmp_path):
    """Causal masks by their names, the tied head once more, and names without the prefix, as the first release had."""
    needs.peer("transformers")
    theirs = gpt2(draw)
    theirs.save_pretrained(tmp_path)
    tokens = draw.integers(0, 29, 2, 7)
    want, values = impl.models.load_pretrained(tmp_path)(tokens)[0], tensors(tmp_path)
    old = {name.removeprefix("transformer."): value for name, value in values.items()}
    mask = torch.tril(torch.ones(1, 1, 16, 16))
    buffers = {"h.0.attn.bias": mask, "h.1.attn.bias": mask.bool(), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    for extra in ({}, buffers, {"lm_head.weight": old["wte.weight"].clone()}):
        rewrite(tmp_path, old | extra)
        assert torch.equal(impl.models.load_pretrained(tmp_path)(tokens)[0], want)
    rewrite(tmp_path, values | {f"transformer.{name}": value for name, value in buffers.items()})
    assert torch.equal(impl.models.load_pretrained(tmp_path)(tokens)[0], want)
    rewrite(tmp_path, old | {"lm_head.weight": old["wte.weight"] + 1})
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        impl.models.load_pretrained(tmp_path)
    for wrong in ("h.0.attn.biases", "h.0.mlp.bias", "x.h.0.attn.bias"):
        rewrite(tmp_path, old | {wrong: mask})
        with pytest.raises(ValueError, match=wrong):
            impl.models.load_pretrained(tmp_path)


@LOAD
@proves("karpathy/week11/gpt2-small#robustness", "colab/day060/gpt2-model#robustness")
@checks("edges")
def test_tensors_missing_extra_or_misshapen(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    theirs = gpt2(draw)
    theirs.save_pretrained(tmp_path)
    values, tokens = tensors(tmp_path), draw.integers(0, 29, 2, 7)
    want = impl.models.load_pretrained(tmp_path)(tokens)[0]
    for name in ("transformer.h.1.attn.c_attn.weight", "transformer.ln_f.bias", "transformer.wpe.weight"):
        rewrite(tmp_path, {key: value for key, value in values.items() if key != name})
        with pytest.raises(ValueError, match=name.removeprefix("transformer.")):
            impl.models.load_pretrained(tmp_path)
    rewrite(tmp_path, values | {"transformer.h.2.ln_1.weight": torch.ones(12)})
    with pytest.raises(ValueError, match=r"h\.2\.ln_1\.weight"):
        impl.models.load_pretrained(tmp_path)
    for name, changed, wanted in (
        ("transformer.h.0.mlp.c_fc.weight", lambda v: v.T, r"(?s)(?=.*48, 12)(?=.*12, 48)"),
        ("transformer.wpe.weight", lambda v: v[:10], r"(?s)(?=.*10, 12)(?=.*16, 12)"),
        ("transformer.h.1.attn.c_attn.bias", lambda v: v[:24], r"(?s)(?=.*\b24\b)(?=.*\b36\b)"),
    ):
        rewrite(tmp_path, values | {name: changed(values[name])})
        with pytest.raises(ValueError, match=rf"{wanted}(?=.*{name.removeprefix('transformer.')})"):
            impl.models.load_pretrained(tmp_path)
    # A square matrix that was left untransposed fits: only the logits can tell.
    square = "transformer.h.0.attn.c_proj.weight"
    rewrite(tmp_path, values | {square: values[square].T})
    assert (impl.models.load_pretrained(tmp_path)(tokens)[0] - want).abs().max() > 1e-2 * want.abs().max()


@LOAD
@proves("colab/day075/llama-model#robustness", "colab/day060/gpt2-model#robustness")
@checks("edges")
def test_shards(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    for name, theirs in (("gpt2", gpt2(draw, n_embd=48)), ("llama", llama(draw))):
        folder = tmp_path / name
        theirs.save_pretrained(folder, max_shard_size="60KB")
        tokens = draw.integers(0, 29, 1, 5)
        near(impl.models.load_pretrained(folder)(tokens)[0], theirs(tokens).logits, 1e-4)
        shards = sorted(folder.glob("*.safetensors"))
        assert len(shards) > 1
        index = folder / "model.safetensors.index.json"
        kept = index.read_text()
        gone = shards[1].read_bytes()
        shards[1].unlink()
        with pytest.raises(ValueError, match=shards[1].name):
            impl.models.load_pretrained(folder)
        shards[1].write_bytes(gone)
        lost, place = next(iter(json.loads(kept)["weight_map"].items()))
        told = json.loads(kept)
        told["weight_map"].pop(lost)
        index.write_text(json.dumps(told))
        with pytest.raises(ValueError, match=lost):
            impl.models.load_pretrained(folder)
        told["weight_map"] |= {lost: place, "more.weight": place}
        index.write_text(json.dumps(told))
        with pytest.raises(ValueError, match=r"more\.weight"):
            impl.models.load_pretrained(folder)
        shards[0].rename(tmp_path / "outside.safetensors")  # a file that is there, and fits, but not in the folder
        for outside in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
            told = json.loads(kept)
            places = told["weight_map"].items()
            told["weight_map"] = {name: outside if at == shards[0].name else at for name, at in places}
            index.write_text(json.dumps(told))
            with pytest.raises(ValueError, match="outside"):
                impl.models.load_pretrained(folder)
        index.write_text("{}")
        with pytest.raises(ValueError, match="weight_map"):
            impl.models.load_pretrained(folder)


@LOAD
@proves("colab/day075/llama-model#robustness", "colab/day060/gpt2-model#robustness")
@checks("edges", "branches")
def test_configurations_of_other_models(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    folders = {"gpt2": tmp_path / "gpt2", "llama": tmp_path / "llama"}
    gpt2(draw).save_pretrained(folders["gpt2"])
    llama(draw).save_pretrained(folders["llama"])
    for family, changes, named in (
        ("llama", {"num_key_value_heads": 5}, r"(?s)(?=.*\b32\b)(?=.*\b5\b)"),
        ("llama", {"num_key_value_heads": 8}, r"(?s)k_proj.*(?=.*16, 128)(?=.*32, 128)"),
        ("llama", {"num_attention_heads": 3, "head_dim": None}, r"\b3\b"),
        ("llama", {"head_dim": 8}, "head_dim"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_type"),
        ("llama", {"attention_bias": True}, "bias"),
        ("llama", {"hidden_size": "128"}, "hidden_size"),
        ("llama", {"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ("llama", {"model_type": "mamba"}, r"(?s)(?=.*mamba)(?=.*gpt2)(?=.*llama)"),
        ("gpt2", {"n_embd": 14}, r"\b14\b"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_inner": 13}, "n_inner"),
        ("gpt2", {"n_layer": 0}, "n_layer"),
        ("gpt2", {"n_positions": 17}, r"(?s)(?=.*wpe)(?=.*17, 12)(?=.*16, 12)"),
    ):
        path = folders[family] / "config.json"
        kept = path.read_text()
        configure(folders[family], **changes)
        with pytest.raises(ValueError, match=named):
            impl.models.load_pretrained(folders[family])
        path.write_text(kept)
    old = json.loads(kept := (folders["llama"] / "config.json").read_text())
    tokens = draw.integers(0, 29, 1, 6)
    want = impl.models.load_pretrained(folders["llama"])(tokens)[0]
    base = old.pop("rope_parameters")["rope_theta"]  # as transformers 4 wrote it
    (folders["llama"] / "config.json").write_text(json.dumps(old | {"rope_theta": base, "rope_scaling": None}))
    assert torch.equal(impl.models.load_pretrained(folders["llama"])(tokens)[0], want)
    (folders["llama"] / "config.json").write_text(kept)


@LOAD
@proves("colab/day060/gpt2-model#robustness")
@checks("edges", "arguments")
def test_files_that_are_not_what_they_should_be(impl, needs, draw, tmp_path):
    with pytest.raises(ValueError, match="gpt2"):
        impl.models.load_pretrained("gpt2")  # a name of the hub is no folder here, and nothing is fetched
    with pytest.raises(ValueError, match=r"config\.json"):
        impl.models.load_pretrained(tmp_path)
    needs.peer("transformers")
    gpt2(draw, "float16").save_pretrained(tmp_path)
    for dtype in (torch.float64, torch.bfloat16):
        loaded = impl.models.load_pretrained(tmp_path, dtype=dtype)
        assert {p.dtype for p in loaded.parameters()} == {dtype}
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, told = weights.read_bytes(), config.read_text()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def written(changed):
        text = json.dumps(header | {"transformer.ln_f.bias": header["transformer.ln_f.bias"] | changed}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    for wrong in (
        b"",
        whole[:5],
        whole[: 8 + length // 2],
        whole[:-40],
        (2**62).to_bytes(8, "little") + whole[8:],
        (4).to_bytes(8, "little") + b"[1] " + whole,
        (4).to_bytes(8, "little") + b"\\xff{{{" + whole,
        written({"dtype": "F3"}),
        written({"shape": [-12]}),
        written({"shape": [13]}),
        written({"shape": None}),
        written({"data_offsets": [0, 10**9]}),
        written({"data_offsets": [24, 0]}),
        written({"data_offsets": "ab"}),
    ):
        weights.write_bytes(wrong)
        with pytest.raises(ValueError, match="safetensors"):
            impl.models.load_pretrained(tmp_path)
    weights.write_bytes(written({}))  # another length of header: the same tensors, at places that are not aligned
    loaded = impl.models.load_pretrained(tmp_path)
    assert torch.equal(loaded.norm.bias, tensors(tmp_path)["transformer.ln_f.bias"])
    for text in ("", "[]", "{", "[" * 100_000):
        config.write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            impl.models.load_pretrained(tmp_path)
    config.write_text(told)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        impl.models.load_pretrained(tmp_path)


@BOTH
@checks("purity", "state", "resources", "gradient")
def test_what_is_loaded_is_a_model_of_its_own(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    gpt2(draw).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    before, state = file.read_bytes(), torch.get_rng_state()
    ours = impl.models.load_pretrained(str(tmp_path))
    assert torch.equal(state, torch.get_rng_state()), "weights that are thrown away cost random numbers"
    other = impl.models.load_pretrained(tmp_path)
    pointers = [p.untyped_storage().data_ptr() for p in ours.parameters()]
    assert len(set(pointers)) == len(pointers)
    assert all(p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes for p in ours.parameters())
    tokens = draw.integers(0, 29, 2, 7)
    ours.train()(tokens, tokens)[1].backward()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.sub_(0.1 * parameter.grad)
    assert file.read_bytes() == before
    for name, value in other.state_dict().items():
        assert torch.equal(value, impl.models.load_pretrained(tmp_path).state_dict()[name]), name
    impl.models.save_pretrained(ours, tmp_path)  # over what was there
    for name, value in impl.models.load_pretrained(tmp_path).state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "generation_config.json", file.name]


@subject("models.save_pretrained", "models.Llama", "models.LlamaConfig", "models.GPT", "models.GPTConfig")
@checks("edges", "branches", "arguments")
def test_what_transformers_does_not_have_is_not_saved(impl, tmp_path):
    shape = {"vocab_size": 9, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8, "n_hidden": 12}
    for changes, named in (
        ({"norm": "layer"}, "norm"),
        ({"activation": "geglu"}, "activation"),
        ({"activation": "relu"}, "activation"),
        ({"positions": "learned"}, "positions"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.models.save_pretrained(impl.models.Llama(impl.models.LlamaConfig(**shape, **changes)), tmp_path / "no")
    with pytest.raises(ValueError, match="bias"):
        impl.models.save_pretrained(impl.models.GPT(impl.models.GPTConfig(9, 8, 1, 2, 8, bias=False)), tmp_path / "no")
    with pytest.raises(TypeError, match="Linear"):
        impl.models.save_pretrained(torch.nn.Linear(2, 2), tmp_path / "no")
    assert not (tmp_path / "no").exists()
