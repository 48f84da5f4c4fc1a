"""What formats share that know full heads, and one streaming rule for all others."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from headscope.errors import HeadscopeError
from headscope.export.profiles.base import Grid, ProfileFormat, each
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.patterns.streaming import Streaming
from headscope.sparsity.kv_view import kv_rules
from headscope.sparsity.profile import ProfiledModel, SparseProfile


@dataclass(frozen=True)
class _FullOrStreaming(ProfileFormat):
    """A format of two kinds of heads, in which the streaming ones have one sink and window."""

    expresses: ClassVar[str] = "full heads, and one sink and window for all streaming heads"
    spare: ClassVar[Streaming] = Streaming(64, 256)  # written where no head streams
    least_sink: ClassVar[int] = 0

    def check(self, profile: SparseProfile) -> None:
        rules = each(profile)
        for head, rule in rules:
            if isinstance(rule, Full):
                continue
            if not isinstance(rule, Streaming):
                raise self._refusal(head, rule, "give the head a streaming rule, or leave it full.")
            if rule.growth:
                at = "profile.at(n) makes the window that of n tokens."
                raise self._refusal(head, rule, f"its window does not grow; {at}")
            if rule.sink < self.least_sink:
                raise self._refusal(head, rule, f"give it a sink of {self.least_sink} at least.")
        different = list(dict.fromkeys(rule for _, rule in rules if rule != Full()))
        if len(different) > 1:
            raise HeadscopeError(
                f"{self.name} has one sink and window for all streaming heads, and the profile has "
                f"{different[0]} and {different[1]}; give all of them one rule, as "
                "`headscope plan --rules 'streaming:sink=4,window=64;full'` does."
            )
        if self.granularity == "KV head":
            kv_rules(profile, self.name)

    def streaming_of(self, profile: SparseProfile) -> Streaming:
        """The one streaming rule; some rule where no head streams."""
        streams = (rule for _, rule in each(profile) if isinstance(rule, Streaming))
        return next(streams, self.spare)

    def full_of(self, profile: SparseProfile) -> Bool[np.ndarray, "layer head"]:
        """Which heads are full: KV heads where the format is of them, query heads otherwise."""
        step = profile.model.group if self.granularity == "KV head" else 1
        rows = [profile.of_layer(layer)[::step] for layer in profile.model.layers]
        return np.array([[rule == Full() for rule in row] for row in rows])

    def grid_of(
        self, full: Bool[np.ndarray, "layer head"], streaming: Streaming, model: ProfiledModel
    ) -> Grid:
        """Rules of query heads, from which heads are full."""
        step = model.group if self.granularity == "KV head" else 1
        kinds: tuple[Rule, Rule] = (streaming, Full())
        return [[kinds[whole] for whole in row for _ in range(step)] for row in full.tolist()]
