"""What attention under each rule takes in time, measured on a model's own device."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.kept import Resumed
from headscope.model import HeadModel, check_opened
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.runinfo import versions
from headscope.sparsity.budget import Phase
from headscope.sparsity.candidates import distinct
from headscope.sparsity.engine import attend_sparsely
from headscope.sparsity.profile import ProfiledModel

SCHEMA = 1
PHASES: tuple[Phase, ...] = ("prefill", "decode")
Progress = Callable[[str, int, int], None]


class Timed(BaseModel):
    """One length and phase.

    Attributes:
        seconds: [kind][rule] medians, of one KV head and the query heads that read it.
        spread: [kind][rule] half of the range that holds the middle half of the times, as a share
            of the median.
        residual: of each kind, how far the time of a whole layer whose KV heads take the rules in
            turn is from the sum of theirs, as a share of it: what a sum of medians cannot foretell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1)
    phase: Phase
    seconds: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    residual: tuple[float, ...]


class Costs(Resumed):
    """A table of medians: times of the reference engine by rule, length and phase.

    A table and not a line through it, so that it is exact at the lengths that a plan is made for;
    other lengths are refused. Times of KV heads are added up, which ignores that heads of one rule
    share a call; `residual` says how far a mixed layer is from that.

    Attributes:
        kinds: of each layer, which kind of attention it has (windows, chunks, learned sinks,
            soft-capping); layers of one kind take the same time.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    again: ClassVar[str] = "measure the costs again"
    what: ClassVar[str] = "other costs"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["sparse_costs"] = "sparse_costs"
    model: ProfiledModel
    device: str
    dtype: str
    threads: int
    rules: tuple[dict[str, JsonValue], ...] = Field(min_length=1)
    lengths: tuple[int, ...] = Field(min_length=1)
    repeats: int = Field(ge=1)
    kinds: tuple[int, ...] = ()
    timed: list[Timed] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Costs":
        kinds = max(self.kinds, default=-1) + 1
        shapes = {
            (len(table), *{len(row) for row in table})
            for each in self.timed
            for table in (each.seconds, each.spread)
        }
        if shapes - {(kinds, len(self.rules))}:
            raise ValueError("its times are not those of its rules")
        if any(s <= 0 for each in self.timed for row in each.seconds for s in row):
            raise ValueError("a time is not above 0")
        return self

    def identity(self) -> Any:
        return (
            self.model, self.device, self.dtype, self.threads, self.rules, self.lengths,
            self.repeats, self.versions,
        )  # fmt: skip

    def shares(
        self, model: ProfiledModel, rules: Sequence[Rule], lengths: Sequence[int], phase: Phase
    ) -> Float[np.ndarray, "length layer rule"]:
        """Times by layer and rule, as shares of what full attention takes on average.

        Raises:
            HeadscopeError: they were measured on another model, or not for these rules or lengths.
        """
        if model != self.model:
            raise HeadscopeError(
                f"The costs were measured on {self.model.name}, another model or other weights "
                f"than {model.name}; measure them on this one."
            )
        known = {repr(rule): place for place, rule in enumerate(self.rules)}
        wanted = [repr(rule.to_dict()) for rule in (*rules, Full())]
        if missing := [rule for rule in wanted if rule not in known]:
            raise HeadscopeError(f"The costs of {missing[0]} were not measured; measure them too.")
        index = [known[rule] for rule in wanted]
        found = []
        for n in lengths:
            at = next((each for each in self.timed if (each.n, each.phase) == (n, phase)), None)
            if at is None:
                there = ", ".join(str(each.n) for each in self.timed if each.phase == phase)
                raise HeadscopeError(
                    f"Costs of {n} tokens ({phase}) were not measured; there are {there}."
                )
            by_layer = np.array(at.seconds)[list(self.kinds)][:, index]
            found.append(by_layer[:, :-1] / by_layer[:, -1].mean())
        return np.stack(found)

    def table(self) -> pd.DataFrame:
        """One row for each length, phase, kind of layer and rule: seconds, spread, and residual."""
        rows = [
            {"n": each.n, "phase": each.phase, "layers": self.kinds.count(kind),
             "rule": ", ".join(f"{k}={v}" for k, v in rule.items()),
             "seconds": each.seconds[kind][place], "spread": each.spread[kind][place],
             "residual": each.residual[kind]}
            for each in self.timed
            for kind in range(len(each.seconds))
            for place, rule in enumerate(self.rules)
        ]  # fmt: skip
        return pd.DataFrame(rows)


@torch.no_grad()
def measure_costs(
    model: HeadModel,
    rules: Sequence[Rule],
    lengths: Sequence[int],
    *,
    repeats: int = 7,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Costs:
    """Time the reference engine under each rule, for one KV head and its query heads.

    Queries, keys and values are the model's own, of random tokens; "prefill" reads n tokens at
    once, "decode" one token after n. Rules that choose by content choose anew each time.

    Args:
        rules: full attention is measured with them in any case.
        lengths: in tokens.
        repeats: of each time, after two that do not count; the median is kept.
        out: a file to save to after every length; what was cut off goes on there.
        progress: called with ("costs", lengths done, lengths in all).

    Raises:
        HeadscopeError: lengths do not fit into the model, or `out` holds something else.
    """
    check_opened(model)
    chosen = distinct((*rules, Full()))
    wanted = tuple(sorted(set(lengths)))
    if not wanted or wanted[0] < 1 or wanted[-1] >= model.context_length or repeats < 1:
        raise HeadscopeError(
            f"Costs are timed at lengths from 1 to {model.context_length - 1} tokens, once or "
            f"more, not at {', '.join(map(str, wanted)) or 'none'} ({repeats} times)."
        )
    result = Costs(
        model=ProfiledModel.of(model),
        device=_device(model),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        rules=tuple(rule.to_dict() for rule in chosen),
        lengths=wanted,
        repeats=repeats,
        versions=versions(),
    )
    path = None if out is None else Path(out)
    result = result.continued(path)
    for at, n in enumerate(wanted):
        if progress is not None:
            progress("costs", at, len(wanted))
        if any(each.n == n for each in result.timed):
            continue
        kinds, read = _read(model, n)
        found = [_timed(read[phase], chosen, n, phase, repeats) for phase in PHASES]
        result = result.model_copy(update={"kinds": tuple(kinds), "timed": [*result.timed, *found]})
        if path is not None:
            result.save(path)
    if progress is not None:
        progress("costs", len(wanted), len(wanted))
    return result


def _device(model: HeadModel) -> str:
    if model.device.type != "cuda":
        return str(model.device)
    return f"{model.device}: {torch.cuda.get_device_name(model.device)}"


def _read(model: HeadModel, n: int) -> tuple[list[int], dict[Phase, list[Attention]]]:
    """The kind of each layer, and an attention of each kind by phase."""
    seen: list[Attention] = []

    def observe(attended: Attended) -> None:
        seen.append(attended.attention)

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (1, n + 1), generator=generator)
    cache = model.new_cache()
    with model.observed(observe):
        model.forward(ids[:, :n], cache=cache, last=1)
        model.forward(ids[:, n:], cache=cache, last=1)
    read: dict[Phase, list[Attention]] = {"prefill": [], "decode": []}
    order: dict[Any, int] = {}
    kinds = []
    for layer, attention in enumerate(seen[: model.n_layers]):
        sinks = attention.sink_logits is not None
        kind = (attention.window, attention.chunk, attention.softcap, sinks)
        if kind not in order:
            order[kind] = len(order)
            read["prefill"].append(attention)
            read["decode"].append(seen[model.n_layers + layer])
        kinds.append(order[kind])
    return kinds, read


def _timed(
    attentions: Sequence[Attention], rules: Sequence[Rule], n: int, phase: Phase, repeats: int
) -> Timed:
    seconds, spread, residual = [], [], []
    for attention in attentions:
        group = attention.group
        one = attention.some_heads(range(group))
        times = np.array([_times(one, [rule] * group, repeats) for rule in rules])
        medians = np.median(times, 1)
        low, high = np.quantile(times, [0.25, 0.75], axis=1)
        in_turn = [kv % len(rules) for kv in range(attention.n_kv_heads)]
        mixed = [rules[place] for place in in_turn for _ in range(group)]
        whole = float(np.median(_times(attention, mixed, repeats)))
        foretold = float(medians[in_turn].sum())
        seconds.append(tuple(medians.tolist()))
        spread.append(tuple(((high - low) / (2 * medians)).tolist()))
        residual.append((whole - foretold) / foretold)
    return Timed(
        n=n, phase=phase, seconds=tuple(seconds), spread=tuple(spread), residual=tuple(residual)
    )


def _times(attention: Attention, rules: Sequence[Rule], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats + 2):
        _wait(attention)
        start = time.perf_counter()
        attend_sparsely(attention, rules)
        _wait(attention)
        found.append(time.perf_counter() - start)
    return found[2:]


def _wait(attention: Attention) -> None:
    if attention.q.device.type == "cuda":
        torch.cuda.synchronize(attention.q.device)
