import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat

from headscope.export.base import MOST, Content, Format, grid

_LENGTH = 8192  # the longest that its search looked at

_Alpha = Annotated[FiniteFloat, Field(ge=-(10**7), le=10**7)]
_Beta = Annotated[FiniteFloat, Field(ge=0, le=1)]


_T = TypeVar("_T")
_Several = Annotated[list[_T], Field(max_length=MOST), FailFast()]


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    alphas: _Several[_Several[_Alpha]]
    betas: _Several[_Several[_Beta]]


def plan_of(
    content: bytes,
) -> tuple[Float[np.ndarray, "layer head"], Float[np.ndarray, "layer head"]]:
    """Its alphas, in tokens, and betas.

    Raises:
        ValueError: in a few words, what is wrong with the file.
    """
    plan = _Plan.model_validate_json(content)
    alphas, betas = grid(plan.alphas, "its alphas"), grid(plan.betas, "its betas")
    if alphas.shape != betas.shape:
        raise ValueError(f"its alphas are {alphas.shape} and its betas {betas.shape}")
    return alphas, betas


@dataclass(frozen=True)
class Moa(Format):
    """How far back every query head may look, a rule of the length n of the text.

    `{"alphas": layers × heads, "betas": layers × heads}`: a head looks back alpha + beta n
    tokens, and at the sinks. Gives `moa_alpha` (tokens), `moa_beta` (in [0, 1]) and `moa_span_8k`,
    their rule at 8 192 tokens, between 0 and that.

    A plan has at most two rules a layer and a mean of half the text: spans rank heads within a
    layer, and heads of different layers only loosely.

    Source: Fu et al. 2024, arXiv 2406.14909; `examples/*/*.json` of thu-nics/MoA.
    """

    paper = "Fu et al. 2024, arXiv 2406.14909"
    reads = "moa_alpha_beta.json of MoA"

    def recognises(self, path: Path, start: bytes) -> bool:
        return re.match(rb'\{\s*"(alphas|betas)"\s*:', start) is not None

    def parse(self, path: Path, contents: Sequence[bytes]) -> Content:
        alphas, betas = plan_of(contents[0])
        spans = (alphas + betas * _LENGTH).clip(0, _LENGTH)
        # The files of all models have the same name, and lie in folders of the model's.
        name = path.resolve().parent.name if path.stem.endswith("alpha_beta") else ""
        return Content(
            spec=f"{name}/{path.stem}" if name else path.stem,
            name=name or path.stem,
            scores={
                "moa_alpha": alphas[None],
                "moa_beta": betas[None],
                "moa_span_8k": spans[None],
            },
            kv_views={"moa_alpha": "mean", "moa_beta": "mean"},
        )
