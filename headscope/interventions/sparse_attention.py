from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.interventions.base import Claim
from headscope.interventions.caching import _Cache
from headscope.interventions.parts import _InPart
from headscope.interventions.sinks_and_window import all_layers
from headscope.run import Part
from headscope.sparsity.engine import SparseEngine
from headscope.sparsity.profile import SparseProfile

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class SparseAttention(_InPart, _Cache):
    """Every query head sees the keys that its rule in a profile lets it see, and no others.

    The engine itself: what a rule hides is not computed. Methods that change logits or keep less
    of a cache can be in force beside it, and a second SparseAttention is refused. What a KV head
    needs for good is what a `HeadCache` of the profile holds, and what `kv_bytes` counts.

    A rule that chooses by content takes a prompt's later queries into account: a full forward
    pass then differs from a prompt and steps, and answers are read token by token.

    Source: per-head profiles as in DuoAttention (Xiao et al. 2024, arXiv 2410.10819) and
    MInference (Jiang et al. 2024, arXiv 2407.02490); each rule names its own.

    Attributes:
        profile: its rules; in text, the path of one.
        part: rows in which it holds, as in `Ablate`.
    """

    paper = "Xiao et al. 2024, arXiv 2410.10819; Jiang et al. 2024, arXiv 2407.02490"
    claims: ClassVar[frozenset[Claim]] = frozenset()
    causal: ClassVar[bool] = True
    files: ClassVar[Mapping[str, type[Any]]] = {"profile": SparseProfile}
    profile: SparseProfile
    part: Part = "all"

    def __post_init__(self) -> None:
        self._check_part()
        # Declared of rules by position; of a profile that has others it is not so.
        object.__setattr__(self, "causal", self.profile.by_position)

    def check(self, model: "HeadModel") -> None:
        self.profile.check(model)

    @contextmanager
    def __call__(self, model: "HeadModel") -> Iterator["HeadModel"]:
        self.check(model)
        self._refuse_company(model)
        with model.backend.attached(), model.stack.computed_by(self.engine()):
            yield model

    def engine(self) -> SparseEngine:
        """What computes z while it is in force."""
        return SparseEngine(self.profile, self.part)

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        if self.part == "prefill":
            return all_layers(model, tokens + new)
        return torch.from_numpy(self.profile.held_keys(tokens + new))
