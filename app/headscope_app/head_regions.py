"""Where a head with a role would look in a text: the outline that its pattern is held against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headscope.runinfo import RunInfo

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (query, key) -> bool, by position

_MOST = 4096  # tokens; more pairs than that are not gone through one by one
_SINK, _WINDOW = 4, 64  # where a run does not say


@dataclass(frozen=True)
class Region:
    """Keys that a role means.

    Attributes:
        said: in words, after "outlined:".
        inside: whether a query's key is one of them.
    """

    role: str
    said: str
    inside: Inside

    def cells(self, queries: tuple[int, int], keys: tuple[int, int], factor: int) -> np.ndarray:
        """[square, square] of a window: where a pair of tokens lies in the region."""
        rows, columns = (-(-(end - start) // factor) for start, end in (queries, keys))
        found = np.zeros((rows, columns), bool)
        key = np.arange(*keys)
        for row in range(rows):
            first = queries[0] + row * factor
            query = np.arange(first, min(first + factor, queries[1]))[:, None]
            seen = (self.inside(query, key) & (key <= query)).any(0)
            padded = np.zeros(columns * factor, bool)
            padded[: len(key)] = seen
            found[row] = padded.reshape(columns, factor).any(1)
        return found


def region_of(
    roles: Sequence[str], tokens: Sequence[str], info: RunInfo, offset: float | None = None
) -> Region | None:
    """Of the first role that has one; None if none has, or the text is too long to look through.

    Args:
        roles: a head's, the primary one first.
        tokens: of the text.
        offset: the distance at which the head looks most, for the role that is about that.
    """
    if len(tokens) > _MOST:
        return None
    _, ids = np.unique(np.array(tokens, object).astype(str), return_inverse=True)
    for role in roles:
        found = _region(role, ids, info, offset)
        if found is not None:
            return found
    return None


def _region(role: str, ids: np.ndarray, info: RunInfo, offset: float | None) -> Region | None:
    if role == "previous_token":
        return Region(role, "the token before each query", lambda q, k: k == q - 1)
    if role in ("offset", "positional") and offset is not None:
        far = round(offset)
        return Region(role, f"the token {far} back", lambda q, k: k == q - far)
    if role == "sink":
        return Region(role, "the first token", lambda q, k: (k == 0) & (q >= 0))
    if role == "induction":
        before = np.concatenate([[-1], ids[:-1]])
        said = "what followed earlier occurrences of the query's token"
        return Region(role, said, lambda q, k: before[k] == ids[q])
    if role == "duplicate_token":
        said = "earlier occurrences of the query's token"
        return Region(role, said, lambda q, k: (ids[k] == ids[q]) & (k < q))
    if role in ("streaming", "always_local"):
        given: Any = info.probes.get("streaming", {}).get("pattern")
        given = given if isinstance(given, dict) else {}
        sink, window = (
            given[name] if isinstance(given.get(name), int) else rest
            for name, rest in (("sink", _SINK), ("window", _WINDOW))
        )
        return Region(
            role,
            f"the first {sink} tokens and the last {window}",
            lambda q, k: (k < sink) | (q - k < window),
        )
    return None
