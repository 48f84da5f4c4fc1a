"""The passes of path patching: a run is kept, one head of it is changed, what others get is put."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.evals.base import TokenIds
from headscope.heads import Head
from headscope.interventions.patch import Outputs, Patch
from headscope.model import HeadModel
from headscope.patch_runs import Lane, Pair, Said
from headscope.patched import Direction
from headscope.stack import Attend

Input = Literal["q", "k", "v"]


class Entry(NamedTuple):
    """Where a path ends: q of a query head, or k or v of a kv_head."""

    layer: int
    part: Input
    index: int


class Path(NamedTuple):
    """A sender, and what it is let to change: an entry, or the logits (None)."""

    sender: Head
    entry: Entry | None


@torch.no_grad()
def along_paths(
    model: HeadModel, pair: Pair, paths: Sequence[Path], direction: Direction
) -> tuple[float, Float[np.ndarray, " path"]]:
    """The gap of one pair, and what each path changes in the margin of the run, in nats."""
    clean, corrupt = pair.gap(model)
    plain, said = dict[TokenIds, Tensor](), dict[TokenIds, Tensor]()
    for lane in pair.lanes(model, direction):
        plain |= lane.said(model, 1, lambda _: nullcontext())
        said |= _lane(model, lane, paths)
    changes = pair.margins(said) - pair.margins(plain) if paths else torch.zeros(0)
    return clean - corrupt, changes.double().numpy()


def _lane(model: HeadModel, lane: Lane, paths: Sequence[Path]) -> Said:
    """Nats of the answers along each path."""
    if not paths:
        return {}
    senders = list(dict.fromkeys(path.sender for path in paths))
    entries = {path.entry for path in paths if path.entry is not None}
    direct, given = _second_pass(model, lane, senders, entries)
    put = [
        (path.entry, given[path.entry][senders.index(path.sender)])
        for path in paths
        if path.entry is not None
    ]
    if not put:
        third = dict.fromkeys(lane.answers, torch.zeros(0))
    else:
        third = lane.said(model, len(put), lambda some: _putting(model, put[some]))
    ends = torch.tensor([path.entry is None for path in paths])
    rows = torch.tensor([senders.index(path.sender) for path in paths if path.entry is None])
    found = {answer: torch.zeros(len(paths)) for answer in lane.answers}
    for answer, logp in found.items():
        logp[ends], logp[~ends] = direct[answer][rows.long()], third[answer]
    return found


def _second_pass(
    model: HeadModel, lane: Lane, senders: Sequence[Head], entries: set[Entry]
) -> tuple[Said, Mapping[Entry, Tensor]]:
    """Answers with one sender a row changed and all other heads frozen, and what entries get."""
    frozen, other = (Outputs.of(model, ids) for ids in (lane.base, lane.source))
    given: dict[Entry, list[Tensor]] = {entry: [] for entry in entries}

    def keep(attended: Attended) -> None:
        a = attended.attention
        for entry, kept in given.items():
            if entry.layer == a.layer:
                kept.append(getattr(a, entry.part)[:, entry.index].clone())

    @contextmanager
    def scope(some: slice) -> Iterator[None]:
        with ExitStack() as scopes:
            # The outer one has the last word: a sender is not frozen.
            scopes.enter_context(
                Patch.rowwise(model, [Patch([sender], other) for sender in senders[some]])
            )
            scopes.enter_context(Patch(model.heads, frozen)(model))
            scopes.enter_context(model.observed(keep))
            yield

    said = lane.said(model, len(senders), scope)
    return said, {entry: torch.cat(kept) for entry, kept in given.items()}


@contextmanager
def _putting(model: HeadModel, rows: Sequence[tuple[Entry, Tensor]]) -> Iterator[None]:
    """A scope in which row b of every batch has one input of one head replaced."""

    def put(attention: Attention, attend: Attend) -> Attended:
        changed = attention
        for part in get_args(Input):
            here = [
                (row, entry.index, value)
                for row, (entry, value) in enumerate(rows)
                if (entry.layer, entry.part) == (attention.layer, part)
            ]
            if here:
                whole = getattr(attention, part).clone()
                for row, index, value in here:
                    whole[row, index] = value
                changed = getattr(changed, f"with_{part}")(whole)
        return attend(changed)

    with model.entered(put):
        yield
