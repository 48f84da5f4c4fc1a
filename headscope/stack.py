"""The middleware of one model: who stands around its attention, and in which order."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from headscope.attention import Attention
from headscope.engines import Attended, Engine, dense
from headscope.errors import HeadscopeError
from headscope.run import Run

Attend = Callable[[Attention], Attended]
Middleware = Callable[[Attention, Attend], Attended]
Observer = Callable[[Attended], None]
# The pass that is over, made once more as a run of its own: with a cache in the place of the one
# that it continued, if it did, and a state that middleware finds in `run.state`. Gives logits.
Again = Callable[[Cache, Mapping[Hashable, Any]], Tensor]


class Life:
    """What a middleware with per-sequence state answers to."""

    def begin(self, run: Run) -> None:
        """A batch of sequences starts."""

    def end(self, run: Run) -> None:
        """The scope closes, or the sequences are over."""

    def reorder(self, run: Run, index: Int[Tensor, " new_batch"]) -> None:
        """Row i of the batch continues what was row index[i] (beam search)."""

    def crop(self, run: Run, length: int) -> None:
        """All but the first `length` slots are taken back (speculative decoding)."""

    def said(
        self, run: Run, logits: Float[Tensor, "batch kept vocab"], again: Again
    ) -> Float[Tensor, "batch kept vocab"]:
        """A forward pass is over; its logits, of the last rows of the pass, may be changed.

        What a pass that is made again says is not shown to anyone.
        """
        return logits


@dataclass(frozen=True, eq=False)
class Entered:
    """A middleware in its scope; `life` is told of what happens to its sequences."""

    around: Middleware
    life: Life | None = None


@dataclass(frozen=True)
class Chain:
    """The middleware as it stood when a forward pass began.

    Recomputation in a backward pass runs through the same one, whatever was entered since.
    """

    entered: tuple[Entered, ...] = ()
    observers: tuple[Observer, ...] = ()
    engine: Engine = dense

    def __call__(self, attention: Attention) -> Attended:
        attend: Attend = self._observed
        for entry in reversed(self.entered):
            attend = _around(entry.around, attend)
        return attend(attention)

    def _observed(self, attention: Attention) -> Attended:
        attended = self.engine(attention)
        for observer in self.observers:
            observer(attended)
        return attended

    def begin(self, run: Run) -> None:
        """Tell those who follow sequences of a run that is new to them."""
        for entry in self.entered:
            if entry.life is not None and entry not in run.followers:
                run.followers.append(entry)
                entry.life.begin(run)

    def said(self, run: Run, logits: Tensor, again: Again) -> Tensor:
        """What the model says after all who follow its sequences had their word, inmost first."""
        for life in reversed(self.lives()):
            logits = life.said(run, logits, again)
        return logits

    def lives(self) -> tuple[Life, ...]:
        return tuple(entry.life for entry in self.entered if entry.life is not None)


class Stack:
    """First entered is outermost; observers stand next to the engine and see what was run."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.runs: WeakSet[Run] = WeakSet()

    @contextmanager
    def entered(self, around: Middleware, life: Life | None = None) -> Iterator[None]:
        """Put a middleware inside all that are there already, for the length of a scope."""
        entry = Entered(around, life)
        self.chain = replace(self.chain, entered=(*self.chain.entered, entry))
        try:
            yield
        finally:
            left = tuple(e for e in self.chain.entered if e is not entry)
            self.chain = replace(self.chain, entered=left)
            for run in [run for run in self.runs if entry in run.followers]:
                run.followers.remove(entry)
                if entry.life is not None:
                    entry.life.end(run)
                    run.state.pop(entry.life, None)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Show every finished attention to an observer, for the length of a scope."""
        mine = _Once(observer)  # the same function may watch twice
        self.chain = replace(self.chain, observers=(*self.chain.observers, mine))
        try:
            yield
        finally:
            left = tuple(o for o in self.chain.observers if o is not mine)
            self.chain = replace(self.chain, observers=left)

    @contextmanager
    def computed_by(self, engine: Engine) -> Iterator[None]:
        """Let another engine compute z, for the length of a scope; a second one is refused."""
        if self.chain.engine is not dense:
            raise HeadscopeError(
                "Another engine computes this model's attention already; close its scope first."
            )
        self.chain = replace(self.chain, engine=engine)
        try:
            yield
        finally:
            self.chain = replace(self.chain, engine=dense)


@dataclass(eq=False)
class _Once:
    """One watching of an observer, told from others of the same function."""

    observer: Observer

    def __call__(self, attended: Attended) -> None:
        self.observer(attended)


def _around(middleware: Middleware, attend: Attend) -> Attend:
    return lambda attention: middleware(attention, attend)
