"""Small files in every format, made up."""

import json
from pathlib import Path

import numpy as np

LAYERS, HEADS, SAMPLES = 2, 4, 5

RETRIEVAL = np.random.default_rng(0).random((SAMPLES, LAYERS, HEADS)).round(3)
GATES = np.array([[0.25, 1.0], [0.0, 0.5]])
TEMPLATES = [
    [["vertical_and_slash", 1000, 6096, 0.75], ["stream_llm", 100, 800, 1.0004]],
    [["block_sparse", 8, 1, 0.0], ["vertical_and_slash", 30, 800, 0.5]],
]
ALPHAS = [[0.0, -1024.0, 1024.0], [8192.0, 0.0, -2048.0]]
BETAS = [[0.125, 1.0, 0.0], [0.5, 1.0, 0.125]]
CONFIG = {
    "model_name": "models/Tiny-7B",
    "config_name": None,
    "sink_size": 128,
    "recent_size": 256,
    "lr": 0.02,
    "num_steps": 2000,
    "seed": 42,
    "device": "cuda:0",
}


def retrieval_heads(values: np.ndarray = RETRIEVAL) -> dict[str, list[float]]:
    _, layers, heads = values.shape
    return {f"{i}-{j}": values[:, i, j].tolist() for i in range(layers) for j in range(heads)}


def minference(templates: list = TEMPLATES) -> list[dict[str, list]]:
    return [{str(head): each for head, each in enumerate(layer)} for layer in templates]


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def duo(folder: Path, table: str | None = None, config: object = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "full_attention_heads.tsv"
    if table is None:
        np.savetxt(path, GATES, delimiter="\t")
    else:
        path.write_text(table)
    write_json(folder / "config.json", config)
    return folder


def everything(folder: Path) -> dict[str, Path]:
    """One good example of each format."""
    return {
        "retrieval_head": write_json(folder / "Tiny.json", retrieval_heads()),
        "duo_attention": duo(folder / "duo"),
        "minference": write_json(folder / "Tiny_best_pattern.json", minference()),
        "moa": write_json(folder / "moa_alpha_beta.json", {"alphas": ALPHAS, "betas": BETAS}),
    }
