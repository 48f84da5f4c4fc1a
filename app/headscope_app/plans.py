"""What is asked of the planner, and what it answers."""

from dataclasses import dataclass
from typing import Literal

BudgetOf = Literal["density", "kv"]
Granularity = Literal["kv_head", "head"]


@dataclass(frozen=True)
class Source:
    """What plans can be made of.

    Attributes:
        key: by which a page names it.
        kind: "losses" were measured under rules, a "score" of the run stands for them, a "profile"
            is planned already.
        name: for people.
        rules: that were measured, of losses.
        lengths: of the prompts that they were measured on, in tokens.
        losses: what was measured, by name.
        problem: why it cannot be used; "" if it can.
    """

    key: str
    kind: Literal["losses", "score", "profile"]
    name: str
    rules: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    losses: tuple[tuple[str, str], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Request:
    """A plan that is wanted.

    Attributes:
        run: id of the run.
        source: key of what it is made of.
        kind, share: the budget, a share of computed pairs ("density") or of KV bytes ("kv").
        n: tokens that costs are given for; of a score also those that the budget is met at.
        granularity: what gets a rule of its own.
        rules: of those that were measured, the ones to choose among; all if empty.
        loss: by which is planned; the best that was measured if empty.
        sink, window: of the streaming rule, of a plan by a score.
    """

    run: str
    source: str
    kind: BudgetOf = "kv"
    share: float = 0.5
    n: int = 4096
    granularity: Granularity = "kv_head"
    rules: tuple[str, ...] = ()
    loss: str = ""
    sink: int = 4
    window: int = 512


@dataclass(frozen=True)
class Speed:
    """See `headscope_app.speeds.Speed`."""

    phase: Literal["prefill", "decode"]
    limit: float | None
    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class Timed:
    """The share of attention's time that is left, as measured beside the run.

    Attributes:
        where: on which device, in which numbers.
    """

    phase: Literal["prefill", "decode"]
    share: float
    where: str


@dataclass(frozen=True)
class Planned:
    """A profile and what it would cost.

    Attributes:
        profile: as JSON, as `SparseProfile.save` writes it.
        rules: the different ones, in words.
        shares: of each rule, the share of computed pairs; None where the text decides it.
        grid: [layer][query head] indices into them.
        layers, n_kv_heads: of the model.
        n: tokens that all costs are of.
        density: share of computed pairs; None where the text decides it.
        held: share of the keys and values that are held.
        kv_bytes, full_bytes: of keys and values in 2-byte numbers, with and without the profile.
        speeds: by benches of kernels.
        timed: by costs that were measured beside the run, where they are of these rules and n.
        lost, bound: summed loss, and the least that any plan could have; None where nothing was
            measured.
        sentences: what was planned and by what.
    """

    profile: str
    rules: tuple[str, ...]
    shares: tuple[float | None, ...]
    grid: tuple[tuple[int, ...], ...]
    layers: tuple[int, ...]
    n_kv_heads: int
    n: int
    density: float | None
    held: float
    kv_bytes: int
    full_bytes: int
    speeds: tuple[Speed, ...]
    timed: tuple[Timed, ...]
    lost: float | None
    bound: float | None
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A format, seen from one profile.

    Attributes:
        loads, loses, told: what loads it, what is different there, what to pass along.
        refused: why it cannot say this profile; "" if it can.
        merged: what giving each KV head one rule costs, where that is needed.
    """

    name: str
    granularity: str
    files: tuple[str, ...]
    loads: str
    loses: str
    told: str
    refused: str
    merged: str
