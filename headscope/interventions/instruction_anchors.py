from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import Span, rows_in
from headscope.run import Part

if TYPE_CHECKING:
    from headscope.headmap import HeadMap

Action = Literal["block", "amplify"]


@dataclass(frozen=True)
class InstructionAnchors(_Reweighing):
    """Block or amplify what the top heads of a map carry from one part of a prompt to another.

    "block": the rows of `queries` (an instruction) do not see `keys` (a source) in these heads;
    "amplify": their attention on it is multiplied by `factor`, and normalised again. Blocking with
    all heads and rows is `AttentionKnockout`.

    Source: "Instruction Anchors", arXiv 2602.03677, which blocks and amplifies the top 5 % of heads
    between an instruction and the tokens of a modality. Its text-only form, and taking the heads
    from any head map, are headscope's.

    Attributes:
        queries: the rows that read: the name of a span, (start, stop) in tokens, or several.
        keys: what they read from.
        action: "block" or "amplify".
        factor: of "amplify", above 0.
        heads, layers, part: which heads and rows; all if left out.
    """

    paper = "Instruction Anchors 2026, arXiv 2602.03677"
    marked: ClassVar[tuple[str, ...]] = ("queries", "keys")
    queries: Span
    keys: Span
    action: Action = field(default="block", kw_only=True)
    factor: float = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action not in get_args(Action):
            raise HeadscopeError(
                f"InstructionAnchors has no action {self.action!r}; use block or amplify."
            )
        if not (isfinite(self.factor) and self.factor > 0):
            raise HeadscopeError(
                f"InstructionAnchors needs a factor above 0, not {self.factor}; use "
                "action='block' to hide the keys."
            )

    @staticmethod
    def top(head_map: "HeadMap", score: str, share: float = 0.05) -> Sequence[Head]:
        """The top share of all heads of a map, by a score or a role; at least one.

        Raises:
            HeadscopeError: there is no such score, or the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise HeadscopeError(f"Take a share of the heads above 0 and at most 1, not {share}.")
        count = len(head_map.layers) * head_map.n_heads
        table = head_map.top(score, max(1, round(share * count)))
        return tuple(zip(table["layer"].tolist(), table["head"].tolist(), strict=True))

    @classmethod
    def of(
        cls,
        head_map: "HeadMap",
        score: str,
        queries: Span,
        keys: Span,
        *,
        share: float = 0.05,
        action: Action = "block",
        factor: float = 2.0,
        part: Part = "all",
    ) -> "InstructionAnchors":
        """The method on the top share of the heads of a map; see `top`."""
        heads = cls.top(head_map, score, share)
        return cls(queries, keys, action=action, factor=factor, heads=heads, part=part)

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        where = where & rows_in(attention, self.queries, "InstructionAnchors")
        amount = -inf if self.action == "block" else log(self.factor)
        keys = self._keys(attention, self.keys)
        return self._biased(attention, keys, amount, where)
