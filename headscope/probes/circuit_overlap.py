from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.questions import Questions
from headscope.evals.statistics import check_enough
from headscope.patched import Direction, check_gap
from headscope.probes.study import Arrays, Bill, Work, _Study
from headscope.prompts.base import Prompt, PromptFamily

if TYPE_CHECKING:
    from headscope.model import HeadModel
    from headscope.patch_runs import Pair

# What patches heads is imported where it is used: probes are read without interventions, and this
# one measures by intervening.


@dataclass(frozen=True)
class CircuitOverlap(_Study):
    """How much a head carries of two tasks at once.

    Each head is patched alone, at all positions, on pairs of a clean and a corrupt prompt. Its
    effect on a task is the mean change of the margin of right over wrong answers, divided by the
    mean gap between clean and corrupt (`headscope.patched`): 1 if the head alone makes the answer
    that of the other run ("denoising": of the clean one; "noising": of the corrupt one), 0 if it
    does nothing, below 0 where it works the other way.

    circuit_overlap = min(circuit_a, circuit_b), the smaller of a head's effects on both tasks. Its
    rows are those of the task with the smaller effect: to first order the smaller of two means
    varies as that mean does, and the mean over rows is exact. Row i of each task is its i-th pair;
    effects, ratios of means, are linearised over pairs as in `PatchMap`. The changes in nats are
    kept too, which `headscope.circuits.overlap_of` tests: it says which heads make up either
    circuit, how many are in both, and how many chance would give.

    Source: after Merullo, Eickhoff & Pavlick 2023, "Circuit Component Reuse Across Tasks in
    Transformer Language Models", arXiv 2310.08744. They find circuits in GPT-2 medium by path
    patching and report about 78 % of heads in common between IOI and colored objects. Patching
    outputs instead, and the score, are headscope's own choice.

    Attributes:
        direction: "denoising" finds heads that suffice, "noising" heads that are needed.
        prompts: questions of two evals with corrupt prompts, as many of each.
    """

    paper = "after Merullo et al. 2023, arXiv 2310.08744"
    scores = {  # noqa: RUF012
        "circuit_a": "effect on the first task, 1 for all of the gap",
        "circuit_b": "effect on the second task, 1 for all of the gap",
        "circuit_a_change": "change of the first task's margin, in nats",
        "circuit_b_change": "change of the second task's margin, in nats",
    }
    # 12 pairs of each: of fewer, no p could be small enough for a few heads among hundreds.
    prompts: PromptFamily = field(
        default_factory=lambda: Questions(tasks=("ioi", "colored_objects"), samples=24)
    )
    direction: Direction = "denoising"

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise HeadscopeError(
                "the probe 'circuit_overlap' needs the direction 'denoising' or 'noising', not "
                f"{self.direction!r}."
            )

    def check_prompts(self, model: "HeadModel", prompts: Sequence[Prompt]) -> None:
        family = self.prompts
        if not isinstance(family, Questions) or len(set(family.tasks)) != 2:
            raise HeadscopeError(
                "the probe 'circuit_overlap' compares two tasks; give it Questions of two evals "
                "with clean and corrupt prompts, such as 'ioi' and 'colored_objects'."
            )
        if len(family.tasks) != 2 or len(prompts) % 2:
            raise HeadscopeError(
                "the probe 'circuit_overlap' needs as many pairs of both tasks, and there are "
                f"{len(prompts)} questions; ask for an even number of samples."
            )
        try:
            check_enough(len(prompts) // 2)
            self._pairs(model)
        except HeadscopeError as error:
            raise HeadscopeError(f"the probe 'circuit_overlap' takes pairs: {error}") from error

    def bill(self, model: "HeadModel", prompts: Sequence[Prompt]) -> Bill:
        pairs = [pair for each in self._pairs(model) for pair in each]
        runs = len(model.heads) + 1
        passes = sum(runs * len(pair.feeds) for pair in pairs)
        tokens = sum(
            runs * sum(len(pair.item.prompt) - pair.shared + len(feed) for feed in pair.feeds)
            for pair in pairs
        )
        return Bill(passes, 0, round(tokens / passes))

    def study(
        self, model: "HeadModel", prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        from headscope.patch_map import PatchMap
        from headscope.patching import begun, one_pair

        assert isinstance(self.prompts, Questions)
        tasks, pairs = self.prompts.evals(), self._pairs(model)
        for task, each in zip(tasks, pairs, strict=True):
            # Before hours of patching: a pair's own runs are two passes.
            gap = np.array([clean - corrupt for clean, corrupt in (p.gap(model) for p in each)])
            try:
                check_gap(model.name, task.name, gap)
            except HeadscopeError as error:
                raise HeadscopeError(f"the probe 'circuit_overlap' stops: {error}") from error
        sets = [(head,) for head in model.heads]

        def make(index: int) -> Arrays:
            pair = pairs[index % 2][index // 2]
            clean, corrupt, patched = one_pair(model, pair, self.direction, sets)
            return {"gap": np.array([clean, corrupt]), "patched": np.array(patched)}

        parts = work.each(len(prompts), make)
        scores: dict[str, np.ndarray] = {}
        for i, side in enumerate("ab"):
            found = begun(PatchMap, model, tasks[i], pairs[i], self.direction, sets, 0, "")
            for part in parts[i::2]:
                clean, corrupt = part["gap"].tolist()
                found.add(clean, corrupt, part["patched"].tolist())
            scores[f"circuit_{side}"] = found.effects()
            scores[f"circuit_{side}_change"] = found.changes()
        a, b = scores["circuit_a"], scores["circuit_b"]
        scores["circuit_overlap"] = np.where(a.mean(0) <= b.mean(0), a, b)
        shape = -1, model.n_layers, model.n_heads
        return {name: torch.from_numpy(each.reshape(shape)) for name, each in scores.items()}

    def _pairs(self, model: "HeadModel") -> list[list["Pair"]]:
        """Pairs of each task.

        Raises:
            HeadscopeError: a task makes none, or they do not fit.
        """
        from headscope.patch_runs import pairs_of

        assert isinstance(self.prompts, Questions)
        return [pairs_of(model, task) for task in self.prompts.evals()]
