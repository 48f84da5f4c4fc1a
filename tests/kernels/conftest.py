"""Kernels are interpreted where there is no GPU; tests/conftest.py imports Triton for that."""

import pytest
import torch

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are decorated when a test first imports them, with this set."""
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
