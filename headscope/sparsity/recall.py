"""How much of each head's attention a rule keeps, and what leaving out the rest does."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel, check_opened
from headscope.patterns.rules import Rule
from headscope.probes.gradients import differentiated, need_gradients
from headscope.prompts.base import Prompt, PromptFamily, has_lengths, with_lengths
from headscope.prompts.needle import Needle
from headscope.runinfo import versions
from headscope.sparsity.candidates import default_rules, distinct
from headscope.sparsity.losses import losses
from headscope.sparsity.profile import ProfiledModel
from headscope.sparsity.recalls import Loss, Measurement, Recalls, Rows
from headscope.written import Writes, head_writes

Progress = Callable[[str, int, int], None]  # what, prompts done, prompts in all

_MOST_ROWS = 64  # of a prompt whose rows all count
_ALIKE = 1.1  # prompts that are no longer than this many times the shortest are of one length


def measure_recall(
    model: HeadModel,
    rules: Sequence[Rule] | None = None,
    prompts: PromptFamily | Sequence[Prompt] | None = None,
    *,
    lengths: Sequence[int] | None = None,
    samples: int | None = None,
    rows: Rows = "answer",
    answer: bool | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Recalls:
    """Measure what every rule would keep of every query head's attention, in one pass a prompt.

    With A the head's attention without a rule, z its output, z' its output under the rule:

    - "recall": the sum of A over the keys that the rule keeps, the mean over rows; in [0, 1]. A
      learned sink stays in the softmax, and its share counts as kept.
    - "output": |(z' - z) W_O|^2 / |sum over the layer's heads of z W_O|^2, the mean over the same
      rows. Left out where z does not reach the residual stream through W_O alone.
    - "answer": sum over all rows of (dL/dz . (z' - z))^2, in nats², L the log-likelihood of the
      answer: what cutting a row does to the answer, to first order.

    Rules are resolved on the model's own queries and keys, the answer's among them: a selector that
    goes by a prompt's last rows goes by those of prompt and answer here. Memory grows with the
    number of keys; time, of "answer" and of selectors, with its square.

    Args:
        rules: what heads may be given; `default_rules` of the lengths if left out.
        prompts: a family, or prompts of one's own; needle prompts if left out.
        lengths: of the family's prompts in tokens; those of its own that fit if left out.
        samples: prompts of the family.
        rows: "answer" are those that produce the answer's tokens, which are given (teacher
            forcing); "all" are 64 evenly spaced ones of prompt and answer, all of fewer.
        answer: whether to measure the loss "answer", which takes a backward pass; if left out,
            where prompts have answers and a gradient reaches the heads.
        out: a file to save to after every prompt; a measurement that was cut off goes on there.
        progress: called with ("losses", prompts done, prompts in all).

    Raises:
        HeadscopeError: no prompts or rules, a prompt does not fit or has no answer where one is
            needed, no gradient reaches the heads, or `out` holds something else.

    Source: recall of attention under a pattern, MInference (Jiang et al. 2024, arXiv 2407.02490),
    section 3.2; first-order influence on a loss, MoA (Fu et al. 2024, arXiv 2406.14909), section
    4.1. Squares summed over rows, and the share of a layer's output, are headscope's own.
    """
    check_opened(model)
    if rows not in get_args(Rows):
        raise HeadscopeError(f"Recall is measured on the rows 'answer' or 'all', not {rows!r}.")
    given = _prompts(model, prompts, lengths, samples)
    _check(model, given, rows, bool(answer))
    stand_for = _lengths(given)
    chosen = distinct(default_rules(stand_for) if rules is None else rules)
    if answer is not False:
        answer = _differentiable(model, given, answer is True)
    writes = _writes(model)
    measured: dict[Loss, bool] = {"recall": True, "output": bool(writes), "answer": answer}
    about = Measurement(
        model=ProfiledModel.of(model),
        rules=tuple(rule.to_dict() for rule in chosen),
        rows=rows,
        digests=tuple(prompt.digest for prompt in given),
        lengths=tuple(stand_for),
        losses=tuple(name for name, there in measured.items() if there),
        versions=versions(),
    )
    path = None if out is None else Path(out)
    found = _begun(about, path)
    reading = _Reading(model, chosen, rows, writes, answer)
    for index in range(found.done, len(given)):
        if progress is not None:
            progress("losses", index, len(given))
        found = found.added(reading.on(given[index]))
        if path is not None:
            found.save(path)
    if progress is not None:
        progress("losses", len(given), len(given))
    return found


def _prompts(
    model: HeadModel,
    prompts: PromptFamily | Sequence[Prompt] | None,
    lengths: Sequence[int] | None,
    samples: int | None,
) -> list[Prompt]:
    if prompts is not None and not isinstance(prompts, PromptFamily):
        if lengths is not None or samples is not None:
            raise HeadscopeError("Prompts of your own are as many and as long as they are.")
        return list(prompts)
    family = Needle() if prompts is None else prompts
    if samples is not None:
        family = dataclasses.replace(family, samples=samples)
    if lengths is None:
        lengths = own_lengths(family, model.context_length)
    if lengths:
        family = with_lengths(family, lengths)
    return family.prompts(model.tokenizer)


def own_lengths(family: PromptFamily, limit: int | None) -> tuple[int, ...]:
    """The lengths of a family's prompts, in tokens, that a context holds; none if it has none.

    Raises:
        HeadscopeError: it holds none of them.
    """
    if not has_lengths(family):
        return ()
    own: Sequence[int] = family.lengths  # pyright: ignore[reportAttributeAccessIssue]
    fitting = tuple(n for n in own if limit is None or n < limit)
    if own and not fitting:
        raise HeadscopeError(
            f"The prompts of {family.name!r} have {min(own)} tokens or more, and the model was "
            f"made for {limit}; give lengths."
        )
    return fitting


def _check(model: HeadModel, prompts: Sequence[Prompt], rows: Rows, answer: bool) -> None:
    if not prompts:
        raise HeadscopeError("Recall is measured on one prompt at least; ask for samples.")
    for prompt in prompts:
        model.check_prompt(prompt)
        if not prompt.answer_ids and (rows == "answer" or answer):
            raise HeadscopeError(
                "A prompt expects no answer, so that no rows produce one; give its 'answer', or "
                "measure with rows='all' and answer=False."
            )


def _differentiable(model: HeadModel, prompts: Sequence[Prompt], asked: bool) -> bool:
    """Whether the loss "answer" can be measured; refused where it was asked for and cannot."""
    try:
        need_gradients("recall", model)
    except HeadscopeError as error:
        if not asked:
            return False
        raise HeadscopeError(
            f"No gradient reaches the heads of {model.spec}, which the loss 'answer' needs; "
            "measure with answer=False, or open the model without quantisation."
        ) from error
    return all(prompt.answer_ids for prompt in prompts)


def _writes(model: HeadModel) -> list[Writes] | None:
    """What heads write by; None where that is no linear map of z."""
    try:
        for layer in model.layers:
            model.weights(layer).require_linear_output()
        return head_writes(model)
    except HeadscopeError:
        return None


def _lengths(prompts: Sequence[Prompt]) -> list[int]:
    """The length that each prompt stands for: the one that was asked for, or the longest of those
    that are about as long."""
    asked = [int(prompt.facts.get("length", 0) or len(prompt)) for prompt in prompts]
    found = list(asked)
    group: list[int] = []
    for index in np.argsort(asked, kind="stable").tolist():
        if group and asked[index] > _ALIKE * asked[group[0]]:
            group = []
        group.append(index)
        for member in group:
            found[member] = asked[index]
    return found


def _begun(about: Measurement, path: Path | None) -> Recalls:
    """What a file holds of this measurement, or one without any prompt yet."""
    if path is not None and path.exists():
        old = Recalls.load(path)
        if old.about.identity() != about.identity():
            raise HeadscopeError(
                f"{path} holds another measurement; choose another file, or delete this one."
            )
        return old
    shape = (0, len(about.model.layers), about.model.n_heads, len(about.rules))
    return Recalls(about, {name: np.empty(shape) for name in about.losses}, np.empty(shape))


@dataclass(frozen=True, eq=False)
class _Reading:
    """What is measured on a prompt."""

    model: HeadModel
    rules: tuple[Rule, ...]
    rows: Rows
    writes: list[Writes] | None
    answer: bool

    @torch.no_grad()
    def on(self, prompt: Prompt) -> dict[str, Float[np.ndarray, "layer head rule"]]:
        tokens = [*prompt.token_ids, *prompt.answer_ids[:-1]]
        rows = self._rows(len(prompt), len(tokens))
        layers: list[dict[str, Tensor]] = []
        if self.answer:
            for each in differentiated(self.model, prompt):
                layers.append(self._losses(each.attention, len(layers), rows, each.slope))
        else:

            def observe(attended: Attended) -> None:
                layers.append(self._losses(attended.attention, len(layers), rows, None))

            with self.model.observed(observe):
                self.model.forward(tokens, prompt_length=len(prompt), last=1)
        found = {
            name: torch.stack([layer[name] for layer in layers]).double().cpu().numpy()
            for name in layers[0]
        }
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise HeadscopeError(
                    f"The loss {name!r} of a prompt of {len(prompt)} tokens is no number; open the "
                    "model in float32 or bfloat16. What was measured before is kept."
                )
        return found

    def _rows(self, prompt: int, tokens: int) -> Int[Tensor, " row"]:
        if self.rows == "answer":
            return torch.arange(prompt - 1, tokens)
        some = min(tokens, _MOST_ROWS)
        return torch.arange(some) * (tokens - 1) // max(some - 1, 1)

    def _losses(
        self, attention: Attention, place: int, rows: Tensor, slope: Tensor | None
    ) -> dict[str, Float[Tensor, "head rule"]]:
        writes = None if self.writes is None else self.writes[place]
        return losses(attention, self.rules, rows, writes, slope)
