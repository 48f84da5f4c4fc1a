"""Training DuoAttention's gates: a full and a mixed copy of a prompt in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.patterns.base import Pattern
from headscope.probes.gradients import frozen
from headscope.prompts.base import Prompt
from headscope.stack import Attend, Middleware

_WARM = 5  # a fifth of the steps, as in the paper's code
_LEAST = 0.1  # of the lr, at both ends


@dataclass(frozen=True)
class Recipe:
    """How gates are trained; see the probe `duo_gate`."""

    pattern: Pattern
    steps: int
    lr: float
    reg_weight: float
    seed: int

    def factor(self, step: int) -> float:
        """The share of the lr at a step: up, level, down."""
        warm = max(1, self.steps // _WARM)
        up, down = max((step + 1) / warm, _LEAST), max((self.steps - step) / warm, _LEAST)
        return min(1.0, up, down)

    def chosen(self, step: int, prompts: int) -> int:
        """The prompt of a step: all of them in a random order, then all again in another."""
        rounds, place = divmod(step, prompts)
        return int(np.random.default_rng((self.seed, rounds)).permutation(prompts)[place])


class GateTraining:
    """Gates on their way.

    Attributes:
        gates: [layer, kv_head].
        losses: one for each step that is over.
    """

    def __init__(
        self,
        model: HeadModel,
        recipe: Recipe,
        prompts: Sequence[Prompt],
        state: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.model, self.recipe, self.prompts = model, recipe, prompts
        start = np.ones((model.n_layers, model.n_kv_heads), dtype=np.float32)
        gates = torch.from_numpy((start if state is None else state["gates"]).copy())
        self.gates = gates.to(model.device).requires_grad_(True)
        self.losses: list[float] = [] if state is None else state["losses"].tolist()
        self._adam = torch.optim.Adam([self.gates], lr=recipe.lr)
        if state is not None:
            self._adam.state[self.gates] = {
                "step": torch.tensor(float(self.done)),
                "exp_avg": torch.from_numpy(state["mean"].copy()).to(model.device),
                "exp_avg_sq": torch.from_numpy(state["square"].copy()).to(model.device),
            }

    @property
    def done(self) -> int:
        """Steps that are over."""
        return len(self.losses)

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on."""
        moments = self._adam.state[self.gates]
        return {
            "gates": self.gates.detach().cpu().numpy(),
            "mean": moments["exp_avg"].cpu().numpy(),
            "square": moments["exp_avg_sq"].cpu().numpy(),
            "losses": np.array(self.losses, dtype=np.float64),
        }

    def step(self) -> None:
        """One step on one prompt; gates stay as they are where its loss or a slope is no number."""
        prompt = self.prompts[self.recipe.chosen(self.done, len(self.prompts))]
        with frozen(self.model):
            missed = self._distillation(prompt).to(self.gates.device)
            loss = missed + self.recipe.reg_weight * self.gates.abs().mean()
            (self.gates.grad,) = torch.autograd.grad(loss, [self.gates])
        if not bool(self.gates.grad.isfinite().all()):
            loss = torch.full_like(loss, torch.nan)
        if bool(loss.isfinite()):
            for each in self._adam.param_groups:
                each["lr"] = self.recipe.lr * self.recipe.factor(self.done)
            self._adam.step()
            with torch.no_grad():
                self.gates.clamp_(0, 1)
        self.losses.append(float(loss.detach()))

    def _distillation(self, prompt: Prompt) -> Float[Tensor, ""]:
        """Mean share of the full copy's squared hidden states that the mixed copy misses."""
        ids = torch.tensor([*prompt.token_ids, *prompt.answer_ids[:-1]])
        rows = torch.arange(len(prompt) - 1, len(ids))
        full, mixed = self._hidden(ids.expand(2, -1), rows)
        full = full.detach()
        return ((full - mixed).square().sum(-1) / full.square().sum(-1)).mean()

    def _hidden(
        self, ids: Int[Tensor, "2 token"], rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "2 row model"]:
        read: list[Tensor] = []

        def keep(module: nn.Module, args: object, out: Tensor) -> None:
            read.append(out[:, rows.to(out.device)].float())

        handle = self.model.final_norm.register_forward_hook(keep)
        try:
            with self.model.entered(self._mixing()):
                self.model.forward(ids, last=1)
        finally:
            handle.remove()
        return read[0]

    def _mixing(self) -> Middleware:
        places = {layer: row for row, layer in enumerate(self.model.layers)}

        def around(attention: Attention, attend: Attend) -> Attended:
            with torch.no_grad():
                full = attend(attention.batch_row(0)).z
            streaming = attend(attention.batch_row(1).with_pattern(self.recipe.pattern)).z
            gates = self.gates[places[attention.layer]].to(full.device)
            alpha = gates.repeat_interleave(attention.group)[:, None, None]
            mixed = alpha * full.float() + (1 - alpha) * streaming.float()
            return Attended(torch.cat((full, mixed.to(full.dtype))), attention)

        return around
