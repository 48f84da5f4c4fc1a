"""The planner's address: whatever stands in it, a plan can be asked for."""

import pytest

from headscope_app.plan_address import DEFAULTS, Asked
from headscope_app.plans import Source

SOURCES = [
    Source("losses:bad", "losses", "bad", problem="It is damaged."),
    Source("losses:a", "losses", "a", rules=("r0", "r1", "r2"), losses=(("answer", "nats"),)),
    Source("score:sink", "score", "sink"),
]


def test_an_empty_address_has_defaults() -> None:
    for seen in (None, {}, {"search": ""}, {"search": "?run=abc"}):
        asked = Asked.of(seen)
        assert {name: getattr(asked, name) for name in DEFAULTS} == DEFAULTS
        assert (asked.kind, asked.granularity, asked.source, asked.chosen) == (
            "kv", "kv_head", "", (),
        )  # fmt: skip


def test_what_stands_there_is_asked_for() -> None:
    asked = Asked.of(
        {"search": "?by=losses:a&of=density&share=30&n=1000&unit=head&rules=2,0&loss=answer"}
    )
    source = asked.chosen_from(SOURCES)
    assert source is SOURCES[1]
    request = asked.request("run", source)
    assert (request.share, request.n, request.kind) == (0.3, 1000, "density")
    assert (request.granularity, request.loss) == ("head", "answer")
    assert request.rules == ("r2", "r0")


@pytest.mark.parametrize(
    "search",
    [
        "?share=-5&n=1e9&sink=x&window=&ranks=٣",
        "?share=" + "9" * 5000,
        "?rules=99,x,-1,,2.0,1000000000000&by=<script>&loss=../x&of=%00&unit=;",
        "?" + "&" * 10_000,
        "?share=%F0%28%8C%28",
    ],
)
def test_nonsense_is_as_if_left_out(search: str) -> None:
    asked = Asked.of({"search": search})
    source = asked.chosen_from(SOURCES)
    assert source is SOURCES[1]  # the first that can be used
    request = asked.request("run", source)
    assert 0 < request.share <= 1
    assert request.n >= 1
    assert request.rules == ()
    assert request.loss == ""
    assert (request.kind, request.granularity) == ("kv", "kv_head")


def test_nothing_usable_is_nothing() -> None:
    assert Asked.of({}).chosen_from(SOURCES[:1]) is None
    assert Asked.of({}).chosen_from([]) is None
