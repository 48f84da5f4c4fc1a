"""Attention patterns of any text, computed by one process that owns the model."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from headscope.errors import HeadscopeError
from headscope.runinfo import RunInfo
from headscope.viz.pooling import restored
from headscope_app.worker import Worker

EXACT = 256  # tokens up to which weights are sent as they are
WIDEST = 512  # squares of a picture that is pooled
CHARACTERS = 200_000  # of a text, at most: more is refused before it is cut into tokens
_TIMEOUT = 120.0  # seconds

Head = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class Subject:
    """Which model is asked, as a run knows it.

    Attributes:
        spec, revision, backend, dtype: as for `headscope.load`.
        fingerprint: of the weights that the run was measured on; others are refused.
    """

    spec: str
    revision: str | None = None
    backend: str | None = None
    dtype: str | None = None
    fingerprint: str | None = None

    @classmethod
    def of_run(cls, info: RunInfo) -> "Subject":
        """The model of a run.

        Raises:
            HeadscopeError: the run was imported and comes without its model.
        """
        if info.kind == "imported":
            raise HeadscopeError(
                f"The heads of {info.model.name} were imported from files without the model; scan "
                "the model to see its attention."
            )
        model = info.model
        return cls(model.spec, model.revision, info.backend, info.dtype, model.fingerprint)


@dataclass(frozen=True)
class Window:
    """A part of a pattern, in tokens: each pair is the first and one after the last."""

    queries: tuple[int, int]
    keys: tuple[int, int]

    @classmethod
    def of(cls, given: Any) -> "Window":
        """[[first query, end], [first key, end]], as a browser sent it.

        Raises:
            HeadscopeError: it is nothing of the kind.
        """
        sides = given if isinstance(given, list) else []
        whole = [
            side
            for side in sides
            if isinstance(side, list) and [type(end) for end in side] == [int, int]
        ]
        if len(sides) != 2 or len(whole) != 2:
            raise HeadscopeError("That is no part of a pattern; double-click for all of it.")
        queries, keys = (tuple(side) for side in whole)
        return cls(queries, keys)

    @classmethod
    def zoomed(
        cls, x: Sequence[float], y: Sequence[float], factor: int, origin: "Window"
    ) -> "Window":
        """The tokens behind a stretch of a picture's axes, whole cells of it.

        Args:
            x, y: (from, to) of the keys' and the queries' axis in cells, cell i centred at i.
            factor: tokens of a cell's side.
            origin: the window that the picture shows.
        """
        keys, queries = (
            _stretch(sorted(axis), factor, side)
            for axis, side in ((x, origin.keys), (y, origin.queries))
        )
        return cls(queries, keys)


def _stretch(axis: Sequence[float], factor: int, side: tuple[int, int]) -> tuple[int, int]:
    first = side[0] + max(0, round(axis[0])) * factor
    last = side[0] + (max(0, round(axis[1])) + 1) * factor
    first = min(first, side[1] - 1)
    return first, max(first + 1, min(last, side[1]))


@dataclass(frozen=True)
class Pair:
    """One query and key of a pattern, as indices of tokens, and the attention between them."""

    query: int
    key: int
    weight: float


@dataclass(frozen=True, eq=False)
class Answer:
    """The pattern of one head on one text, or a window of it.

    Attributes:
        layer, head: which.
        tokens: of the whole text, as strings.
        window: the tokens that `weights` is about.
        factor: tokens of a cell's side; 1 where weights are exact.
        weights: exact as float32; pooled (the largest weight of each square) as uint8, see
            `headscope.viz.pooling.quantised`.
        pairs: with the most attention in the window.
        elsewhere: the same of keys that are neither the first token nor the query itself, where
            most heads leave what they do not need.
    """

    layer: int
    head: int
    tokens: tuple[str, ...]
    window: Window
    factor: int
    weights: Float[np.ndarray, "query key"] | UInt8[np.ndarray, "query key"]
    pairs: tuple[Pair, ...]
    elsewhere: tuple[Pair, ...]

    @property
    def exact(self) -> bool:
        return self.factor == 1

    @property
    def shares(self) -> Float[np.ndarray, "query key"]:
        """The weights between 0 and 1, whatever they were sent as."""
        return self.weights if self.weights.dtype == np.float32 else restored(self.weights)


class Live:
    """Answers questions about live patterns; the model is in a process of its own.

    Args:
        memory: bytes that the process may allocate on a CPU; four fifths of what is free when it
            starts if left out.
        timeout: seconds that one question may take.
    """

    def __init__(self, memory: int | None = None, timeout: float = _TIMEOUT) -> None:
        self.worker = Worker(
            "headscope_app.live_worker",
            "The process that computes patterns",
            () if memory is None else (str(memory),),
            timeout,
            {"HF_HUB_OFFLINE": "1"},  # a page that is looked at fetches nothing
        )

    def pattern(
        self,
        subject: Subject,
        text: str,
        layer: int,
        head: int,
        window: Window | None = None,
        *,
        chat: bool = False,
        lane: str = "",
    ) -> Answer:
        """The pattern of one head; see `patterns`."""
        return self.patterns(subject, text, [(layer, head)], window, chat=chat, lane=lane)[0]

    def patterns(
        self,
        subject: Subject,
        text: str,
        heads: Sequence[Head],
        window: Window | None = None,
        *,
        widest: int = WIDEST,
        chat: bool = False,
        lane: str = "",
    ) -> list[Answer]:
        """The patterns of some heads on one text, from one pass over it.

        Queries and keys of the last texts are kept, so that other heads of the same text, and
        windows, take no pass.

        Args:
            window: the part that is wanted; all of it if left out. What reaches beyond the text is
                cut off.
            widest: cells of a picture's side, where it is pooled.
            chat: wrap the text in the model's chat template.
            lane: whose question it is; see `Worker.ask`.

        Raises:
            Superseded: the same lane has asked something else since.
            WorkerDied: the process was killed, ran out of memory or took too long.
            HeadscopeError: the text is empty, too long for the page or the model, the model cannot
                be opened or has other weights than the run's, or there is no such head.
        """
        if not text.strip():
            raise HeadscopeError("Type a text: an empty one has no attention.")
        if len(text) > CHARACTERS:
            raise HeadscopeError(
                f"The text has {len(text):,} characters; at most {CHARACTERS:,} are read here."
            )
        if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise HeadscopeError("The text holds half of a character; type that one anew.")
        request = {
            "model": asdict(subject) | {"spec": _spec(subject.spec)},
            "text": text,
            "heads": [list(head) for head in heads],
            "window": None if window is None else asdict(window),
            "exact": min(EXACT, widest),
            "widest": widest,
            "chat": chat,
        }
        found, arrays = self.worker.ask(request, lane)
        tokens = tuple(found["tokens"])
        return [
            _answer(each, weights, tokens)
            for each, weights in zip(found["pictures"], arrays, strict=True)
        ]

    def close(self) -> None:
        """End the process."""
        self.worker.close()


def _spec(spec: str) -> str:
    """A model's folder stays the one that is meant from here."""
    path = Path(os.path.expanduser(spec))
    return str(path.resolve()) if path.exists() and spec != "smollm2" else spec


def _answer(found: dict[str, Any], weights: np.ndarray, tokens: tuple[str, ...]) -> Answer:
    window = Window(tuple(found["window"]["queries"]), tuple(found["window"]["keys"]))
    pairs, elsewhere = (tuple(Pair(*each) for each in found[of]) for of in ("pairs", "elsewhere"))
    return Answer(
        found["layer"], found["head"], tokens, window, found["factor"], weights, pairs, elsewhere
    )
