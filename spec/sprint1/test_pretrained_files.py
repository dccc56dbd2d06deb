"""What a checkpoint's files may hold, and what is refused: tensors, shards, configurations, bytes."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from spec.sprint1.pretrained_cases import configure, gpt2, llama, rewrite, tensors
from spec.sprint1.test_pretrained import LOAD, near
from touchstone import checks, proves, subject

BOTH = subject("models.load_pretrained", "models.save_pretrained")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


# -- what is stored, and what else ------------------------------------------------------------------------------------


@pytest.mark.process  # imports transformers
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


@pytest.mark.process  # imports transformers
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


@pytest.mark.process  # imports transformers
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


@pytest.mark.process  # imports transformers
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


@pytest.mark.process  # imports transformers
@BOTH
@checks("branches", "arguments", "state")
def test_the_exact_form_of_gelu(impl, needs, draw, tmp_path):
    needs.peer("transformers")
    theirs, tokens = gpt2(draw, activation_function="gelu"), draw.integers(0, 29, 2, 9)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = impl.models.load_pretrained(tmp_path / "theirs")
    near(ours(tokens)[0], theirs(tokens).logits, 1e-5)
    impl.models.save_pretrained(ours, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["activation_function"] == "gelu"


@pytest.mark.process  # imports transformers
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
@pytest.mark.process
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


@subject("models.save_pretrained", uses=["models.Llama", "models.LlamaConfig", "models.GPT", "models.GPTConfig"])
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
