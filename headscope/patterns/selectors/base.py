"""Selectors: budgets that are spent on the keys which matter for the text at hand."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from headscope.patterns.full import Full
from headscope.patterns.selection import Selection
from headscope.patterns.written import Written
from headscope.registry import Registered

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True)
class Selector(Written, Registered, ABC):
    """Which keys the rows of one attention see, chosen by its queries and keys.

    Subclasses are frozen dataclasses of a few numbers with `select` written; being in the folder
    registers them. What they see of later queries makes a full pass differ from steps. What a
    head sees depends on its own KV group and sequence alone, never on padding.
    """

    registry: ClassVar[dict[str, "type[Selector]"]] = {}
    decodes: ClassVar[bool] = False  # also chooses for a single query; others see everything then

    @abstractmethod
    def select(self, attention: "Attention") -> Selection:
        """The selection for these queries and keys, made in memory that grows with their number."""

    def resolve(self, attention: "Attention") -> Selection:
        """The selection; everything in a decode step of a method that is one for prompts."""
        step = attention.n_queries == 1 and attention.n_keys > 1
        if 0 in (attention.n_queries, attention.n_keys) or (step and not self.decodes):
            return Selection(ranges=Full())
        with torch.no_grad():  # a choice has no gradient
            return self.select(attention)

    def at(self, n: int) -> "Selector":
        """The selector for a text of n tokens: itself, as its budget is one of the text at hand."""
        return self

    def held(self) -> None:
        """Every key may be chosen again."""
        return

    def density(self, n: int) -> float | None:
        """Share of all causal pairs of n tokens that the budget allows; None if the text decides.

        An upper bound where blocks overlap with what is always seen.
        """
        return None
