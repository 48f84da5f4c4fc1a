"""The planner's part of the address: which plan is shown."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from headscope_app.plans import Request, Source

DEFAULTS = {"share": 50, "n": 8192, "sink": 4, "window": 1024, "ranks": 1}
_MOST = {"share": 100, "n": 2**24, "sink": 2**20, "window": 2**24, "ranks": 1024}


@dataclass(frozen=True)
class Asked:
    """What the address asks for; what makes no sense in it is as if left out.

    Attributes:
        source: key of what is planned by; "" for the first there is.
        kind: of the budget.
        granularity: what gets a rule of its own.
        loss: by which is planned; "" for the best that was measured.
        chosen: places of the rules to choose among; all if empty.
        share: per cent.
        n, sink, window, ranks: see `Request` and `Planning.targets`.
    """

    source: str
    kind: str
    granularity: str
    loss: str
    chosen: tuple[int, ...]
    share: int
    n: int
    sink: int
    window: int
    ranks: int

    @classmethod
    def of(cls, seen: dict[str, Any] | None) -> "Asked":
        """Of what the page keeps, {"search": "?run=…&share=30"}."""
        found = dict(parse_qsl(str((seen or {}).get("search", "")).removeprefix("?")[:4000]))
        numbers = {name: _number(found.get(name, ""), name) for name in DEFAULTS}
        places = [each for each in found.get("rules", "").split(",") if _whole(each)]
        return cls(
            source=found.get("by", ""),
            kind="density" if found.get("of") == "density" else "kv",
            granularity="head" if found.get("unit") == "head" else "kv_head",
            loss=found.get("loss", ""),
            chosen=tuple(dict.fromkeys(map(int, places))),
            **numbers,
        )

    def chosen_from(self, sources: list[Source]) -> Source | None:
        """What is planned by: what the address names, or the first that can be used."""
        usable = [source for source in sources if not source.problem]
        named = next((source for source in usable if source.key == self.source), None)
        return named or next(iter(usable), None)

    def request(self, run: str, source: Source) -> Request:
        """For the planner."""
        rules = tuple(source.rules[place] for place in self.chosen if place < len(source.rules))
        losses = [name for name, _ in source.losses]
        return Request(
            run=run,
            source=source.key,
            kind="density" if self.kind == "density" else "kv",
            share=self.share / 100,
            n=self.n,
            granularity="head" if self.granularity == "head" else "kv_head",
            rules=rules,
            loss=self.loss if self.loss in losses else "",
            sink=self.sink,
            window=self.window,
        )


def _number(text: str, name: str) -> int:
    return min(int(text), _MOST[name]) if _whole(text) else DEFAULTS[name]


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 9
