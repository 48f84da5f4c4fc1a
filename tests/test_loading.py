"""Opening models: what is found, what is fetched, and what is refused in one sentence."""

import inspect
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import opened
from tiny import tiny_model, tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
    XGLMConfig,
)

import headscope
from headscope import loading
from headscope.checking import check_model
from headscope.errors import HeadscopeError
from headscope.selftest import self_test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model as transformers saves one."""
    where = tmp_path / "tiny-llama"
    tiny_model("llama").save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return where


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_a_local_folder_opens(folder: Path, backend: Any) -> None:
    model = headscope.load(str(folder), backend=backend)
    assert (model.n_layers, model.n_heads, model.n_kv_heads, model.d_head) == (3, 6, 2, 8)
    assert model.name == "tiny-llama"
    assert model.dtype == torch.float32
    assert "tiny-llama" in repr(model)
    same = headscope.load(folder)
    assert same.fingerprint == model.fingerprint


def test_dtype_and_device_are_honoured(folder: Path) -> None:
    assert headscope.load(folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    assert headscope.load(folder, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(HeadscopeError, match="is no dtype"):
        headscope.load(folder, dtype="float31")
    with pytest.raises(HeadscopeError, match="not both"):
        headscope.load(folder, device="cpu", device_map="auto")


def test_fingerprints_do_not_depend_on_the_backend(architecture: str) -> None:
    found = {opened(architecture, name).fingerprint for name in ("hf", "nnsight", "lens")}
    assert len(found) == 1


def test_fingerprints_tell_weights_apart(folder: Path) -> None:
    one = headscope.load(folder).fingerprint
    hf = tiny_model("llama")
    hf.model.layers[2].mlp.down_proj.weight[0, 0] += 1e-3
    assert headscope.load(hf, tiny_tokenizer()).fingerprint != one


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such-model", "cannot be opened"),
        ("smolm2", "cannot be opened"),
        ("./nowhere", "no folder"),
        ("/nowhere/at/all", "no folder"),
        ("~nosuchuser/model", "no folder"),
        ("/nowhere/model.gguf", "no file"),
        ("", "Name a model"),
        (3, "no model that headscope knows"),
    ],
)
def test_unknown_specs_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message) as caught:
        headscope.load(spec)
    assert "\n" not in str(caught.value)


def test_folders_and_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match=r"no config\.json"):
        headscope.load(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(HeadscopeError, match="cannot be read as a GGUF"):
        headscope.load(tmp_path / "broken.gguf")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HeadscopeError, match="cannot be opened"):
        headscope.load(tmp_path)


def test_an_unknown_backend_is_refused(folder: Path) -> None:
    unchecked: Any = inspect.unwrap(headscope.load)  # as it is outside of tests
    for spec in (folder, tiny_model("llama")):
        for name in ("HF", "tlens", ""):
            with pytest.raises(HeadscopeError, match="use hf, nnsight or lens"):
                unchecked(spec, tiny_tokenizer(), backend=name)


@pytest.mark.parametrize(
    ("device", "device_map"),
    [("foo", None), ("", None), ("meta", None), (None, {"": "foo"}), (None, "foo")],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    folder: Path, device: Any, device_map: Any
) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(HeadscopeError, match="There is no device"):
        headscope.load(folder, device=device, device_map=device_map)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    for place in ({"device": "cuda"}, {"device": "cuda:1"}, {"device_map": "cuda"}):
        with pytest.raises(HeadscopeError, match="There is no device 'cuda"):
            headscope.load(folder, **place)  # pyright: ignore


def test_a_revision_is_handed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def gone(spec: str, **options: Any) -> Any:
        asked.append(options.get("revision"))
        raise OSError("gone")

    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", gone)
    for revision in ("v1", None):
        with pytest.raises(HeadscopeError, match="cannot be opened"):
            headscope.load("org/model", revision=revision)
    assert asked == ["v1", None]
    with pytest.raises(HeadscopeError, match="no revision"):
        headscope.load(folder, revision="v1")


def state(hf: PreTrainedModel) -> dict[Any, Any]:
    """What a module holds beside its children: names of what is set, hooks, types."""
    found: dict[Any, Any] = {
        (name, key): repr(value)[:200]
        for name, module in hf.named_modules()
        for key, value in vars(module).items()
        if key != "_modules"
    }
    types = {name: type(module) for name, module in hf.named_modules()}
    return found | types | {"config": hf.config.to_dict()}


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_a_model_in_memory_is_given_back_unchanged(name: str, backend: Any) -> None:
    pytest.importorskip({"lens": "transformer_lens", "hf": "torch"}.get(backend, backend))
    hf = tiny_model(name)
    before, weights = state(hf), {key: t.clone() for key, t in hf.state_dict().items()}
    model = headscope.load(hf, tiny_tokenizer(), backend=backend)
    with headscope.Ablate(["L0H0"])(model):
        model([5, 6, 7])
    assert state(hf) == before
    assert all(torch.equal(t, weights[key]) for key, t in hf.state_dict().items())
    # And no weight was copied for it.
    held = {parameter.data_ptr() for parameter in model.backend.parameters()}
    assert {parameter.data_ptr() for parameter in hf.parameters()} <= held


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", None, "weights are damaged"),
        ("model.safetensors", b"\xff" * 500, "weights are damaged"),
        ("config.json", b"[1]", "no JSON object"),
        ("config.json", b'{"model_type": "lla', "no JSON object"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "x"}', "hidden_size"),
        ("config.json", b'{"model_type": "nosuch"}', "nosuch"),
        ("config.json", b'{"model_type": 3}', "cannot be opened"),
        ("tokenizer.json", b"{", "tokenizer or config is damaged"),
    ],
)
def test_damaged_files_are_one_sentence(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:3000] if content is None else content)
    with pytest.raises(HeadscopeError, match=message) as caught:
        headscope.load(folder)
    assert "\n" not in str(caught.value)
    if name == "config.json":
        with pytest.raises(HeadscopeError) as checked:
            check_model(str(folder))
        assert "\n" not in str(checked.value)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\1\0\0\0\0\0\0\0" * 3])
def test_a_gguf_file_that_was_cut_off_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.gguf").write_bytes(content)
    with pytest.raises(HeadscopeError, match="cannot be read as a GGUF"):
        headscope.load(tmp_path / "cut.gguf")
    with pytest.raises(HeadscopeError, match="cannot be read"):
        check_model(str(tmp_path / "cut.gguf"))


def test_a_model_in_memory_wants_its_tokenizer() -> None:
    with pytest.raises(HeadscopeError, match="tokenizer too"):
        headscope.load(tiny_model("llama"))


def test_a_tokenizer_of_ones_own_is_used(folder: Path) -> None:
    own = tiny_tokenizer()
    assert headscope.load(folder, own).tokenizer is own
    (folder / "tokenizer.json").unlink()  # and the model's need not be there
    assert headscope.load(folder, own).tokenizer is own
    unchecked: Any = inspect.unwrap(headscope.load)
    for spec in (folder, tiny_model("llama")):
        with pytest.raises(HeadscopeError, match="instead of 'gpt2'"):
            unchecked(spec, "gpt2")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"dtype": "bfloat16"}, {"dtype": "float32"}),
        ({"device_map": "auto"}, {}),
        ({"quantization": {"bits": 4}}, {}),
        ({"revision": "v1"}, {"device": "cpu"}),
    ],
)
def test_a_model_in_memory_is_not_converted(wrong: Any, right: Any) -> None:
    hf = tiny_model("llama")
    with pytest.raises(HeadscopeError, match=f"{next(iter(wrong))}=.*in memory|in memory.*leave"):
        headscope.load(hf, tiny_tokenizer(), **wrong)
    assert headscope.load(hf, tiny_tokenizer(), **right).dtype == torch.float32


def no_decoders() -> dict[str, tuple[PreTrainedModel, str]]:
    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6}
    t5 = T5Config(vocab_size=97, d_model=48, d_ff=64, num_layers=2, num_heads=6, d_kv=8)
    whisper = WhisperConfig(
        vocab_size=97, d_model=48, encoder_layers=2, decoder_layers=2, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=64, decoder_ffn_dim=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    xglm = XGLMConfig(
        vocab_size=97, d_model=48, num_layers=3, attention_heads=6, ffn_dim=64,
        max_position_embeddings=128,
    )  # fmt: skip
    llama = tiny_model("llama")
    return {
        "LlamaModel": (cast(Any, llama).model, "no language-model head"),
        "LlamaForSequenceClassification": (
            LlamaForSequenceClassification(llama.config),
            "no language-model head",
        ),
        "T5ForConditionalGeneration": (T5ForConditionalGeneration(t5), "encoder with a decoder"),
        "WhisperForConditionalGeneration": (
            WhisperForConditionalGeneration(whisper),
            "encoder with a decoder",
        ),
        "ViTForImageClassification": (
            ViTForImageClassification(ViTConfig(intermediate_size=64, **small)),
            "no language-model head",
        ),
        "XGLMForCausalLM": (
            AutoModelForCausalLM.from_config(xglm),
            "would not see its heads",
        ),
    }


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
@pytest.mark.parametrize("name", list(no_decoders()))
def test_what_is_no_causal_language_model_is_named(name: str, backend: Any) -> None:
    pytest.importorskip({"lens": "transformer_lens", "hf": "torch"}.get(backend, backend))
    hf, why = no_decoders()[name]
    with pytest.raises(HeadscopeError, match=f"{name}.*{why}") as caught:
        headscope.load(hf.eval(), tiny_tokenizer(), backend=backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list(no_decoders()))
def test_folders_of_other_models_are_refused(name: str, tmp_path: Path) -> None:
    hf, _ = no_decoders()[name]
    hf.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(HeadscopeError) as caught:
        headscope.load(tmp_path)
    assert "\n" not in str(caught.value)
    if name == "XGLMForCausalLM":
        assert "XGLMForCausalLM cannot be opened" in str(check_model(str(tmp_path)).problem)
    elif not name.startswith("Llama"):  # whose config says nothing of its head
        with pytest.raises(HeadscopeError):
            check_model(str(tmp_path))


def test_a_backend_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in (("nnsight", "nnsight"), ("lens", "transformer_lens")):
        for module in [m for m in sys.modules if m.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(HeadscopeError, match=rf"headscope\[{name}\]"):
            headscope.load(tiny_model("llama"), tiny_tokenizer(), backend=name)


def test_the_self_test_is_part_of_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(loading, "self_test", lambda b: calls.append(b) or self_test(b))
    headscope.load(tiny_model("gpt2"), tiny_tokenizer())
    assert len(calls) == 1


@pytest.mark.parametrize(("projection", "name"), [("q_proj", ""), ("v_proj", "L1H0")])
def test_a_number_that_is_none_is_traced_to_its_head(projection: str, name: str) -> None:
    hf = tiny_model("llama")
    with torch.no_grad():
        weight = getattr(hf.model.layers[1].self_attn, projection).weight
        weight[-1 if projection == "q_proj" else 0] = torch.nan
    last = f"L1H{hf.config.num_attention_heads - 1}"
    with pytest.raises(HeadscopeError, match=f"by itself, first in {name or last};"):
        headscope.load(hf, tiny_tokenizer())


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_layers_that_see_only_so_far_are_known_and_said(backend: Any) -> None:
    model = headscope.load(tiny_model("gemma3"), tiny_tokenizer(), backend=backend)
    assert model.backend.reach == {0: 8, 2: 8}
    (said,) = headscope.scan(model, ["distance"], samples=1, lengths=[60]).info.model.windows()
    assert "at most 8 tokens" in said
    assert "0, 2" in said


# ---- checking from the config alone ------------------------------------------------------------


def test_a_config_is_enough_to_check(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    found = check_model(str(folder))
    assert found.problem is None
    assert (found.layers, found.heads, found.kv_heads, found.d_head) == (3, 6, 2, 8)


def test_checks_agree_with_opening(architecture: str, tmp_path: Path) -> None:
    hf = tiny_model(architecture)
    hf.config.save_pretrained(tmp_path)
    found = check_model(str(tmp_path))
    model = headscope.load(hf, tiny_tokenizer())
    assert found.problem is None
    shape = (model.n_layers, model.n_heads, model.n_kv_heads, model.d_head)
    assert (found.layers, found.heads, found.kv_heads, found.d_head) == shape
    assert found.parameters == sum(p.numel() for p in hf.parameters())


def test_a_check_names_what_bypasses_the_seam(tmp_path: Path) -> None:
    from transformers import BloomConfig

    BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=2).save_pretrained(tmp_path)
    assert "layer 0" in str(check_model(str(tmp_path)).problem)
    with pytest.raises(HeadscopeError, match="cannot be read"):
        check_model("no/such-model")


def test_a_check_says_what_it_cannot_tell(tmp_path: Path) -> None:
    from transformers import BertConfig, JambaConfig, MambaConfig

    small: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}
    heads = small | {"num_attention_heads": 4, "intermediate_size": 32}
    jamba = heads | {"num_key_value_heads": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
    for config, message in (
        (MambaConfig(**small, state_size=4), "no softmax attention"),
        (JambaConfig(**jamba, mamba_d_state=4), "cannot be told from its config"),
        (BertConfig(**heads), "both directions"),
    ):
        config.save_pretrained(tmp_path)
        problem = check_model(str(tmp_path)).problem
        assert problem is not None
        assert message in problem
        assert "\n" not in problem


def test_a_model_without_heads_is_not_opened() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4)
    with pytest.raises(HeadscopeError, match="no softmax attention"):
        headscope.load(MambaForCausalLM(config).eval(), tiny_tokenizer())
