"""A meter without a clock, baselines for the CPU, and small profiles."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams
from torch.nn.attention import SDPBackend

from headscope.attention import Attention
from headscope.bench import decode
from headscope.bench.baselines import Baseline, Runnable
from headscope.bench.baselines.sdpa import _Sdpa
from headscope.bench.case import Case
from headscope.bench.meters import Call, Meter
from headscope.patterns import Full, Streaming
from headscope.patterns.rules import Rule
from headscope.sparsity.engine import attend_by_reference
from headscope.sparsity.profile import ProfiledModel, SparseProfile

STREAM = Streaming(4, 40)


def interpreted(patch: pytest.MonkeyPatch) -> None:
    """Kernels are decorated when a test first imports them, with this set."""
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        patch.setenv("TRITON_INTERPRET", "1")


def copying_little(patch: pytest.MonkeyPatch) -> None:
    """Of what is copied to see how fast that is."""
    patch.setattr(decode, "_COPIED", 2**12)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreted(monkeypatch)


class Counted(Meter):
    """Runs calls and says of each round what it was told to say."""

    device = torch.device("cpu")
    name = "a device of a test"

    def __init__(self, times: Iterator[Sequence[float]] | None = None) -> None:
        self.times, self.orders, self.warmed = times, [], 0

    def warm(self, calls: Sequence[Call]) -> None:
        self.warmed += len(calls)

    def round(self, calls: Sequence[Call]) -> list[float]:
        self.orders.append(list(calls))
        for call in calls:
            call()
        return [2.0] * len(calls) if self.times is None else list(next(self.times))

    def seconds(self, call: Call) -> float:
        call()
        return 0.5

    def peak(self, call: Call) -> int:
        return 1_000_000

    def captured(self, call: Call) -> Call:
        return call


class Plain(_Sdpa):
    """Dense attention on the CPU."""

    name = "plain"
    backend = SDPBackend.MATH

    def takes(self, asked: SDPAParams) -> bool:
        return True

    def why_not_these(self, *args: Any, **options: Any) -> None:
        return None


class Reference(Baseline):
    """The rules by the reference in torch, and a share of noise."""

    name = "reference"

    def __init__(self, name: str = "reference", noise: float = 0.0) -> None:
        self.name, self.noise = name, noise  # type: ignore[misc]

    def why_not(self, case: Case) -> str | None:
        return None

    def ready(self, case: Case) -> Runnable:
        def call() -> Tensor:
            z = attend_by_reference(case.attention(), case.rules).z
            return z + self.noise * z.flip(2)

        return Runnable(call, call, 0.25)


class Broken(Baseline):
    name = "broken"

    def why_not(self, case: Case) -> str | None:
        return None

    def ready(self, case: Case) -> Runnable:
        raise RuntimeError("no such\nthing")


class Unfit(Broken):
    name = "unfit"

    def why_not(self, case: Case) -> str | None:
        return "it is Tuesday"


AGAINST_ON_CPU = (Plain(), Reference())


def profile(rows: Sequence[Sequence[Rule]], d_head: int = 64, kv_heads: int = 2) -> SparseProfile:
    model = ProfiledModel(
        name="made up", layers=tuple(range(len(rows))), n_heads=len(rows[0]),
        n_kv_heads=kv_heads, d_head=d_head,
    )  # fmt: skip
    return SparseProfile.of(model, rows, notes={"planned": "kv=0.5", "loss": "output"})


def half(d_head: int = 64) -> SparseProfile:
    """Three layers of two kinds."""
    mixed = [Full()] * 2 + [STREAM] * 2
    return profile([mixed, [STREAM] * 4, mixed], d_head)


def positions_only(n: int, heads: int = 4) -> Attention:
    """An attention of which only lengths matter."""
    x = torch.zeros(1, heads, n, 1)
    return Case((Full(),) * heads, x, x, x).attention()
