from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.patterns.streaming import Streaming
from headscope.probes.base import KvView
from headscope.probes.gate_training import GateTraining, Recipe
from headscope.probes.gradients import need_gradients
from headscope.probes.study import Bill, Work, _Study, check_loss, mean_tokens
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.passkeys import Passkeys

_KEPT_EVERY = 5  # steps


@dataclass(frozen=True)
class DuoGate(_Study):
    """How much of its full attention a KV head needs, by a gate that is trained.

    Two copies of a prompt and its answer go through the model as one batch. The first is the model
    as it is; in the second every KV head gives alpha * (the first copy's output) + (1 - alpha) *
    (its own output from the first `sink` tokens and the last `window` ones). With H the final
    hidden states, normalised as the unembedding reads them, at the rows that make the answer (all
    of it: a prompt asks for all of its passkeys), the gates alone are trained to minimise

        mean over rows of |H_first - H_second|^2 / |H_first|^2 + reg_weight * mean |alpha|

    from alpha = 1, clamped to [0, 1] after each step. score = alpha of the head's KV head at the
    end; one row for each of `repeats`, which differ in the order of prompts. In models with grouped
    heads gates are not two-peaked: of the released ones half lie above 0.95. A gate ranks KV heads,
    and 0.5 is no threshold there.

    Source: Xiao et al. 2024, "DuoAttention", arXiv 2410.10819, sections 2.2 and 3, and its code:
    2 000 steps of AdamW without weight decay, lr 0.02 with a fifth of the steps to warm up and to
    cool down, reg_weight 0.05, sink 128, window 256, prompts of 1 000 to 32 000 tokens with ten
    passkeys of 32 words; its loss is the mean of (H_first - H_second)^2 over the rows that read the
    ten questions and answers, and over dimensions. headscope's own: the division by the mean of
    H_first^2, without which reg_weight would mean something else in each model; one question, the
    rows of whose answer are shifted by one to those that make it; five passkeys of four words in
    shorter prompts, with a sink and a window as much shorter, and fewer steps of a higher lr, so
    that a small model takes minutes on two cores.

    Attributes:
        sink, window: tokens that the streaming branch sees.
        steps: of training, one prompt each.
        lr: of Adam, at its highest.
        reg_weight: of the mean gate, in shares of the answer's squared hidden states.
        repeats: trainings, each with another order of the prompts.
        seed: of those orders.
    """

    paper = "Xiao et al. 2024, arXiv 2410.10819"
    kv_view: ClassVar[KvView] = "native"
    answers = "trains on the rows that make an answer"
    prompts: PromptFamily = field(
        default_factory=lambda: Passkeys(samples=32, lengths=(320, 448), every=True)
    )
    sink: int = 16
    window: int = 64
    steps: int = 128
    lr: float = 0.05
    reg_weight: float = 0.05
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sink < 0 or min(self.window, self.repeats) < 1 or self.steps < 2:
            raise HeadscopeError(
                "The probe 'duo_gate' needs a sink of 0 or more, a window and repeats of 1 or "
                "more, and at least 2 steps."
            )
        # Gates start where the full copy is met: without a price on them none would ever move.
        for name, value in (("lr", self.lr), ("reg_weight", self.reg_weight)):
            if not 0 < value < float("inf"):
                raise HeadscopeError(f"The probe 'duo_gate' needs {name} above 0, not {value}.")

    def check_model(self, model: HeadModel) -> None:
        need_gradients(self.name, model)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) <= self.sink + self.window:
            raise HeadscopeError(
                f"the probe 'duo_gate' compares full attention with {self.sink} + {self.window} "
                f"tokens, which hide nothing in a prompt of {len(prompt)}; use longer prompts, or "
                "a smaller sink and window."
            )

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        passes = 2 * self.steps * self.repeats
        also = "what a backward pass keeps of two prompts"
        return Bill(passes, passes, mean_tokens(prompts, answered=True), also)

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        group = model.n_heads // model.n_kv_heads
        rows = []
        for repeat in range(self.repeats):
            first = repeat * self.steps

            def at(step: int, first: int = first) -> None:
                work.at(first + step, self.repeats * self.steps)

            state = work.kept(f"repeat-{repeat}")
            training = GateTraining(model, self._recipe(repeat), prompts, state)
            rows.append(self._trained(training, work, f"repeat-{repeat}", at))
        return {self.name: torch.stack(rows).repeat_interleave(group, 2)}

    def _recipe(self, repeat: int) -> Recipe:
        pattern = Streaming(self.sink, self.window)
        return Recipe(pattern, self.steps, self.lr, self.reg_weight, self.seed + repeat)

    def _trained(
        self, training: GateTraining, work: Work, name: str, at: Callable[[int], None]
    ) -> Float[Tensor, "layer kv_head"]:
        what = "the loss of its gates"
        for step in range(training.done, self.steps):
            at(step)
            training.step()
            check_loss(self.name, training.losses, what, "use a smaller lr", fall=False)
            if (step + 1) % _KEPT_EVERY == 0 or step + 1 == self.steps:
                work.keep(name, training.state())
        at(self.steps)
        check_loss(self.name, training.losses, what, "use more steps or another lr")
        return training.gates.detach().cpu()
