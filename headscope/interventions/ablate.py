from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.by_head import _ByHead
from headscope.interventions.checks import check_choice
from headscope.interventions.parts import _InPart
from headscope.prompts.base import Prompt
from headscope.prompts.text import reference_text
from headscope.run import Part
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel

Mode = Literal["zero", "mean", "uniform", "resample"]


@dataclass(frozen=True, eq=False)
class Reference:
    """Outputs of every head on reference prompts, for ablations that replace instead of remove.

    Attributes:
        mean: mean z over all tokens, [layer row, head, d].
        bank: z at some tokens, the same for all heads of a layer, [layer row, token, head, d].
    """

    layers: tuple[int, ...]
    mean: Float[Tensor, "layer head d"]
    bank: Float[Tensor, "layer token head d"]

    @classmethod
    def measure(
        cls, model: "HeadModel", prompts: Sequence[Prompt], size: int = 512, seed: int = 0
    ) -> "Reference":
        """Run reference prompts once.

        Args:
            prompts: prompts like those of the test in kind, and none of them.
            size: tokens kept in the bank.
        """
        if not prompts:
            raise HeadscopeError("Mean and resample ablation need at least one reference prompt.")
        kept: dict[int, list[Tensor]] = {layer: [] for layer in model.layers}

        def keep(attended: Attended) -> None:
            kept[attended.attention.layer].append(attended.z[0].transpose(0, 1).detach())

        with torch.no_grad(), model.observed(keep):
            for prompt in prompts:
                model.forward(list(prompt.token_ids), last=1)
        rows = [torch.cat(kept[layer]) for layer in model.layers]
        generator = torch.Generator().manual_seed(seed)
        some = torch.randperm(len(rows[0]), generator=generator)[:size]
        return cls(
            tuple(model.layers),
            torch.stack([z.mean(0) for z in rows]),
            torch.stack([z[some.to(z.device)] for z in rows]),
        )


@dataclass(frozen=True)
class Ablate(_InPart, _ByHead):
    """Take heads out, in one of four ways.

    "zero": z = 0. "mean": z = the head's mean over reference tokens. "resample": z = the head's
    output at a reference token drawn for each position, the same token for all heads of a layer.
    "uniform": q = 0, so that the head attends evenly to all it may see; this is what the released
    code of Wu et al. (arXiv 2404.15574) calls masking a head.

    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv 1905.10650
    (zero); Wang et al. 2022, arXiv 2211.00593 (mean); Chan et al. 2022, "Causal Scrubbing"
    (resample).

    Attributes:
        heads: (layer, head) pairs or names like "L17H3"; none of them is a no-op.
        mode: which way.
        part: rows that are ablated: of the prompt ("prefill"), of answer tokens ("decode"), those
            that produce an answer token ("answer"), or all. A whole-run ablation and one of the
            answer are different experiments: a result names its part.
        reference: what "mean" and "resample" replace z by.
    """

    paper = (
        "Wu et al. 2024, arXiv 2404.15574 (uniform); Michel et al. 2019, arXiv 1905.10650 (zero)"
    )
    mode: Mode = "zero"
    part: Part = "all"
    reference: Reference | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "mode", Mode)
        self._check_part()
        if not (self.reference is None or isinstance(self.reference, Reference)):
            raise HeadscopeError("Ablate needs reference=Reference.measure(model, prompts).")
        if self.mode in ("mean", "resample") and self.reference is None:
            raise HeadscopeError(
                f"{self.mode.capitalize()} ablation needs reference outputs: pass "
                "reference=Reference.measure(model, prompts)."
            )

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        if options.get("mode") not in ("mean", "resample") or "reference" in options:
            return options
        texts = reference_text(model.context_length, seed)
        reference = Reference.measure(model, texts.prompts(model.tokenizer))
        return {**options, "reference": reference}

    def check(self, model: "HeadModel") -> None:
        super().check(model)
        shape = (model.n_layers, model.n_heads)
        if self.reference is not None and tuple(self.reference.mean.shape[:2]) != shape:
            raise HeadscopeError(
                f"The reference outputs come from a model of {self.reference.mean.shape[0]} layers "
                f"× {self.reference.mean.shape[1]} heads, and {model.name} has {shape[0]} × "
                f"{shape[1]}."
            )

    def _edit(
        self, attention: Attention, attend: Attend, chosen: Bool[Tensor, "#batch head"]
    ) -> Attended:
        where = self._rows(attention)[:, None, :, None] & chosen[:, :, None, None]
        if self.mode == "uniform":
            return attend(attention.with_q(attention.q.masked_fill(where, 0)))
        attended = attend(attention)
        return attended.with_z(torch.where(where, self._instead(attended, where), attended.z))

    def _instead(
        self, attended: Attended, where: Bool[Tensor, "batch head query 1"]
    ) -> Float[Tensor, "..."]:
        z, attention = attended.z, attended.attention
        if self.mode == "zero":
            return torch.zeros_like(z)
        assert self.reference is not None
        row = self.reference.layers.index(attention.layer)
        if self.mode == "mean":
            return self.reference.mean[row].to(z)[None, :, None]
        bank = self.reference.bank[row].to(z)
        # Drawn by position, so that a prefill with decode steps sees what one pass would.
        drawn = (attention.query_positions.clamp(min=0) * 2654435761) % len(bank)
        return bank[drawn].transpose(1, 2)
