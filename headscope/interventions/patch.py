from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.by_head import _ByHead
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True, eq=False)
class Outputs:
    """What every head of a model said at every position of one run.

    Attributes:
        layers: the model's attention layers.
        z: the heads' outputs before W_O.
    """

    layers: tuple[int, ...]
    z: Float[Tensor, "layer head position dv"]

    @classmethod
    def of(cls, model: "HeadModel", token_ids: Sequence[int]) -> "Outputs":
        """Run one sequence, and keep what its heads say before any open scope edits it."""
        kept: dict[int, Tensor] = {}

        def keep(attended: Attended) -> None:
            kept[attended.attention.layer] = attended.z[0].detach()

        with torch.no_grad(), model.observed(keep):
            model.forward(list(token_ids), last=1)
        return cls(tuple(model.layers), torch.stack([kept[layer] for layer in model.layers]))

    def __len__(self) -> int:
        """Positions of the run."""
        return self.z.shape[2]


@dataclass(frozen=True)
class Patch(_ByHead):
    """Activation patching: give heads the outputs that they had in another run.

    z of each head is replaced by z of the same head at the same position of a stored run, so both
    runs have the same length: two prompts that differ in a few tokens. A run from a cache is as
    long as its prompt, where `prompt_length` is known; rows behind the stored ones are left as they
    are. Outputs of another model of the same shape are taken too: that is patching across models.

    Source: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal Mediation
    Analysis", arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262 (causal tracing); Zhang & Nanda
    2023, arXiv 2309.16042 (which prompts and metrics to use).

    Attributes:
        heads: (layer, head) pairs or names like "L17H3"; none of them is a no-op.
        outputs: of the other run.
        positions: which positions are patched, from 0; all of them if left out.
    """

    paper = "Vig et al. 2020, arXiv 2004.12265; Zhang & Nanda 2023, arXiv 2309.16042"
    outputs: Outputs
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.outputs, Outputs):
            raise HeadscopeError(
                "Patching needs what the heads said in another run: pass "
                "outputs=Outputs.of(model, token_ids)."
            )
        last = len(self.outputs) - 1
        wrong = next((p for p in self.positions or () if not 0 <= p <= last), None)
        if wrong is not None:
            raise HeadscopeError(
                f"The stored run has no position {wrong}: its positions run from 0 to {last}."
            )

    def check(self, model: "HeadModel") -> None:
        super().check(model)
        if (*self.outputs.layers, self.outputs.z.shape[1]) != (*model.layers, model.n_heads):
            raise HeadscopeError(
                f"The stored outputs come from a model of {len(self.outputs.layers)} layers × "
                f"{self.outputs.z.shape[1]} heads, and {model.name} has {model.n_layers} × "
                f"{model.n_heads}; store those of a model of its shape."
            )

    def _edit(
        self, attention: Attention, attend: Attend, chosen: Bool[Tensor, "#batch head"]
    ) -> Attended:
        self._check_length(attention)
        attended = attend(attention)
        where = self._where(attention)[:, None, :, None] & chosen[:, :, None, None]
        at = attention.query_positions.clamp(0, len(self.outputs) - 1)
        stored = self.outputs.z[self.outputs.layers.index(attention.layer)].to(attended.z)
        return attended.with_z(torch.where(where, stored[:, at].transpose(0, 1), attended.z))

    def _where(self, attention: Attention) -> Bool[Tensor, "batch query"]:
        """The rows that are patched."""
        positions = attention.query_positions
        if self.positions is None:
            return (positions >= 0) & (positions < len(self.outputs))
        return torch.isin(positions, torch.tensor(self.positions, device=positions.device))

    def _check_length(self, attention: Attention) -> None:
        """Refuse a run of another length, wherever a pass tells how long its run is."""
        assert attention.run is not None
        known = []
        if attention.run.prompt_length is not None:
            known.append(attention.run.prompt_length)
        if attention.cache is None:
            known.append(attention.query_positions.amax(-1) + 1)
        if known and not any(bool((lengths == len(self.outputs)).all()) for lengths in known):
            raise HeadscopeError(
                f"The stored outputs are of a run of {len(self.outputs)} tokens, and this one has "
                f"{int(known[-1].max())}; patch between runs of the same length."
            )
