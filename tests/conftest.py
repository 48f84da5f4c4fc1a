"""Models that tests share; nothing here is changed by a test."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when its client is imported

import jaxtyping
import kernels_under_test  # noqa: F401  before transformers imports Triton
import pytest
import shape_checks  # noqa: F401  before headscope is imported
import torch
from hypothesis import settings
from tiny import CONFIGS, tiny_model, tiny_tokenizer

import headscope
from headscope.model import HeadModel

settings.register_profile("headscope", deadline=None)  # how long a test takes says nothing here
settings.load_profile("headscope")
torch.set_grad_enabled(False)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))  # workers share the cores


@cache
def opened(name: str, backend: str = "hf") -> HeadModel:
    """A tiny random model behind the seam."""
    if backend != "hf":
        pytest.importorskip({"lens": "transformer_lens"}.get(backend, backend))
    return headscope.load(tiny_model(name), tiny_tokenizer(), backend=backend)


@pytest.fixture(params=list(CONFIGS))
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def llama() -> HeadModel:
    return opened("llama")


@pytest.fixture(scope="session")
def smollm2() -> HeadModel:
    return headscope.load("smollm2")


@pytest.fixture
def grad() -> Iterator[None]:
    with torch.enable_grad():
        yield


@pytest.fixture(autouse=True)
def interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are interpreted where there is no GPU, in their own tests alone."""
    if "kernels" in request.path.parts:
        pytest.importorskip("triton")
        if not torch.cuda.is_available():
            monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def no_surprises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests write nowhere but their own folder, and every one starts from the same seed."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def traceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are not looked at: torch.compile follows no checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
