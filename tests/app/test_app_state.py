"""The URL as the state: both ways, and whatever somebody types into it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("dash", reason="needs the extra [app]")

from headscope_app.state import State

_NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
_HEADS = st.builds(lambda a, b: f"L{a}H{b}", st.integers(0, 99), st.integers(0, 99))
_ROLES = st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=1, max_size=9)


@given(
    st.builds(
        State,
        run=_NAMES,
        other=_NAMES,
        test=_NAMES,
        head=_HEADS,
        selected=st.lists(_HEADS, unique=True, max_size=5).map(tuple),
        probe=_NAMES,
        against=_NAMES,
        roles=st.lists(_ROLES, max_size=3).map(tuple),
        least=st.none() | st.sampled_from([0.0, -0.25, 0.5, 1e6]),
        layers=st.none() | st.tuples(st.integers(0, 9), st.integers(9, 80)),
        kv=st.none() | st.integers(0, 64),
        search=_NAMES,
        model=_NAMES,
        sort=_NAMES,
    )
)
def test_a_state_is_read_from_what_it_wrote(state: State) -> None:
    assert State.parse(state.query()) == state


@given(st.text())
def test_any_query_is_a_state(query: str) -> None:
    assert isinstance(State.parse(query), State)


@pytest.mark.parametrize(
    "query",
    [
        "?head=<script>&sel=L1H2,nonsense,L1H2,L99999999999999999999H1&min=nan&layers=9-2&kv=-1",
        "?head=L1&layers=a-b&min=1e999&kv=²&theme=pink",
    ],
)
def test_what_makes_no_sense_is_left_out(query: str) -> None:
    state = State.parse(query)
    assert (state.head, state.least, state.layers, state.kv, state.theme) == (
        "", None, None, None, "light"
    )  # fmt: skip
    assert state.selected in ((), ("L1H2", "L99999999999999999999H1"))


def test_a_huge_selection_is_cut_and_a_link_keeps_what_it_does_not_change() -> None:
    heads = ",".join(f"L{i}H{j}" for i in range(200) for j in range(200))
    assert len(State.parse(f"?sel={heads}").selected) < 4_000
    state = State.parse("?run=abc&sel=L1H2,L3H4&role=sink&q=a b")
    assert (
        state.link("/head", head="L1H2") == "/head?run=abc&head=L1H2&sel=L1H2,L3H4&role=sink&q=a+b"
    )
