"""What formats share that give every query head a template of MInference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from headscope.errors import HeadscopeError
from headscope.export.minference import templates
from headscope.export.profiles.base import Grid, ProfileFormat, each, shaped
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_FIXED: Mapping[str, int] = {"last_q": 64, "sink": 30, "window": 100, "block": 64}
_SCORE = 0.0  # nobody measured one, and the loaders pass it over


@dataclass(frozen=True)
class _Templates(ProfileFormat):
    """A list over layers of `{"HEAD": [kind, vertical, slash, score], ...}`.

    Attributes:
        length: tokens; a full head is written as so many columns and diagonals, which is all of
            them up to this length.
    """

    paper = "Jiang et al. 2024, arXiv 2407.02490"
    granularity = "query head"
    streams: ClassVar[bool]  # whether there is a template for a sink and a window
    length: int = 1_048_576

    def __post_init__(self) -> None:
        if not 1 <= self.length <= 10**9:
            raise HeadscopeError(
                f"{self.name} needs length, in tokens, to be 1 to 1,000,000,000, not {self.length}."
            )

    def check(self, profile: SparseProfile) -> None:
        for head, rule in each(profile):
            if isinstance(rule, VerticalSlash):
                self._check_lines(head, rule)
            elif isinstance(rule, Streaming) and self.streams:
                if rule.growth:
                    do = "its window does not grow; profile.at(n) makes it that of n tokens."
                    raise self._refusal(head, rule, do)
            elif not isinstance(rule, Full):
                raise self._refusal(head, rule, "give the head one of these.")

    def _check_lines(self, head: tuple[int, int], rule: VerticalSlash) -> None:
        other = [name for name, value in _FIXED.items() if getattr(rule, name) != value]
        if other:
            fixed = ", ".join(f"{name}={value}" for name, value in _FIXED.items())
            raise self._refusal(head, rule, f"give it what is fixed there, {fixed}.")
        if rule.vertical >= self.length and rule.slash >= self.length:
            do = f"it sees all of {self.length:,} tokens; leave it full, or give a greater length."
            raise self._refusal(head, rule, do)

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        rows = (map(self._template, profile.of_layer(layer)) for layer in profile.model.layers)
        lines = (json.dumps({str(head): one for head, one in enumerate(row)}) for row in rows)
        return [("[\n" + ",\n".join(lines) + "\n]\n").encode()]

    def _template(self, rule: Rule) -> list[str | int | float]:
        if isinstance(rule, Streaming):
            return ["stream_llm", rule.sink, rule.window, _SCORE]
        if isinstance(rule, VerticalSlash):
            return ["vertical_and_slash", rule.vertical, rule.slash, _SCORE]
        return ["vertical_and_slash", self.length, self.length, _SCORE]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        rows = templates(contents[0])
        shaped(rows, len(model.layers), model.n_heads, "query head")
        return [[self._rule(kind, *sizes) for kind, *sizes, _ in row] for row in rows]

    def _rule(self, kind: str, vertical: int, slash: int) -> Rule:
        if kind == "stream_llm" and self.streams:
            return Streaming(vertical, slash)
        if kind != "vertical_and_slash":
            raise ValueError(f"a head has the template {kind}, which headscope has no rule for")
        if vertical >= self.length and slash >= self.length:
            return Full()
        if slash < _FIXED["window"]:
            raise ValueError(
                f"a head has {slash} diagonals, of {_FIXED['window']} that are there for sure; "
                "which of them its loader takes is left open"
            )
        return VerticalSlash(self.columns(vertical), slash, **_FIXED)

    def columns(self, vertical: int) -> int:
        """The columns that the loader really takes."""
        return vertical
