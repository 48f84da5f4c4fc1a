"""What each baseline takes, what it builds, and what it says where it cannot."""

from typing import Any

import pytest
import torch
from bench_cases import STREAM
from torch.nn.attention import SDPBackend
from torch.testing import assert_close

from headscope.bench.baselines import BASELINES, chosen_baselines, two_launch
from headscope.bench.baselines.block_masks import block_mask
from headscope.bench.baselines.sdpa import attend
from headscope.bench.inputs import made_case
from headscope.errors import HeadscopeError
from headscope.patterns import Full, Streaming
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.block_top_k import BlockTopK
from headscope.sparsity.engine import attend_by_reference

CPU = torch.device("cpu")


def case(*rules: Rule, n: int = 300):
    return made_case(rules, 2, 32, n, CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "rules", "reason"),
    [
        ("cudnn", (Full(),) * 4, "it runs on GPUs"),
        ("flash", (Full(),) * 4, "it runs on GPUs"),
        ("flex", (Full(), BlockTopK()) * 2, "some rule chooses keys by content"),
        ("flex", (Full(), STREAM) * 2, "compiled for GPUs"),
        ("two_launch", (Full(),) * 4, "beside heads of one streaming rule"),
        ("two_launch", (Full(),) * 2 + (STREAM, Streaming(1, 2)), "of one streaming rule"),
        ("two_launch", (Full(),) * 2 + (Streaming(1, 2, 0.1),) * 2, "of one streaming rule"),
        ("two_launch", (Full(), STREAM) * 2, "no whole KV groups"),
        ("two_launch", (STREAM, STREAM, Full(), Full()), "it runs on GPUs"),
        ("flash_sparse_attn", (Full(), STREAM) * 2, ""),
    ],
)
def test_why_not(name: str, rules: tuple[Rule, ...], reason: str) -> None:
    assert reason in (BASELINES[name].why_not(case(*rules)) or "nothing")


def test_names() -> None:
    assert [each.name for each in chosen_baselines(["all"])] == list(BASELINES)
    assert [each.name for each in chosen_baselines(["flash"])] == ["flash"]
    assert [each.name for each in chosen_baselines(["flex"])] == ["cudnn", "flash", "flex"]
    with pytest.raises(HeadscopeError, match="no baseline 'fast'; name some of cudnn"):
        chosen_baselines(["cudnn", "fast"])


@pytest.mark.parametrize("n", [128, 300])
def test_block_masks_are_those_that_torch_makes(n: int) -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    rules = [Full(), Streaming(128, 70), Streaming(3, 200), Full()]
    for some in (rules, rules[1:2]):
        mask, seconds = block_mask(some, n, CPU)
        assert seconds >= 0
        # Torch counts the arguments of a function, which the hook that checks shapes hides.
        want = create_block_mask(
            lambda b, h, q, k, of=mask: of.mask_mod(b, h, q, k), 1, len(some), n, n, device="cpu"
        )
        assert torch.equal(mask.to_dense(), want.to_dense())
        assert want.full_kv_num_blocks is not None
        assert torch.equal(mask.full_kv_num_blocks, want.full_kv_num_blocks)  # type: ignore[arg-type]


def traced() -> Any:
    """FlexAttention as torch.compile traces it, in one graph, and computed by that graph."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.compiler.reset()
    return torch.compile(flex_attention, dynamic=False, fullgraph=True, backend="eager")


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize(
    "rules",
    [
        (Full(), Full(), STREAM, STREAM),
        (STREAM, STREAM, Full(), Full()),
        (STREAM,) * 4,
    ],
)
def test_two_launches_give_the_layer(
    rules: tuple[Rule, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_launch, "compiled", traced)
    monkeypatch.setattr(two_launch, "attend", lambda backend, *args: attend(SDPBackend.MATH, *args))
    layer = case(*rules)
    runnable = BASELINES["two_launch"].ready(layer)
    assert runnable.joined is not None
    want = attend_by_reference(layer.attention(), rules).z
    assert_close(runnable.joined(), want, atol=1e-5, rtol=1e-5)
    assert len(runnable.call()) == 2  # type: ignore[arg-type]


def test_made_up_texts_are_seeded_and_have_structure() -> None:
    one, again = (made_case((Full(),) * 4, 2, 64, 1000, CPU, torch.float32) for _ in range(2))
    other = made_case((Full(),) * 4, 2, 64, 1000, CPU, torch.float32, seed=1)
    assert torch.equal(one.q, again.q)
    assert not torch.equal(one.q, other.q)
    attention = one.attention()
    sinks = attention.mass(slice(0, 4))[..., 500:]
    assert 0.05 < sinks.mean() < 0.95
    k = torch.nn.functional.normalize(one.k, dim=-1)
    near = (k[:, :, 4:-1] * k[:, :, 5:]).sum(-1).mean()
    far = (k[:, :, 4:-500] * k[:, :, 504:]).sum(-1).mean()
    assert near > 0.15 > far
