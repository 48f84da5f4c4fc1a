"""One rule for each KV head, and what it costs."""

import pytest
import torch
from conftest import opened
from export.expressible import SMALL, a_model
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope import HeadscopeError
from headscope.patterns import Full, Streaming, Strided
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.block_top_k import BlockTopK
from headscope.sparsity import SparseProfile
from headscope.sparsity.kv_view import kv_rules, kv_view

TOP = BlockTopK()


@pytest.mark.parametrize(
    ("rules", "cover"),
    [
        ([Streaming(4, 8)] * 3, Streaming(4, 8)),
        ([TOP] * 3, TOP),
        ([Streaming(4, 8), Full(), TOP], Full()),
        ([Streaming(4, 8), Streaming(9, 2), Streaming(0, 3)], Streaming(9, 8)),
        ([Streaming(4, 8), Streaming(9, -2, 0.5), Streaming(0, 3)], Streaming(9, 8, 0.5)),
        ([Streaming(4, 8), TOP, TOP], Full()),
        ([Strided(), Strided(stride=3), Strided()], Full()),
    ],
)
def test_covers(rules: list[Rule], cover: Rule) -> None:
    profile = SparseProfile.of(a_model(1, 2, 3), [[*rules, *[Full()] * 3]], notes={"by": "hand"})
    view = kv_view(profile)
    assert view.profile.of_layer(0) == (cover,) * 3 + (Full(),) * 3
    assert view.widened == tuple((0, head) for head, rule in enumerate(rules) if rule != cover)
    assert view.profile.notes == {"by": "hand"}
    assert kv_rules(view.profile, "x") == [[cover, Full()]]
    assert kv_view(view.profile).widened == ()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_that_was_seen_is_hidden(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(SMALL, min_size=4, max_size=4), min_size=2, max_size=2))
    profile = SparseProfile.of(a_model(2, 2, 2), rows)
    view = kv_view(profile)
    query, key = torch.arange(40)[:, None], torch.arange(40)[None]
    for layer in (0, 1):
        for old, new in zip(profile.of_layer(layer), view.profile.of_layer(layer), strict=True):
            assert not (old.mask(query, key) & ~new.mask(query, key)).any()  # pyright: ignore
    cost = view.cost(40)
    assert cost.density is not None
    assert cost.density[0] <= cost.density[1]
    assert cost.kv_bytes[0] <= cost.kv_bytes[1]
    assert (cost.widened == ()) == (view.profile == profile)


def test_what_it_costs() -> None:
    model = a_model(1, 1, 2)
    view = kv_view(SparseProfile.of(model, [[Streaming(0, 1), Full()]]))
    cost = view.cost(3)
    assert cost.density == (pytest.approx((0.5 + 1) / 2), 1)
    assert cost.kv_bytes == (3 * 2 * 8 * 2,) * 2  # held for the full head in any case
    assert "1 query heads see more than their rule (L0H0)" in str(cost)
    assert "100.0% of the pairs are computed instead of 75.0%" in str(cost)
    grown = kv_view(SparseProfile.of(model, [[Streaming(4, 2), Streaming(0, 6)]])).cost(20)
    assert grown.kv_bytes == (10 * 2 * 8 * 2,) * 2
    unknown = kv_view(SparseProfile.of(model, [[Streaming(), TOP]])).cost(4096)
    assert (unknown.density is None) == (TOP.density(4096) is None)
    alike = kv_view(SparseProfile.of(model, [[TOP, TOP]])).cost(8)
    assert "costs nothing" in str(alike)
    with pytest.raises(HeadscopeError, match="one token at least"):
        view.cost(0)


def test_different_rules_are_named() -> None:
    profile = SparseProfile.of(opened("llama"), {"L2H4": Full()}, rest=Streaming())
    with pytest.raises(HeadscopeError, match=r"Kv .* L2H3 to L2H5, .*--merge"):
        kv_rules(profile, "Kv")
