"""What all heads see by one pattern runs on the prefill kernel without a profile."""

import pytest
import torch
from test_prefill import DEVICE, layer
from torch.testing import assert_close

from headscope.engines import dense
from headscope.kernels import attending
from headscope.kernels.choice import using
from headscope.patterns import Streaming


@pytest.mark.parametrize("past", [0, 61])
def test_one_pattern_of_all_heads_needs_no_profile(
    past: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dense engine hands it to the kernel; sinks are joined, and edits of heads are not it."""
    ran = []
    attend = attending.attend
    monkeypatch.setattr(attending, "attend", lambda *a: ran.append(1) or attend(*a))
    a = layer(past=past, sink_logits=torch.tensor([0.5, -1.0], device=DEVICE))
    restricted = a.with_pattern(Streaming(3, 40))
    found = dense(restricted)
    assert len(ran) == 1
    with using("reference"):
        want = dense(restricted)
    assert len(ran) == 1
    assert_close(found.z, want.z, atol=4e-3, rtol=4e-3)
    assert_close(found.lse, want.lse.to(found.lse.dtype), atol=1e-3, rtol=1e-3)
    dense(a.with_pattern(Streaming(3, 40), heads=[1]))
    dense(restricted.with_bias(slice(0, 2), 1.0))
    assert len(ran) == 1
