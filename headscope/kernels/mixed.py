"""One layer's attention where heads see different keys: whole heads beside all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.edits import kept_on
from headscope.kernels import dense, launch
from headscope.kernels.choice import on_its_device
from headscope.kernels.chosen import Chosen
from headscope.kernels.heads import as_slice, even
from headscope.kernels.plan import Chooser, Plan, Text, plan
from headscope.kernels.tiles import Reach
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full

Dispatch = Literal["auto", "hybrid", "single"]

# From how many tokens on heads that see everything get a launch of their own: the least that was
# measured on an H100 and where it paid (benchmarks/results/kernels_prefill.txt), 8 192 where they
# stand at even distances and 32 768 where they do not, so that they are copied.
_APART, _APART_UNEVEN = 8192, 32768
# From how many tokens on ours goes ahead of the dense kernel. Before, programs of the dense one are
# the long ones, and short ones fill what they leave; of longer texts, what is left of a dense
# kernel at its end is little, and 7 of 8 KV heads streaming took 9 % less at 65 536.
_OURS_AHEAD = 65536


@dataclass(frozen=True)
class Ran:
    """How an attention was computed.

    Attributes:
        dispatch: "hybrid": heads that see everything on a dense kernel, the others on headscope's
            beside it; "single": all in one launch of headscope's; "dense": all on a dense kernel.
        dense: which dense kernel; None where there is none.
        programs: of headscope's launch.
    """

    dispatch: Literal["hybrid", "single", "dense"]
    dense: dense.Dense | None
    programs: int


@dataclass(frozen=True)
class Case:
    """What a plan is made for, all of it known without asking the device.

    Attributes:
        heads: what each query head sees.
        texts: the sequences of the batch.
        reach: what the layer hides whatever a head sees.
        shape: batch, query heads, KV heads, queries, keys and the width of a head.
        softcap: whether logits are capped.
        packed: keys of other texts may follow those of a text.
        dispatch: "auto" takes "hybrid" where that was faster.
        device: of the tensors.
    """

    heads: tuple[Pattern | Chooser, ...]
    texts: tuple[Text, ...]
    reach: Reach
    shape: tuple[int, int, int, int, int, int]
    softcap: bool
    packed: bool
    dispatch: Dispatch
    device: torch.device


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is known before the first launch; kept for every later one of the same case.

    Attributes:
        plan: of headscope's launch.
        whole: heads that go to a dense kernel, in parts that each are one launch of it.
        covered: every row of the output belongs to a text.
        packed: as in `Case`.
    """

    plan: Plan
    whole: tuple[tuple[int, ...], ...]
    covered: bool
    packed: bool = False


@lru_cache(maxsize=128)
def prepare(case: Case) -> Prepared:
    """Decide which heads go where, and plan the launch of the rest."""
    batch, _, n_kv, queries, _, _ = case.shape
    group = len(case.heads) // n_kv
    whole = [head for head, sees in enumerate(case.heads) if sees == Full()]
    if case.dispatch == "single" or not _dense_takes(case) or not _apart(case, whole):
        whole = []
    jobs = tuple((head, sees) for head, sees in enumerate(case.heads) if head not in set(whole))
    rows = {text.batch for text in case.texts if text.span.queries == queries}
    return Prepared(
        plan=plan(jobs, case.texts, case.reach, case.device),
        whole=tuple(map(tuple, even(whole, group))),
        covered=len(rows) == batch,
        packed=case.packed,
    )


@on_its_device
def attend(
    q: Float[Tensor, "batch head query d"],
    k: Float[Tensor, "batch kv_head key d"],
    v: Float[Tensor, "batch kv_head key d"],
    ready: Prepared,
    scale: float,
    softcap: float | None = None,
    chosen: Chosen | None = None,
    with_lse: bool = True,
) -> tuple[Float[Tensor, "batch head query d"], Float[Tensor, "batch head query"] | None, Ran]:
    """z, lse and how they came about. Rows that belong to no text are 0, with an lse of -inf.

    Args:
        ready: what `prepare` made of the case.
        chosen: the selections that choosers of the case refer to.
        with_lse: dense kernels take 1 to 3 % longer with it; None is given where it is not wanted.
    """
    which = dense.fastest(q, k, v) if ready.whole else None
    if which is not None and len(ready.plan.programs) == 0:
        z, lse = dense.causal(which, q, k, v, scale, with_lse)
        return z, lse, Ran("dense", which, 0)
    z = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = z.new_empty(z.shape[:3], dtype=torch.float32)
    if not ready.covered:
        z.zero_()
        lse.fill_(-torch.inf)
    programs = len(ready.plan.programs)
    group = q.shape[1] // k.shape[1]

    def ours() -> None:
        launch.run(ready.plan, chosen, q, k, v, z, lse, scale, softcap, ready.packed)

    def whole(which: dense.Dense) -> None:
        for heads in ready.whole:
            index, kv = _index(heads, q.device), _index(_read_by(heads, group), q.device)
            done, its = dense.causal(which, q[:, index], k[:, kv], v[:, kv], scale, with_lse)
            z[:, index] = done
            if its is not None:
                lse[:, index] = its

    if which is None:
        ours()
        return z, lse if with_lse else None, Ran("single", None, programs)
    main, ahead = torch.cuda.current_stream(q.device), _ahead(q.device)
    ahead.wait_stream(main)
    try:
        if q.shape[2] < _OURS_AHEAD:
            ours()
            with torch.cuda.stream(ahead):
                whole(which)
        else:
            with torch.cuda.stream(ahead):
                ours()
            whole(which)
    finally:  # also where memory was short, so that nothing is given back while it is written
        main.wait_stream(ahead)
    return z, lse if with_lse else None, Ran("hybrid", which, programs)


def _read_by(heads: tuple[int, ...], group: int) -> tuple[int, ...]:
    """The KV heads that some query heads read."""
    return tuple(dict.fromkeys(head // group for head in heads))


def _dense_takes(case: Case) -> bool:
    """Whether heads that see everything are what dense kernels call causal attention."""
    batch, _, _, queries, keys, _ = case.shape
    plain = not case.softcap and case.reach == Reach() and case.device.type == "cuda"
    return (
        plain
        and len(case.texts) == batch
        and all(
            text.query == text.key == 0
            and text.span.first == text.span.lowest
            and text.span.queries == text.span.keys == queries == keys
            for text in case.texts
        )
    )


def _apart(case: Case, whole: Sequence[int]) -> bool:
    """Whether a dense kernel for the whole heads was faster than a place in our launch."""
    if case.dispatch == "hybrid" or len(whole) == len(case.heads):
        return True
    group = len(case.heads) // case.shape[2]
    parts = [tuple(part) for part in even(whole, group)]
    cut = [heads for part in parts for heads in (part, _read_by(part, group))]
    plain = len(parts) == 1 and all(isinstance(_index(x, case.device), slice) for x in cut)
    return case.shape[3] >= (_APART if plain else _APART_UNEVEN)


@lru_cache(maxsize=16)
def _ahead(device: torch.device) -> torch.cuda.Stream:
    """A stream whose programs begin before others that wait."""
    return torch.cuda.Stream(device, priority=-1)


def _index(heads: tuple[int, ...], device: torch.device) -> "slice | Tensor":
    """Some heads as what cuts them out."""
    even_slice = as_slice(heads)
    return kept_on(heads, torch.long, device) if even_slice is None else even_slice
