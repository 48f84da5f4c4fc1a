"""Prompts: token ids, named spans in them, and the answer that is expected."""

import dataclasses
import random
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Literal

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.registry import Registered

Range = tuple[int, int]  # half-open, in tokens or in characters
Split = Literal["detect", "tune", "test"]
SPLITS: tuple[Split, ...] = ("detect", "tune", "test")


@dataclass(frozen=True)
class Prompt:
    """One prompt, ready for a model.

    Attributes:
        token_ids: the prompt, special tokens included.
        spans: named half-open ranges of token indices, e.g. "needle" and the "answer" inside it.
        answer: the text that is expected to follow; empty if none is.
        answer_ids: its tokens as a continuation of the prompt.
        facts: what the generator knows of it (length, depth, template, ...), for tables.
    """

    token_ids: tuple[int, ...]
    spans: Mapping[str, Range] = field(default_factory=dict)
    answer: str = ""
    answer_ids: tuple[int, ...] = ()
    facts: Mapping[str, int | float | str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.token_ids)

    def span(self, name: str) -> Range:
        """A span by name; an error that says which ones there are otherwise."""
        if name not in self.spans:
            there = ", ".join(sorted(self.spans)) or "none"
            raise HeadscopeError(f"This prompt has no span named {name!r} (it has: {there}).")
        return self.spans[name]

    def numbered(self, name: str) -> list[Range]:
        """The spans name_0, name_1, ... in the order of their numbers; empty if there are none."""
        found: list[Range] = []
        while (span := self.spans.get(f"{name}_{len(found)}")) is not None:
            found.append(span)
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of the tokens and spans: what a measurement on this prompt depends on."""
        content = repr((self.token_ids, sorted(self.spans.items()), self.answer_ids))
        return sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class PromptFamily(Registered, ABC):
    """A seeded source of prompts; equal parameters give equal prompts on every machine.

    Sample i depends on the parameters and i alone, so that more samples only add to fewer.
    """

    registry: ClassVar[dict[str, "type[PromptFamily]"]] = {}
    samples: int = 12
    seed: int = 0

    @abstractmethod
    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """The prompt of one index."""

    def prompts(self, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        """All prompts of the family.

        Raises:
            HeadscopeError: the tokenizer cannot do what the family needs.
        """
        return [self.prompt(index, tokenizer) for index in range(self.samples)]

    def rng(self, *parts: Any) -> random.Random:
        """A generator of its own for each thing that is drawn."""
        return random.Random(repr((type(self).__name__, self.seed, *parts)))


def has_lengths(family: PromptFamily) -> bool:
    """Whether the lengths of a family's prompts can be chosen."""
    return any(field.name == "lengths" for field in dataclasses.fields(family))


def with_lengths(family: PromptFamily, lengths: Sequence[int]) -> PromptFamily:
    """The same family with prompts of these lengths, in tokens.

    Raises:
        HeadscopeError: its prompts have lengths of their own.
    """
    if not has_lengths(family):
        raise HeadscopeError(
            f"The prompts of {family.name!r} have lengths of their own; leave the lengths out."
        )
    changes: dict[str, Any] = {"lengths": tuple(lengths)}
    return dataclasses.replace(family, **changes)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    spans: Mapping[str, Range] | None = None,
    answer: str = "",
    special_tokens: bool = True,
    facts: Mapping[str, int | float | str] | None = None,
) -> Prompt:
    """Tokenize a text, its character spans and its answer together.

    A span holds every token that overlaps it: the offsets of the tokenizer say which.

    Args:
        text: the prompt.
        spans: named half-open ranges of characters in it.
        answer: the text that is expected to follow it directly, its leading space included.
        special_tokens: whether the tokenizer adds its own (a chat template has them already).

    Raises:
        HeadscopeError: the tokenizer gives no offsets, or its tokens straddle the end of the
            prompt or hold none of a span.
    """
    if not tokenizer.is_fast:
        raise HeadscopeError(
            f"{type(tokenizer).__name__} gives no character offsets, without which no span can "
            "be found; use the model's fast tokenizer."
        )
    encoded = tokenizer(
        text + answer, add_special_tokens=special_tokens, return_offsets_mapping=True
    )
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    # Tokens that a tokenizer adds behind the text (an end of sequence) would stand in the answer.
    last = max((i for i, (a, b) in enumerate(offsets) if b > a), default=-1)
    ids, offsets = ids[: last + 1], offsets[: last + 1]
    edge = next((i for i, (a, b) in enumerate(offsets) if b > len(text)), len(ids))
    if edge < len(ids) and offsets[edge][0] < len(text):
        raise HeadscopeError(
            f"The tokenizer joins the end of the prompt with the start of its answer {answer!r}; "
            "end the prompt where a word ends, and begin the answer with its space."
        )
    places = _Places(offsets)
    found = {name: places.tokens_in(span, name) for name, span in (spans or {}).items()}
    return Prompt(tuple(ids[:edge]), found, answer.strip(), tuple(ids[edge:]), dict(facts or {}))


class _Places:
    """Where each token stands in the text; a prompt may have thousands of spans to look up."""

    def __init__(self, offsets: Sequence[Range]) -> None:
        real = [(start, stop, i) for i, (start, stop) in enumerate(offsets) if stop > start]
        self.starts = [start for start, _, _ in real]
        self.stops = [stop for _, stop, _ in real]
        self.tokens = [i for _, _, i in real]

    def tokens_in(self, span: Range, name: str) -> Range:
        """Every token that overlaps a span of characters, as a half-open range."""
        first, stop = bisect_right(self.stops, span[0]), bisect_left(self.starts, span[1])
        if first >= stop:
            raise HeadscopeError(
                f"The span {name!r} (characters {span[0]}–{span[1]}) holds no token."
            )
        return self.tokens[first], self.tokens[stop - 1] + 1
