"""On a GPU: a small bench with all baselines, and the command."""

import json
from pathlib import Path

import pytest
import torch
from bench_cases import profile
from test_bench_command import headscope

from headscope.bench.baselines import chosen_baselines
from headscope.bench.meters import GpuMeter
from headscope.bench.running import bench
from headscope.patterns import Full, Streaming
from headscope.patterns.selectors.block_top_k import BlockTopK
from headscope.sparsity.profile import SparseProfile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STREAM = Streaming(128, 512)


def mixed() -> SparseProfile:
    blocks = BlockTopK(block=128, blocks=4)
    return profile(
        [[Full()] * 4 + [STREAM] * 4, [Full(), STREAM] * 4, [blocks] * 4 + [STREAM] * 4], d_head=128
    )


@pytest.mark.filterwarnings("default")  # torch.compile's own are not ours to answer for
@pytest.mark.usefixtures("traceable")
def test_every_baseline_gives_what_headscope_gives() -> None:
    found = bench(
        mixed(), (4096,), GpuMeter(torch.device("cuda")), chosen_baselines(["all"]),
        batches=(1, 2), rounds=3,
    )  # fmt: skip
    aligned, uneven, chosen = found.prefill
    assert {"cudnn", "flash", "two_launch", "flex"} <= set(aligned.others)
    assert "two_launch" in uneven.left_out
    assert {"two_launch", "flex"} <= set(chosen.left_out)
    assert chosen.lists is not None
    assert chosen.attention is not None
    assert chosen.attention.ms.median < chosen.ours.ms.median * 1.2
    for row in found.prefill:
        assert all(one.ms.median > 0 and (one.peak_bytes or 0) > 0 for one in row.others.values())
        assert all((one.difference or 0) <= 0.02 for one in row.others.values())
    assert [row.batch for row in found.decode] == [1, 1, 2, 2]
    assert all(0 < row.share.median < 1.5 for row in found.decode)


def test_an_event_encloses_the_device_s_work_alone() -> None:
    """Two calls that differ only by how long the host takes for them."""
    import time

    x = torch.randn(2048, 2048, device="cuda")
    meter = GpuMeter(torch.device("cuda"))

    def slow() -> torch.Tensor:
        time.sleep(2e-3)
        return x @ x

    meter.warm([slow, lambda: x @ x])
    found = [meter.round([slow, lambda: x @ x]) for _ in range(5)]
    assert min(one for one, _ in found) < 1.5
    assert meter.peak(lambda: torch.empty(2**20, device="cuda")) >= 2**22


@pytest.mark.filterwarnings("default")
def test_the_command(tmp_path: Path) -> None:
    path = mixed().save(tmp_path / "mixed.json")
    code, out, err = headscope(
        "bench", path, "--lengths", 2048, "--against", "cudnn,flash", "--rounds", 2, "--batch", 1,
        "--json", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [row["n"] for row in told["prefill"]] == [2048] * 3
    assert (tmp_path / "mixed-bench" / "bench.svg").exists()
