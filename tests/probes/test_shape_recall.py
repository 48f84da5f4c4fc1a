"""Planted shapes that one template holds and another misses, block by block."""

import definitions
import pytest
import torch
from conftest import opened
from definitions.shape_recall import PARAMETERS

from headscope import blocks
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.shape_recall import ShapeRecall
from headscope.prompts import Prompt

PROBE = ShapeRecall(**PARAMETERS)


@pytest.mark.parametrize("step", [1, 2**22])
@pytest.mark.parametrize("window", [None, 12])
def test_a_template_holds_what_is_made_for_it(
    step: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads that look at the previous token, at token 40, and seven tokens back."""
    monkeypatch.setitem(blocks._BLOCK, "cpu", step)
    n = 48
    place = torch.eye(n)
    q = 60 * torch.stack([place[[max(i - back, 0) for i in range(n)]] for back in (1, 0, 7)])
    q[1] = 60 * place[40]
    attention = Attention(
        layer=0, q=q[None], k=place[None, None], v=place[None, None, :, :4], scale=1.0,
        query_positions=torch.arange(n)[None], key_positions=torch.arange(n)[None],
        window=window, slots=Slots(0, 0, False),
    )  # fmt: skip
    case = definitions.cases(opened("gpt2"))[0]
    found = PROBE.measure(Attended(attention.z(), attention), case.reading)
    a, lines, best = (found[x] for x in ("shape_a", "shape_vertical_slash", "shape_recall"))
    assert a[0] == pytest.approx(1, abs=1e-4)
    assert a[2] < 0.1
    torch.testing.assert_close(lines[[0, 2]], torch.ones(2), atol=1e-4, rtol=0)
    assert bool((best >= torch.maximum(a, lines)).all())
    # Before token 40 the second head sees nothing that it asks for; from there on, only that.
    assert 0.2 < lines[1] < 1


def test_too_short_a_prompt_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'shape_recall' needs more than 128 tokens"):
        ShapeRecall().check(Prompt(tuple(range(128))))
    ShapeRecall().check(Prompt(tuple(range(129))))
    with pytest.raises(HeadscopeError, match="always between 0 and the smaller"):
        ShapeRecall(always=40)
