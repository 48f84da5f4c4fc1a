import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, FailFast, Field, TypeAdapter

from headscope.export.base import MOST, Content, Format, grid

_Kind = Literal["stream_llm", "vertical_and_slash", "block_sparse"]
KINDS = get_args(_Kind)
_ROUNDED = 1.01  # a sum of attention in half precision can exceed 1
_Head = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3})$")]
_Size = Annotated[int, Field(ge=0, le=10**9)]


def _score(value: Any) -> int | float:
    counted = type(value) is int and 0 <= value <= 10**15
    if not counted and not (type(value) is float and 0 <= value <= _ROUNDED):
        raise ValueError("a score is a recall between 0 and 1 or a count of errors")
    return value


_Template = tuple[_Kind, _Size, _Size, Annotated[Any, AfterValidator(_score)]]
_Layers = Annotated[list[dict[_Head, _Template]], Field(max_length=MOST), FailFast()]
_FILE = TypeAdapter(_Layers)


def templates(content: bytes) -> list[list[tuple[str, int, int, int | float]]]:
    """(kind, vertical, slash, score) of every query head, by layer.

    Raises:
        ValueError: in a few words, what is wrong with the file.
    """
    layers = _FILE.validate_json(content, strict=True)
    if any(set(layer) != {str(head) for head in range(len(layer))} for layer in layers):
        raise ValueError("a layer's heads are not numbered from 0 without a gap")
    return [[layer[str(head)] for head in range(len(layer))] for layer in layers]


@dataclass(frozen=True)
class Minference(Format):
    """The sparse template that a search chose for every query head, and how well it did.

    A list over layers of `{"HEAD": [kind, vertical, slash, score], ...}`. Gives
    `minference_recall`, the attention that the template holds, in [0, 1] but for rounding, where
    scores are fractions; `minference_errors`, how many output numbers it changed by more than
    0.005, where they are counts: which search was run the files do not say, and fewer errors are
    better. `minference_vertical` and `minference_slash` are the template's columns and diagonals,
    and the curve `minference_kind` is 1 at the head's kind of template.

    The search puts templates of other kinds down as vertical_and_slash, and some files were changed
    by hand after it and keep the score of the template that they had before: classes are no clean
    classification.

    Source: Jiang et al. 2024, arXiv 2407.02490; `minference/configs` of microsoft/MInference.
    """

    paper = "Jiang et al. 2024, arXiv 2407.02490"
    reads = "MODEL_best_pattern.json of MInference"

    def recognises(self, path: Path, start: bytes) -> bool:
        return re.match(rb'\[\s*\{\s*"[0-9]+"\s*:\s*\[', start) is not None

    def parse(self, path: Path, contents: Sequence[bytes]) -> Content:
        rows = templates(contents[0])
        counts = {isinstance(score, int) for row in rows for *_, score in row}
        if len(counts) > 1:
            raise ValueError("its scores are partly fractions and partly counts")
        score = "minference_errors" if True in counts else "minference_recall"
        kinds = grid([[KINDS.index(kind) for kind, *_ in row] for row in rows], "its heads")
        numbers = np.array([[each[1:] for each in row] for row in rows], dtype=np.float64)
        vertical, slash, scores = np.moveaxis(numbers, -1, 0)[:, None]
        return Content(
            spec=path.stem,
            name=re.sub(r"(_kv_out|_best_pattern).*", "", path.stem) or path.stem,
            scores={score: scores, "minference_vertical": vertical, "minference_slash": slash},
            kv_views=dict.fromkeys((score, "minference_vertical", "minference_slash"), "mean"),
            curves={"minference_kind": (kinds[None, ..., None] == np.arange(len(KINDS)))},
            points={"minference_kind": f"1 at the head's template of {', '.join(KINDS)}"},
        )
