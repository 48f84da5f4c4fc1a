"""Lists of what was chosen: every chosen key once and in order, and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from waiting import never_waiting

from headscope.errors import HeadscopeError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHARES = st.sampled_from([0.0, 0.03, 0.5, 1.0])


def some(shape: tuple[int, ...], share: float, seed: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share).to(DEVICE)


def check_blocks(blocks: Tensor, block: int, first: int, most: int | None = None) -> None:
    from headscope.kernels.lists import block_lists

    found = block_lists(blocks, block, first, most)
    tiles, counts = found.tiles.cpu(), found.counts.cpu()
    per = block // 64
    for b, h, i in torch.cartesian_prod(*map(torch.arange, blocks.shape[:3])).tolist():
        row = blocks[b, h, i, : first + i].nonzero()[:, 0].tolist()
        want = [j * per + part for j in row for part in range(per)]
        assert tiles[b, h, i, : counts[b, h, i]].tolist() == want


def check_columns(columns: Tensor, first: int) -> None:
    from headscope.kernels.lists import column_lists

    found = column_lists(columns, first)
    n_tiles = -(-(first + columns.shape[2]) // 64)
    assert found.before.shape[2] == n_tiles + 1
    assert found.bits.shape[2] == n_tiles
    bit = torch.arange(64)
    for b, h in torch.cartesian_prod(*map(torch.arange, columns.shape[:2])).tolist():
        want = columns[b, h].nonzero()[:, 0].cpu() + first
        before = found.before[b, h].cpu()
        assert found.index[b, h, : before[-1]].tolist() == want.tolist()
        assert before.tolist() == [int((want < 64 * t).sum()) for t in range(n_tiles + 1)]
        set_ = (found.bits[b, h].cpu()[:, None] >> bit & 1).flatten().nonzero()[:, 0]
        assert set_.tolist() == want.tolist()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_tiles_are_those_of_chosen_earlier_blocks(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, most)) for most in (2, 2, 4, 70))
    share, seed = data.draw(SHARES), data.draw(st.integers(0, 99))
    block, first = data.draw(st.sampled_from([64, 128, 192])), data.draw(st.integers(0, 80))
    check_blocks(some(shape, share, seed), block, first)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_columns_are_those_chosen(data: st.DataObject) -> None:
    shape = (*(data.draw(st.integers(1, 2)) for _ in range(2)), data.draw(st.integers(1, 300)))
    columns = some(shape, data.draw(SHARES), data.draw(st.integers(0, 99)))
    check_columns(columns, data.draw(st.sampled_from([0, 0, 1, 63, 64, 200])))


def test_rows_of_several_chunks() -> None:
    blocks = some((1, 1, 3, 2500), 0.4, 0)
    check_blocks(blocks, 64, 2400)
    check_blocks(blocks[..., ::2], 64, 1200)
    check_columns(some((1, 1, 2100), 0.4, 0), 5)
    check_columns(some((1, 1, 2100), 0.4, 0)[..., ::3], 0)


def test_a_bound_keeps_lists_short_and_writes_nothing_behind_them() -> None:
    from headscope.kernels.lists import block_lists

    blocks = torch.zeros(1, 1, 4, 50, dtype=torch.bool, device=DEVICE)
    blocks[..., ::10] = True
    check_blocks(blocks, 128, 40, most=5)
    assert block_lists(blocks, 128, 40, most=5).tiles.shape == (1, 1, 4, 10)
    short = block_lists(blocks, 64, 40, most=2)
    assert short.tiles.shape == (1, 1, 4, 2)
    assert short.tiles.tolist() == [[[[0, 10]] * 4]]
    assert short.counts.tolist() == [[[2] * 4]]


def test_tiles_are_wide_where_they_have_to_be() -> None:
    from headscope.kernels.lists import block_lists

    blocks = torch.zeros(1, 1, 1, 2**14, dtype=torch.bool, device=DEVICE)
    blocks[..., -1] = True
    found = block_lists(blocks, 128, 2**14)
    assert found.tiles.dtype == torch.int32
    assert found.tiles[0, 0, 0, :2].tolist() == [2**15 - 2, 2**15 - 1]
    assert block_lists(blocks[..., 1:], 128, 2**14).tiles.dtype == torch.int16


def test_nothing_to_pack() -> None:
    from headscope.kernels.lists import block_lists, column_lists

    assert block_lists(
        torch.zeros(1, 2, 3, 0, dtype=torch.bool, device=DEVICE), 64, 0
    ).counts.tolist() == [[[0] * 3] * 2]
    found = column_lists(torch.zeros(1, 1, 0, dtype=torch.bool, device=DEVICE), 65)
    assert found.before.tolist() == [[[0, 0, 0]]]
    assert found.bits.tolist() == [[[0, 0]]]
    with pytest.raises(HeadscopeError, match="blocks of 96 do not fit"):
        block_lists(torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=DEVICE), 96, 0)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_long_lists_on_a_gpu_and_no_waiting_for_it() -> None:
    from headscope.kernels.lists import block_lists, column_lists

    blocks, columns = some((1, 4, 128, 1100), 0.3, 0), some((2, 3, 70_001), 0.01, 1)
    check_blocks(blocks, 64, 980)
    check_columns(columns, 3)
    with never_waiting():
        block_lists(blocks, 64, 980)
        column_lists(columns, 3)
