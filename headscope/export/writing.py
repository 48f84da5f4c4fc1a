"""Scores of a head map in a format of others."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.export.retrieval_head import STEPS

if TYPE_CHECKING:
    from headscope.headmap import HeadMap


def write_retrieval_head(head_map: "HeadMap", score: str, path: str | Path) -> Path:
    """One score of a head map as Retrieval_Head keeps its own: `{"LAYER-HEAD": [samples], ...}`.

    `headscope.read_heads` reads it back under the name `retrieval`, float32 numbers unchanged.
    What the numbers are the file does not say, and neither which model they are of but for its
    own name.

    Source: Wu et al. 2024, arXiv 2404.15574; `head_score/*.json` of nightdessert/Retrieval_Head.

    Args:
        score: its name, or that of a role.
        path: the file.

    Raises:
        HeadscopeError: the map has no such score, its numbers are none that the format knows, it
            leaves layers out, or the file cannot be written.
    """
    values = head_map[head_map.score_of(score)].values
    layers = head_map.layers
    if layers != list(range(len(layers))):
        raise HeadscopeError(
            f"The format counts layers from 0 without gaps; {head_map.info.model.name} has "
            f"attention in {len(layers)} layers up to {layers[-1]}."
        )
    fits = np.isfinite(values) & (values >= 0) & (values <= STEPS)
    if not fits.all():
        _, layer, head = np.argwhere(~fits)[0]
        raise HeadscopeError(
            f"The format holds numbers from 0 to {STEPS}, and {score} of L{layer}H{head} is "
            f"{values[~fits][0]:g}; export another score."
        )
    names = {f"{layer}-{head}": (layer, head) for layer, head in head_map.heads()}
    content = {name: values[:, i, j].tolist() for name, (i, j) in names.items()}
    storage.write(Path(path), (json.dumps(content) + "\n").encode())
    return Path(path)
