"""The URL is the state: what is shown can be linked to, and the back button takes it back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from headscope.errors import HeadscopeError
from headscope.heads import label, parse_head
from headscope.viz.palette import Theme

_LONGEST = 20_000  # characters of a query that are read; a selection of 2 000 heads fits
_MOST_HEADS = 10_000


@dataclass(frozen=True)
class State:
    """What a URL says. A part that it says in a way that makes no sense is as if left out.

    Attributes:
        run, other: ids of runs, the second to compare with.
        test: id of a file of results.
        head: the current head, "L17H3".
        selected: heads that all panels share, in the order in which they were chosen.
        probe, against: scores, the second for what is drawn across.
        roles: only heads with one of these; "none" for heads without any.
        least: only heads whose `probe` score is at least that.
        layers: only these, first and last.
        kv: only this KV head's.
        search: only what holds these words.
        model, sort: of the list of runs.
        theme: as the page shows itself.
    """

    run: str = ""
    other: str = ""
    test: str = ""
    head: str = ""
    selected: tuple[str, ...] = ()
    probe: str = ""
    against: str = ""
    roles: tuple[str, ...] = ()
    least: float | None = None
    layers: tuple[int, int] | None = None
    kv: int | None = None
    search: str = ""
    model: str = ""
    sort: str = ""
    theme: Theme = "light"

    @classmethod
    def parse(cls, query: str, theme: Theme = "light") -> Self:
        """Of "?run=…&head=L3H7", as a browser's address has it."""
        found = dict(parse_qsl(query.removeprefix("?")[:_LONGEST]))
        return cls(
            run=found.get("run", ""),
            other=found.get("other", ""),
            test=found.get("test", ""),
            head=next(iter(_heads(found.get("head", ""))), ""),
            selected=_heads(found.get("sel", "")),
            probe=found.get("probe", ""),
            against=found.get("against", ""),
            roles=tuple(role for role in found.get("role", "").split(",") if role),
            least=_number(found.get("min", "")),
            layers=_range(found.get("layers", "")),
            kv=_whole(found.get("kv", "")),
            search=found.get("q", ""),
            model=found.get("model", ""),
            sort=found.get("sort", ""),
            theme=_theme(found.get("theme", theme)),
        )

    @classmethod
    def of(cls, seen: Mapping[str, Any] | None) -> Self:
        """Of what the page keeps: its query, and the theme that it shows."""
        seen = seen or {}
        return cls.parse(str(seen.get("search", "")), _theme(seen.get("theme", "light")))

    def query(self) -> str:
        """The state as a query, without what stands at its default; the theme is a reader's own."""
        parts = {
            "run": self.run,
            "other": self.other,
            "test": self.test,
            "head": self.head,
            "sel": ",".join(self.selected),
            "probe": self.probe,
            "against": self.against,
            "role": ",".join(self.roles),
            "min": "" if self.least is None else f"{self.least:g}",
            "layers": "" if self.layers is None else f"{self.layers[0]}-{self.layers[1]}",
            "kv": "" if self.kv is None else str(self.kv),
            "q": self.search,
            "model": self.model,
            "sort": self.sort,
        }
        written = urlencode({name: value for name, value in parts.items() if value}, safe=",")
        return f"?{written}" if written else ""

    def link(self, path: str, **changes: Any) -> str:
        """A page with this state, some of it changed."""
        return path + replace(self, **changes).query()


def _heads(text: str) -> tuple[str, ...]:
    """Names of heads that are names."""
    named = []
    for part in text.split(",")[:_MOST_HEADS]:
        try:
            named.append(label(parse_head(part)))
        except (HeadscopeError, ValueError):
            continue
    return tuple(dict.fromkeys(named))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _range(text: str) -> tuple[int, int] | None:
    first, _, last = text.partition("-")
    ends = _whole(first), _whole(last)
    if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    return ends[0], ends[1]


def _theme(value: Any) -> Theme:
    return "dark" if value == "dark" else "light"
