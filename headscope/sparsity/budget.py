"""What a profile may cost, as a share of what attention costs without one."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from headscope.errors import HeadscopeError

BudgetKind = Literal["density", "kv", "latency"]
Phase = Literal["prefill", "decode"]

_HOW = "write it as density=0.5, kv=0.5, latency=0.5 (of prefill) or decode_latency=0.5"


@dataclass(frozen=True)
class Budget:
    """A share of what the model's own attention takes, met at every length that is planned for.

    Attributes:
        kind: "density" is the share of causal (query, key) pairs that are computed; "kv" the share
            of the bytes of keys and values that are held after n tokens; "latency" the share of
            the time that attention takes, predicted from measured costs.
        share: above 0, at most 1.
        phase: of latency: a prompt of n tokens read at once, or one token after n others.
    """

    kind: BudgetKind = "density"
    share: float = 0.5
    phase: Phase = "prefill"

    def __post_init__(self) -> None:
        if self.kind not in get_args(BudgetKind) or self.phase not in get_args(Phase):
            raise HeadscopeError(f"There is no budget of {self.kind!r} ({self.phase!r}); {_HOW}.")
        if not 0 < self.share <= 1:  # NaN is refused too
            raise HeadscopeError(
                f"A budget is a share above 0 and at most 1 of what the model takes without a "
                f"profile, not {self.share:g}."
            )

    @classmethod
    def of(cls, given: "Budget | str | float") -> "Budget":
        """A budget from a number, a share of density, or from text: "kv=0.5".

        Raises:
            HeadscopeError: it is none.
        """
        if isinstance(given, Budget):
            return given
        kind, equals, share = str(given).rpartition("=")
        kind = kind.strip() if equals else "density"
        phase: Phase = "decode" if kind == "decode_latency" else "prefill"
        try:
            number = float(share)
        except ValueError:
            number = math.nan
        if kind not in (*get_args(BudgetKind), "decode_latency") or math.isnan(number):
            raise HeadscopeError(f"{str(given)!r} is no budget; {_HOW}.")
        return cls("latency" if "latency" in kind else kind, number, phase)  # pyright: ignore

    @property
    def label(self) -> str:
        """As it is written: "kv=0.5"."""
        return f"{'decode_' if self.phase == 'decode' else ''}{self.kind}={self.share:g}"

    @property
    def words(self) -> str:
        """What is counted, in words."""
        return {
            "density": "computed pairs",
            "kv": "KV bytes",
            "latency": f"time of attention ({self.phase})",
        }[self.kind]
