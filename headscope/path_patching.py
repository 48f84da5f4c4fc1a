"""Path patching: what one head says to another's queries, keys or values, and to the logits."""

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.evals.statistics import benjamini_hochberg, check_enough, sign_flip_p
from headscope.heads import Head, label, selected_heads
from headscope.model import HeadModel, check_opened
from headscope.patch_runs import chosen, pairs_of
from headscope.patched import Direction, interval, linearised
from headscope.path_runs import Entry, Input, Path, along_paths


def path_patch(
    model: HeadModel,
    task: Eval,
    senders: Sequence[Head | str],
    receivers: Sequence[Head | str],
    *,
    part_of: Sequence[Input] = ("q", "k", "v"),
    direction: Direction = "noising",
    samples: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """How much each sender changes the answer through one input of each receiver alone.

    Three passes for each pair of prompts. The first is the run to be changed, whose heads' outputs
    are kept. In the second the sender says what it said in the other run, all other heads are
    frozen at what they said in the first, and MLPs are computed again: what the receiver is given
    now differs by paths from the sender that go through no other head. In the third only that input
    of the receiver is put into the first run, in which all else follows. For "logits" the answer of
    the second pass counts: the sender's direct effect, MLPs included.

    With grouped heads k and v belong to the kv_head: a path into k or v of a receiver changes all
    query heads of its group, named in `read_by`. A sender whose layer is not below the receiver's
    has no path to it, and an effect of exactly 0.

    Args:
        receivers: heads, and "logits".
        part_of: which inputs of receivers.
        direction: "noising" as in the source, or "denoising".
        samples: how many pairs.
        seed: of intervals and p-values.

    Returns:
        One row for each sender, receiver and part: sender, receiver, part, read_by; effect (of 1:
        the answer of the other run; see `Patched`) with its interval over pairs (low, high), change
        (mean, in nats), p by sign flips and q (Benjamini-Hochberg over the rows with a path).

    Raises:
        HeadscopeError: the eval makes no pairs, or fewer than an interval needs, or there is no
            such head or part.

    Source: Wang et al. 2022, arXiv 2211.00593, appendix B; Goldowsky-Dill et al. 2023, "Localizing
    Model Behavior with Path Patching", arXiv 2304.05969.
    """
    check_opened(model)
    if wrong := [part for part in part_of if part not in get_args(Input)]:
        raise HeadscopeError(f"A head has the inputs q, k and v, and none named {wrong[0]!r}.")
    if direction not in get_args(Direction):
        raise HeadscopeError(f"direction is 'denoising' or 'noising', not {direction!r}.")
    shape = model.layers, model.n_heads, model.name
    ends = [r for r in receivers if r != "logits"]
    sent, heads = selected_heads(senders, *shape), selected_heads(ends, *shape) if ends else ()
    rows = [(s, r, part, _entry(model, r, part)) for s in sent for r in heads for part in part_of]
    named = [(Path(s, entry), label(r), part, _read_by(model, entry)) for s, r, part, entry in rows]
    if len(ends) < len(receivers):
        named += [(Path(s, None), "logits", "", "") for s in sent]
    if not named:
        raise HeadscopeError("Name at least one receiver and one of its inputs, or 'logits'.")
    pairs = pairs_of(model, chosen(task, samples))
    check_enough(len(pairs))
    paths = list(dict.fromkeys(path for path, *_ in named if _leads(path)))
    gaps, changes = np.zeros(len(pairs)), np.zeros((len(pairs), len(paths)))
    for index, pair in enumerate(pairs):
        if progress is not None:
            progress(index, len(pairs))
        gaps[index], changes[index] = along_paths(model, pair, paths, direction)
    if progress is not None:
        progress(len(pairs), len(pairs))
    signs = {"noising": -1, "denoising": 1}
    stats = _table(gaps, changes, signs[direction], seed)
    found = dict(zip(paths, stats, strict=True))
    none = {"effect": 0.0, "low": 0.0, "high": 0.0, "change": 0.0, "p": 1.0, "q": 1.0}
    return pd.DataFrame(
        {"sender": label(path.sender), "receiver": receiver, "part": part, "read_by": read_by}
        | found.get(path, none)
        for path, receiver, part, read_by in named
    )


def _leads(path: Path) -> bool:
    return path.entry is None or path.sender[0] < path.entry.layer


def _entry(model: HeadModel, receiver: Head, part: Input) -> Entry:
    layer, head = receiver
    group = model.n_heads // model.n_kv_heads
    return Entry(layer, part, head if part == "q" else head // group)


def _read_by(model: HeadModel, entry: Entry) -> str:
    group = 1 if entry.part == "q" else model.n_heads // model.n_kv_heads
    heads = range(entry.index * group, (entry.index + 1) * group)
    return ", ".join(label((entry.layer, head)) for head in heads)


def _table(gaps: np.ndarray, changes: np.ndarray, sign: int, seed: int) -> list[dict[str, float]]:
    p = np.array([sign_flip_p(change, seed) for change in changes.T])
    q, rows = benjamini_hochberg(p) if len(p) else p, list[dict[str, float]]()
    for i, change in enumerate(changes.T):
        values = linearised(sign * change, gaps)
        low, high = interval(values, seed)
        effect = {"effect": float(values.mean()), "low": low, "high": high}
        rows.append(effect | {"change": float(change.mean()), "p": float(p[i]), "q": float(q[i])})
    return rows
