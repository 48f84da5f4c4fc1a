import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import FailFast, Field, FiniteFloat, TypeAdapter

from headscope.export.base import MEGABYTE, MOST, Content, Format

STEPS = 50  # answers are that long at most, and one step copies one token
_Head = Annotated[str, Field(pattern=r"^[0-9]{1,4}-[0-9]{1,4}$")]
_Score = Annotated[FiniteFloat, Field(ge=0, le=STEPS)]
_FILE = TypeAdapter(dict[_Head, Annotated[list[_Score], FailFast()]])


@dataclass(frozen=True)
class RetrievalHead(Format):
    """Retrieval scores of every query head on every accepted sample.

    `{"LAYER-HEAD": [one number a sample], ...}`, in one line; of several lines the samples are put
    one behind the other. A number is the share of the needle that the head copied while the model
    answered; repeated copies count again, so it can exceed 1. Gives `retrieval`, as the probe of
    that name does (which counts no copy twice).

    Source: Wu et al. 2024, arXiv 2404.15574; `head_score/*.json` of nightdessert/Retrieval_Head.
    """

    paper = "Wu et al. 2024, arXiv 2404.15574"
    reads = "head_score/MODEL.json of Retrieval_Head"
    limit = 64 * MEGABYTE

    def recognises(self, path: Path, start: bytes) -> bool:
        return re.match(rb'\{\s*("[0-9]+-[0-9]+"\s*:|\}\s*$)', start) is not None

    def parse(self, path: Path, contents: Sequence[bytes]) -> Content:
        (content,) = contents
        lines = [line for line in content.splitlines() if line.strip()]
        apart = all(line.lstrip().startswith(b"{") for line in lines)
        parts: list[np.ndarray] = []
        for document in lines if apart and lines else [content]:
            samples = _samples(_FILE.validate_json(document, strict=True))
            if parts and samples.shape[1:] != parts[-1].shape[1:]:
                raise ValueError("its lines are about models of different shapes")
            if parts and parts[-1].any() and np.array_equal(samples[: len(parts[-1])], parts[-1]):
                raise ValueError("a line begins with the samples of the one before; keep the last")
            parts.append(samples)
        return Content(path.stem, path.stem, {"retrieval": np.concatenate(parts)})


def _samples(heads: dict[str, list[float]]) -> np.ndarray:
    """[sample, layer, head]."""
    if not heads:
        raise ValueError("it holds no heads, as when no sample was answered")
    places = np.array([name.split("-") for name in heads], dtype=int)
    shape = places.max(0) + 1
    lengths = {len(samples) for samples in heads.values()}
    different = len(np.unique(places, axis=0))  # "0-0" and "00-0" are one
    if shape.max() > MOST or not shape.prod() == len(heads) == different:
        raise ValueError(f"its {len(heads)} heads do not fill layers of equally many")
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"its heads have {min(lengths)} to {max(lengths)} samples")
    values = np.empty((lengths.pop(), *shape))
    values[:, places[:, 0], places[:, 1]] = np.array(list(heads.values())).T
    return values
