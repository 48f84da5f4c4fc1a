"""What every single head does to an eval: each ablated alone, false discoveries controlled."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.evals.evaluate import chosen_evals
from headscope.evals.gates import mean_interval
from headscope.evals.masking import check_room, masked_scores, masks_of
from headscope.evals.measured import Measured, Progress, go_through, items_of
from headscope.evals.multiplicity import benjamini_hochberg
from headscope.evals.statistics import check_enough, sign_flip_p
from headscope.heads import Head, label, selected_heads
from headscope.interventions.ablate import Mode
from headscope.kept import Resumed
from headscope.model import HeadModel, check_opened
from headscope.run import Part
from headscope.runinfo import versions

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 1


class Effects(Resumed):
    """What ablating one head after the other did to the same questions."""

    what = "other effects"
    again = "measure again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["effects"] = "effects"
    model: str
    fingerprint: str
    mode: Mode
    part: Part
    seed: int
    heads: list[tuple[int, int]]
    measured: Measured
    versions: dict[str, str]
    command: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Effects":
        if len(self.measured.scores) != len(self.heads) + 1:
            raise ValueError("its heads were not all measured")
        return self

    def identity(self) -> Any:
        measured = self.measured
        return (
            self.fingerprint, self.mode, self.part, self.heads, measured.task, measured.digests
        )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """One row for each head, the most harmful ablation first.

        Columns: name, layer, head, change (nats, see `Measured.values`) with a paired bootstrap
        interval over questions, exact (change of the share of right answers), p (two-sided sign
        flips over questions), q (Benjamini–Hochberg over all heads of the table).
        """
        changes = [self.measured.values(i + 1) - self.measured.values(0) for i in self._index]
        right = [self.measured.exact(i) for i in range(len(self.heads) + 1)]
        p = np.array([sign_flip_p(change, self.seed) for change in changes])
        rows = []
        for i, q in zip(self._index, benjamini_hochberg(p), strict=True):
            low, high = mean_interval(changes[i], self.seed)
            base, now = right[0], right[i + 1]
            exact = np.nan if base is None or now is None else float(now.mean() - base.mean())
            layer, head = self.heads[i]
            rows.append(
                {"name": label((layer, head)), "layer": layer, "head": head}
                | {"change": float(changes[i].mean()), "change.low": low, "change.high": high}
                | {"exact": exact, "p": float(p[i]), "q": float(q)}
            )
        return pd.DataFrame(rows).sort_values("change", kind="stable", ignore_index=True)

    def claim(self, level: float = 0.05) -> str:
        """One sentence: how many heads matter, at which rate of false discoveries."""
        rows = self.table()
        found = [row for row in rows.to_dict("records") if row["q"] <= level]
        names = ", ".join(f"{row['name']} {row['change']:+.2f}" for row in found[:10])
        which = f": {names}{', …' if len(found) > 10 else ''} (nats)" if found else ""
        return (
            f"Of {len(rows)} heads ablated alone ({self.mode}, rows: {self.part}), {len(found)} "
            f"change {self.measured.task} on {self.measured.done} questions at a false discovery "
            f"rate of {level:g}{which}."
        )

    @property
    def _index(self) -> range:
        if not self.measured.done:
            raise HeadscopeError("No question has been measured yet; run it first.")
        return range(len(self.heads))

    def chart(self) -> "Chart":
        """A map of what each head alone does, and the heads that matter most.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: no question has been measured yet.
        """
        from headscope.viz.figures import ablation

        return ablation(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import effects_repr

        return effects_repr(self)


def effects(
    model: HeadModel,
    task: str | Eval,
    *,
    heads: Sequence[Head | str] | None = None,
    mode: Mode = "zero",
    part: Part = "answer",
    samples: int | None = None,
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Effects:
    """Ablate every head alone and measure an eval.

    Args:
        heads: which; all of them if left out.
        mode, part: how and where, see `Ablate`. Where the answer is made, one prefill serves all
            heads; at all positions every head takes a pass of its own.
        samples, lengths, seed: of the eval's questions.
        out: a file to save to after every question; what was cut off goes on.

    Raises:
        HeadscopeError: as `validate`.
    """
    check_opened(model)
    (chosen,) = chosen_evals([task], lengths, samples, seed)
    tested = selected_heads(
        model.heads if heads is None else heads, model.layers, model.n_heads, model.name
    )
    items = items_of(model, chosen)
    check_enough(len(items), 0.95)
    result = Effects(
        model=model.name,
        fingerprint=model.fingerprint,
        mode=mode,
        part=part,
        seed=seed,
        heads=list(tested),
        measured=Measured.of(chosen, items, len(tested) + 1),
        versions=versions(),
        command=command,
    )
    path = None if out is None else Path(out)
    result = result.continued(path)
    if not result.measured.done:
        check_room(model, chosen, items, "drop")
    masks = masks_of(model, [(), *((head,) for head in tested)], mode, part, seed)
    scores = partial(masked_scores, model, masks=masks)
    go_through(result, result.measured, items, scores, path, progress)
    return result
