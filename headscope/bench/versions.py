"""Versions of what can change a time."""

from importlib.metadata import PackageNotFoundError, version

import torch

from headscope.runinfo import versions

_PACKAGES = ("triton", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "flash-sparse-attn")


def bench_versions() -> dict[str, str]:
    """By package; CUDA's is the one that PyTorch was built for."""
    found = versions()
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found
