"""A made-up run with everything that a plan can be made of."""

import shutil
from pathlib import Path

import numpy as np
from made_up import a_map

from headscope.patterns.full import Full
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile
from headscope.sparsity.recalls import Recalls

RULES = (Streaming(64, 128), Streaming(64, 256), Full())
LENGTHS = (512, 1024)
BENCHES = Path(__file__).parents[1] / "benchmarks" / "results"


def losses(model: ProfiledModel, seed: int = 0) -> Recalls:
    """Losses that shrink with the window, different for every head."""
    rng = np.random.default_rng(seed)
    heads = rng.beta(0.4, 3.0, size=(2, len(model.layers), model.n_heads, 1))
    lost = heads * np.array([1.0, 0.6, 0.0])
    return Recalls.of(model, RULES, LENGTHS, 1 - lost, answer=lost**2)


def planned_run(root: Path, benches: bool = True) -> Path:
    """Save it as root/run, with a bench of kernels beside it."""
    folder = root / "run"
    head_map = a_map(layers=4, heads=6, kv_heads=2)
    head_map.save(folder)
    model = ProfiledModel.of_map(head_map)
    losses(model).save(folder / "profiles" / "recalls-made.safetensors")
    slashes = VerticalSlash(vertical=1000, slash=6096)
    grid = [[slashes if head < 3 else Full() for head in range(6)] for _ in range(4)]
    SparseProfile.of(model, grid).save(folder / "profiles" / "slashes.json")
    for part in ("prefill", "decode") if benches else ():
        shutil.copy(BENCHES / f"kernels_{part}.json", root / f"{part}.json")
    return folder
