"""A profile as the engine of a model: scopes, company, what observers see, and gradients."""

import dataclasses
from pathlib import Path

import oracle
import pytest
import torch
from conftest import opened
from tiny import CONFIGS
from torch import Tensor
from torch.testing import assert_close

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.evals.describing import described, parsed
from headscope.evals.evaluate import evaluate
from headscope.interventions.ablate import Ablate
from headscope.interventions.snap_kv import SnapKV
from headscope.interventions.sparse_attention import SparseAttention
from headscope.model import HeadModel
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile
from headscope.sparsity.engine import even_groups

TOKENS = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(3))


def mixed(model: HeadModel) -> SparseProfile:
    some = {head: Streaming(1, 4) for head in model.heads if sum(head) % 2}
    some |= {head: Streaming(0, 3, growth=0.2) for head in model.heads if sum(head) % 3 == 0}
    return SparseProfile.of(model, some)


def hidden(profile: SparseProfile, layer: int) -> Tensor:
    """[head, query, key]: -inf where a rule hides a key, row by row."""
    extra = torch.zeros(len(profile.of_layer(layer)), 24, 24, dtype=torch.float64)
    for head, rule in enumerate(profile.of_layer(layer)):
        for query in range(24) if isinstance(rule, Streaming) else ():
            window = rule.window + int(rule.growth * (query + 1))
            extra[head, query, rule.sink : max(rule.sink, query - max(window, 1) + 1)] = -torch.inf
    return extra


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_observers_see_the_rows_that_were_run(name: str) -> None:
    model = opened(name)
    profile, seen = mixed(model), []

    def look(attended: Attended) -> None:
        want = oracle.dense(attended.attention, hidden(profile, attended.attention.layer))
        assert_close(attended.z.double(), want.z, atol=1e-5, rtol=1e-4)
        assert_close(attended.lse.double(), want.lse, atol=1e-4, rtol=1e-4)
        rows = attended.attention.rows(None).double()
        assert_close(rows, want.pattern, atol=1e-5, rtol=1e-4)
        seen.append(attended.attention.layer)

    with SparseAttention(profile)(model), model.observed(look):
        model(TOKENS)
    assert seen == model.layers


def test_what_a_rule_hides_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streaming head reads its sink and window, whatever the text's length."""
    from headscope import engines

    model, widths = opened("llama"), []
    kernel = engines._kernel

    def counted(q, k, v, *rest, **more):
        widths.append(k.shape[2])
        return kernel(q, k, v, *rest, **more)

    monkeypatch.setattr(engines, "_kernel", counted)
    everywhere = SparseProfile.of(model, {}, rest=Streaming(2, 8))
    tokens = torch.arange(3, 51).repeat(8)[None, :384] % 97
    model.context_length, before = 512, model.context_length
    try:
        with SparseAttention(everywhere)(model):
            model(tokens)
    finally:
        model.context_length = before
    assert max(widths) <= 2 + 8 + 128  # a block has 128 rows


def test_scopes(tmp_path: Path) -> None:
    model = opened("llama")
    profile = mixed(model)
    plain = model(TOKENS)
    with SparseAttention(profile)(model):
        sparse = model(TOKENS)
        with pytest.raises(HeadscopeError, match="Another engine"), SparseAttention(profile)(model):
            pass
        assert_close(model(TOKENS), sparse, atol=0, rtol=0)
    assert_close(model(TOKENS), plain, atol=0, rtol=0)
    assert (sparse - plain).abs().max() > 1e-2
    full = SparseAttention(SparseProfile.of(model, {}))
    with full(model):
        assert_close(model(TOKENS), plain, atol=0, rtol=0)
    other = SparseProfile.of(opened("llama_mqa"), {})
    with pytest.raises(HeadscopeError, match="Plan one"), SparseAttention(other)(model):
        pass
    path = profile.save(tmp_path / "profile.json")
    (found,) = parsed(f"sparse_attention:profile={path},part=decode", model)
    assert found == SparseAttention(profile, "decode")
    assert described(found).startswith("sparse_attention:profile=sparseprofile#")
    with pytest.raises(HeadscopeError, match="nothing"):
        parsed(f"sparse_attention:profile={tmp_path / 'nothing.json'}", model)


@pytest.mark.parametrize("first", [True, False])
def test_it_is_innermost_whichever_scope_came_first(first: bool) -> None:
    model = opened("llama")
    sparse, out = SparseAttention(mixed(model)), Ablate(["L0H1", "L1H2"])
    outer, inner = (sparse, out) if first else (out, sparse)
    with outer(model), inner(model):
        found = model(TOKENS)
    with sparse(model), model.entered(lambda a, attend: _without(a.layer, attend(a))):
        want = model(TOKENS)
    assert_close(found, want, atol=1e-6, rtol=1e-6)


def _without(layer: int, attended: Attended) -> Attended:
    gone = {0: 1, 1: 2}.get(layer)
    if gone is None:
        return attended
    z = attended.z.clone()
    z[:, gone] = 0
    return attended.with_z(z)


def test_a_method_that_keeps_less_of_a_cache_works_beside_it() -> None:
    model = opened("llama")
    with SparseAttention(mixed(model))(model), SnapKV(8, 4)(model):
        both = model.generate(TOKENS, max_new_tokens=3)
    assert both.shape == (2, 3)


def test_gradients_are_those_of_the_masked_pattern() -> None:
    model = opened("llama")
    profile = mixed(model)
    kept = []
    with model.observed(lambda attended: kept.append(attended.attention)):
        model(TOKENS[:1])
    engine = SparseAttention(profile).engine()
    leaves = [kept[1].q.detach().clone().requires_grad_(), kept[1].k.detach().clone()]
    attention = dataclasses.replace(kept[1], q=leaves[0], k=leaves[1], known_lse=None)
    with torch.enable_grad():
        engine(attention).z.square().sum().backward()
        found = leaves[0].grad
        q = leaves[0].detach().double().requires_grad_()
        exact = dataclasses.replace(attention, q=q, k=attention.k.double(), v=attention.v.double())
        oracle.dense(exact, hidden(profile, 1)).z.square().sum().backward()
    assert q.grad is not None
    assert_close(found.double(), q.grad, atol=1e-4, rtol=1e-3)


def test_heads_of_a_rule_are_cut_so_that_groups_stay_even() -> None:
    a, b = Streaming(1, 2), Full()
    rules = [a, a, b, a, b, b, b, b, b, a, a, a]  # three of each KV head
    found = list(even_groups(rules, 3))
    assert sorted(head for _, heads in found for head in heads) == list(range(12))
    for rule, heads in found:
        assert all(rules[head] == rule for head in heads)
        counts = {kv: sum(head // 3 == kv for head in heads) for kv in {h // 3 for h in heads}}
        assert len(set(counts.values())) == 1


def test_profiles_are_compared_by_evals(tmp_path: Path) -> None:
    model = opened("llama")
    profile = SparseAttention(mixed(model))
    result = evaluate(
        model, ["induction"], samples=6, lengths=(31,), changes={"profile": profile},
        out=tmp_path / "evals.json",
    )  # fmt: skip
    measured = result.tasks[0]
    assert measured.done == 6
    assert (measured.values(0) != measured.values(1)).any()
