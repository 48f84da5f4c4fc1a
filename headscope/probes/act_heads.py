from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.questions import Questions
from headscope.evals.statistics import check_enough
from headscope.heads import Head
from headscope.probes.study import Arrays, Bill, Work, _Study
from headscope.prompts.base import Prompt, PromptFamily

if TYPE_CHECKING:
    from headscope.evals.base import Item
    from headscope.model import HeadModel

# ACT is imported where it is used: probes are read without interventions, and this one measures by
# intervening.


@dataclass(frozen=True)
class ActHeads(_Study):
    """What calibrating a head's attention sinks does to the answers: ACT's offline selection.

    act_heads = mean over questions of y(calibrated) - y(as it is), in nats, with ACT acting on that
    head alone (`headscope.interventions.act`) and y the margin of right over wrong answers (of an
    eval without a choice: the log-probability of the answer). Above 0 where calibrating helps.

    - act_exact = change of the share of right answers, in [-1, 1];
    - act_tried = share of the questions on which the head was calibrated, in [0, 1];
    - act_sinks = attention on what ACT takes from, the head's sinks but the first, mean over the
      rows of the prompt, in [0, 1].

    A head without such sinks on a question is left as it is by ACT, so that its change is 0 without
    a pass. With `most`, only so many heads are tried: those with the most attention on such sinks
    over all questions. The others have a change of 0 and act_tried = 0, also where they have sinks.

    `headscope.evals.act_heads.selected` names the heads that help at a rate of false discoveries,
    from the rows of this score.

    Source: Yu et al. 2024, "Unveiling and Harnessing Hidden Attention Sinks", arXiv 2406.15765,
    section 4, which calibrates each head alone and keeps those that raise accuracy. The change in
    nats, its test, and trying only the heads with most on hidden sinks are headscope's own, as are
    the questions.

    Attributes:
        beta, threshold, first_receives, skip: as in `ACT`.
        most: how many heads are tried; all of them if None.
    """

    paper = "Yu et al. 2024, arXiv 2406.15765"
    scores = {  # noqa: RUF012
        "act_exact": "change of the share of right answers",
        "act_tried": "share of the questions on which the head was calibrated",
        "act_sinks": "attention on the head's sinks but the first",
    }
    prompts: PromptFamily = field(
        default_factory=lambda: Questions(tasks=("single_fact", "colored_objects"), samples=24)
    )
    beta: float = 0.4
    threshold: float = 0.1
    first_receives: bool = True
    skip: int = 2
    most: int | None = 24

    def __post_init__(self) -> None:
        few = self.most is not None and self.most < 1
        if not (0 <= self.beta <= 1 and 0 <= self.threshold <= 1) or self.skip < 0 or few:
            raise HeadscopeError(
                "the probe 'act_heads' needs beta and threshold from 0 to 1, skip >= 0 and most >= "
                f"1 or None, not beta={self.beta}, threshold={self.threshold}, skip={self.skip}, "
                f"most={self.most}."
            )

    def check_model(self, model: "HeadModel") -> None:
        if self.skip > model.layers[-1]:
            raise HeadscopeError(
                f"the probe 'act_heads' would skip all {model.n_layers} layers of {model.name}; "
                "use a smaller skip."
            )

    def check_prompts(self, model: "HeadModel", prompts: Sequence[Prompt]) -> None:
        from headscope.evals.measured import items_of

        if not isinstance(self.prompts, Questions):
            raise HeadscopeError(
                "the probe 'act_heads' needs questions with answers; give it Questions of some "
                "evals, such as 'single_fact'."
            )
        tasks = self.prompts.evals()
        running = next((task.name for task in tasks if task.metric == "tokens"), None)
        if running is not None:
            raise HeadscopeError(
                f"the probe 'act_heads' needs answers that can be right, and {running!r} is "
                "running text; use another eval."
            )
        try:
            check_enough(len(prompts))
            for task in tasks:
                items_of(model, task)
        except HeadscopeError as error:
            raise HeadscopeError(f"the probe 'act_heads' asks questions: {error}") from error

    def bill(self, model: "HeadModel", prompts: Sequence[Prompt]) -> Bill:
        allowed = model.n_heads * sum(layer >= self.skip for layer in model.layers)
        heads = allowed if self.most is None else min(self.most, allowed)
        items = self._items(model)
        tokens = [
            len(item.prompt)
            * len({a[:-1] for a in (item.prompt.answer_ids, *item.right, *item.wrong)})
            for item in items
        ]
        also = "fewer where a head has no hidden sink on a question"
        return Bill(len(items) * (2 + heads), 0, round(float(np.mean(tokens))), also)

    def study(
        self, model: "HeadModel", prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        from headscope.evals.calibrating import answered, hidden_mass
        from headscope.interventions.act import ACT

        items = self._items(model)
        plain: list[Arrays] = []
        for index, item in enumerate(items):
            work.at(index, len(items))
            part = work.kept(f"plain-{index}")
            if part is None:
                mass = hidden_mass(model, item.prompt, self.threshold).double().numpy()
                part = {"mass": mass, "said": np.array(answered(model, item))}
                work.keep(f"plain-{index}", part)
            plain.append(part)
        mass = np.stack([part["mass"] for part in plain])
        jobs = [
            (index, row, head)
            for row, head in self._candidates(model, mass.mean(0))
            for index in range(len(items))
            if mass[index, row, head] > 0
        ]

        def make(number: int) -> Arrays:
            index, row, head = jobs[number]
            method = ACT(
                heads=((model.layers[row], head),), beta=self.beta, threshold=self.threshold,
                first_receives=self.first_receives, skip=self.skip,
            )  # fmt: skip
            return {"said": np.array(answered(model, items[index], method))}

        change, exact, tried = (np.zeros_like(mass) for _ in range(3))
        for at, part in zip(jobs, work.each(len(jobs), make), strict=True):
            change[at], exact[at] = part["said"] - plain[at[0]]["said"]
            tried[at] = 1
        found = {"act_heads": change, "act_exact": exact, "act_tried": tried, "act_sinks": mass}
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def _candidates(self, model: "HeadModel", mass: Float[np.ndarray, "layer head"]) -> list[Head]:
        """(row of the map, head) of the heads to try, most attention on hidden sinks first."""
        allowed = [
            (row, head)
            for row, layer in enumerate(model.layers)
            for head in range(model.n_heads)
            if layer >= self.skip and mass[row, head] > 0
        ]
        return sorted(allowed, key=lambda at: (-mass[at], at))[: self.most]

    def _items(self, model: "HeadModel") -> list["Item"]:
        assert isinstance(self.prompts, Questions)
        return self.prompts.items(model.tokenizer)
