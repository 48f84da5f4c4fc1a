"""The fingerprint of weights: what it is made of, what changes it, and how often a device waits."""

from collections.abc import Iterable
from hashlib import sha256

import pytest
import torch
from torch import Tensor, nn

from headscope.fingerprint import fingerprint


def by_hand(parameters: Iterable[Tensor]) -> str:
    """One parameter after the other, as saved runs and profiles have it."""
    samples = set()
    for one in parameters:
        flat = one.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 1000)].contiguous()
        samples.add(repr(tuple(one.shape)).encode() + some.view(torch.uint8).numpy().tobytes())
    return sha256(b"".join(sorted(samples))).hexdigest()


def some_parameters() -> list[Tensor]:
    """Of many types, sizes and layouts, some of them twice."""
    torch.manual_seed(0)
    wide = torch.randn(70, 90)
    types = (torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.bool)
    return [
        wide,
        wide.clone(),
        wide.T,
        wide[:, ::3],
        torch.randn(999).requires_grad_(),
        torch.randn(1999),
        torch.randn(()),
        torch.randn(0, 3),
        torch.randint(9, (40, 50), dtype=torch.int8),
        *(torch.randn(30, 41).to(dtype) for dtype in types),
    ]


def test_it_is_what_is_written_in_saved_profiles() -> None:
    parameters = some_parameters()
    assert fingerprint(parameters) == by_hand(parameters)
    assert fingerprint(reversed(parameters)) == by_hand(parameters)
    with torch.inference_mode():
        assert fingerprint(some_parameters()) == by_hand(parameters)
    fixed = [
        torch.arange(3000, dtype=torch.float32).reshape(3, -1),
        torch.ones(2, dtype=torch.int8),
    ]
    assert fingerprint(fixed) == (
        "a4c9fcb41a1e0a14ca534affa7fc277b6b231b536060dcf557729f1d2f06114e"
    )


def test_every_way_to_change_weights_is_noticed() -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30))
    first = model[0]
    assert isinstance(first, nn.Linear)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = [fingerprint(model.parameters())]

    def changed() -> bool:
        seen.append(fingerprint(model.parameters()))
        assert seen[-1] == by_hand(model.parameters())
        return len(set(seen)) == len(seen)

    with torch.no_grad():
        first.weight.mul_(2)
    assert changed()
    first.weight.data[0, 0] = 5.0  # leaves no trace in `_version`
    assert changed()
    first.weight.data = first.weight.data + 1
    assert changed()
    first.bias = nn.Parameter(torch.ones(30))
    assert changed()
    model.to(torch.bfloat16)
    assert changed()
    model.to(torch.float32)
    assert changed()
    model.load_state_dict(before)
    assert fingerprint(model.parameters()) == seen[0]


def test_weights_of_one_type_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[torch.dtype] = []
    cpu = Tensor.cpu

    def counted(x: Tensor) -> Tensor:
        copied.append(x.dtype)
        return cpu(x)

    monkeypatch.setattr(Tensor, "cpu", counted)
    fingerprint([torch.zeros(5, 7), torch.zeros(7), torch.zeros(3).half(), torch.zeros(9)])
    assert sorted(map(str, copied)) == ["torch.float16", "torch.float32"]
