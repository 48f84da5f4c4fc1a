from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.norms import LayerInput, layer_inputs
from headscope.probes.study import Bill, Work, _Study
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.repeated import Repeated
from headscope.qk_maps import need_bilinear, qk_factors, singular_values


@dataclass(frozen=True)
class QkSpectrum(_Study):
    """How many directions a head's queries and keys are matched by: its QK map's effective rank.

    A head's logit for a query i and a key j, before a soft-cap, is [X_i, 1] Omega [X_j, 1]^T with
    Omega = scale * [W_Q; b_Q] [W_K; b_K]^T of d_model + 1 rows and columns, or of d_model where
    nothing has a bias. X is the residual stream normalised, with entries of mean square 1: gain,
    bias and centring of the norm before the layer are folded into W and b, so that models that
    compute the same have the same Omega. Where no such norm is found, X is the layer's input.
    With singular values sigma_1 >= sigma_2 >= ... and p_k = sigma_k / sum sigma,

        score = exp(-sum_k p_k log p_k), in [1, d_head]; 0 where Omega is 0.

    Of a rank-one map it is 1, of d equal singular values d. `qk_largest` is sigma_1, in logits for
    one unit of X along both singular vectors. `qk_top` is the share of sum sigma that is in the
    `top` largest, in (0, 1]. `qk_symmetric` is |(Omega + Omega^T) / 2|^2 / |Omega|^2 in Frobenius
    norms, in [0, 1]: 1 where queries and keys are matched by the same direction each (contents
    alike), 1/2 where those of the two sides have nothing in common, 0 where Omega is antisymmetric.
    The curve `qk_singular` is sigma in logits, largest first.

    What a bias of keys adds to all keys of a query alike is part of Omega, though no softmax sees
    it. With rotary positions Omega depends on the distance i - j; it is taken at `offset`, by
    default 0, a token's view of itself: there the rotation has no say. Weights alone are read: the
    prompts play no part, and there is one row.

    Source: Omega and its folding after Franco & Crovella 2024, arXiv 2410.00340; the effective
    rank of Roy & Vetterli 2007, "The effective rank", EUSIPCO, equations 4 to 6, with p of sigma
    and not of its square. To score heads by it, and the further scores, are headscope's own.

    Attributes:
        offset: tokens from the key to the query, 0 or more; others than 0 need rotary positions.
        top: how many singular values `qk_top` counts.
    """

    paper = "after Franco & Crovella 2024, arXiv 2410.00340; Roy & Vetterli 2007"
    scores: ClassVar[Mapping[str, str]] = {
        "qk_largest": "largest singular value of the QK map, in logits",
        "qk_top": "share of the largest singular values in the sum of all",
        "qk_symmetric": "share of the QK map that is symmetric: queries seek what keys are",
    }
    curves: ClassVar[Mapping[str, str]] = {"qk_singular": "singular value"}
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=1, block=2, times=2))
    offset: int = 0
    top: int = 4

    def __post_init__(self) -> None:
        if self.offset < 0 or self.top < 1:
            raise HeadscopeError(
                "The probe 'qk_spectrum' needs an offset of 0 or more and a top of at least 1, not "
                f"offset={self.offset}, top={self.top}."
            )

    def check_model(self, model: HeadModel) -> None:
        need_bilinear("the probe 'qk_spectrum'", model)
        kinds = {found.layer: found.rotary for found in model.backend.layers}
        for layer, rotary in kinds.items():
            if isinstance(rotary, str):
                raise HeadscopeError(
                    f"the probe 'qk_spectrum' puts the rotation into queries and keys, which layer "
                    f"{layer} does not allow ({rotary}); leave the probe out."
                )
        if self.offset and all(rotary is None for rotary in kinds.values()):
            raise HeadscopeError(
                f"the probe 'qk_spectrum' at an offset of {self.offset} is about rotary positions "
                f"(RoPE), and {model.name} has none; its QK maps are the same at every offset, so "
                "leave the offset at 0."
            )
        if self.offset >= model.context_length:
            raise HeadscopeError(
                f"the probe 'qk_spectrum' at an offset of {self.offset} is beyond the "
                f"{model.context_length} tokens of {model.name}; choose a smaller offset."
            )

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        return Bill(0, 0, 0, f"{len(model.heads)} QK maps are decomposed, no prompts are read")

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        inputs = layer_inputs(model)

        def make(index: int) -> dict[str, np.ndarray]:
            return self._layer(model, inputs[index])

        parts = work.each(len(inputs), make)
        return {
            name: torch.from_numpy(np.stack([part[name] for part in parts]))[None]
            for name in self.outputs()
        }

    def _layer(self, model: HeadModel, at: LayerInput) -> dict[str, np.ndarray]:
        factors = qk_factors(at, model.weights(at.attention.layer), self.offset)
        sigma, tiny = singular_values(factors), torch.finfo(torch.float64).tiny
        some, size = sigma[:, 0] > 0, sigma.square().sum(-1)
        p = sigma / sigma.sum(-1, keepdim=True).clamp(min=tiny)
        rank = torch.special.entr(p).sum(-1).exp() * some
        found = {
            self.name: rank,
            "qk_largest": sigma[:, 0],
            "qk_top": p[:, : self.top].sum(-1),
            "qk_symmetric": (1 + factors.symmetry / size.clamp(min=tiny)) / 2 * some,
            "qk_singular": sigma,
        }
        return {name: value.float().cpu().numpy() for name, value in found.items()}
