"""Attention over the tiles that each head sees: one program for 64 queries of one head.

A program reads from its descriptor which key tiles it computes: runs of whole tiles by arithmetic,
further whole tiles from a list, tiles that are seen in part with their bits, and for heads whose
keys were chosen by content the chosen tiles, its own block, and single columns. Whole tiles are
spared the code for masks. Where few of them stand before each tile that needs it, one loop computes
both, since the first fetches of a loop are waited for.
"""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportAssignmentType=false

import triton
import triton.language as tl

from headscope.kernels.logits import capped, load_tile


@triton.jit
def _logits(q, k, scale, softcap, SOFTCAP: tl.constexpr):
    """Products, and what makes powers of two of them."""
    s = tl.dot(q, k.T)
    factor = scale * 1.4426950408889634
    if SOFTCAP:
        s = capped(s, 2 * factor / softcap, softcap, SOFTCAP)
        factor = 1.4426950408889634
    return s, factor


@triton.jit
def _fold(s, factor, v, acc, total, top, MASKED: tl.constexpr):
    """One tile into the running softmax; MASKED where a row may have seen nothing so far."""
    highest = tl.maximum(top, tl.max(s, 1) * factor)
    base = highest
    if MASKED:
        base = tl.where(highest == float("-inf"), 0.0, highest)
    p = tl.exp2(s * factor - base[:, None])
    shrink = tl.exp2(top - base)
    total = total * shrink + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
    return acc, total, highest


@triton.jit
def _visit(
    q, k_in, v_in, at, seen, acc, total, top, batch, kv_head, n_keys, key_stop,
    k_b, k_h, k_n, v_b, v_h, v_n, scale, softcap, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
    TMA: tl.constexpr, SOFTCAP: tl.constexpr, PACKED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The 64 keys from index `at` on: all of them, or where MASKED those that are `seen`."""
    k = load_tile(k_in, batch, kv_head, at, n_keys, k_b, k_h, k_n, 64, WIDTH, BLOCK_D, TMA, MASKED)
    v = load_tile(v_in, batch, kv_head, at, n_keys, v_b, v_h, v_n, 64, WIDTH, BLOCK_D, TMA, MASKED)
    if MASKED and PACKED:
        v = tl.where((at + tl.arange(0, 64) < key_stop)[:, None], v, 0.0)
    s, factor = _logits(q, k, scale, softcap, SOFTCAP)
    if MASKED:
        s = tl.where(seen, s, float("-inf"))
    return _fold(s, factor, v, acc, total, top, MASKED)


@triton.jit
def _near(mine, masks, n_edges, i, row, NEAR: tl.constexpr):
    """The i-th of four tiles that are seen in part, and its bits, as a descriptor names them."""
    tile, mask = tl.load(mine + NEAR + i), tl.load(mine + NEAR + 4 + i)
    there = row < tl.where(n_edges > i, 64, 0)
    return tile, tl.load(masks + mask.to(tl.int64) * 64 + row, mask=there, other=0)


@triton.jit
def _seen(word, column):
    return ((word[:, None] >> column[None, :].to(tl.int64)) & 1) != 0


@triton.jit
def _by_rank(i, a, b, c, d):
    """One of four."""
    return tl.where(i == 0, a, tl.where(i == 1, b, tl.where(i == 2, c, d)))


# Lengths and what follows from them change with every prompt.
_NOT_SPECIAL = ["n_queries", "n_keys", "group", "lse_b", "lse_h"]


@triton.jit(do_not_specialize=_NOT_SPECIAL)
def prefill(
    q_in, k_in, v_in, k_raw, v_raw, z_out, lse_out,
    descriptors, whole, partly, bits, masks, selections,
    scale, softcap, n_queries, n_keys, group,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, z_b, z_h, z_n, lse_b, lse_h,
    N_FIELDS: tl.constexpr, NEAR: tl.constexpr, N_SELECTION: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, SOFTCAP: tl.constexpr,
    LISTS: tl.constexpr, MORE: tl.constexpr, JOINED: tl.constexpr, CHOSEN: tl.constexpr,
    COLUMNS: tl.constexpr, PACKED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """
    Args:
        q_in, k_in, v_in: descriptors of the tensors where TMA is set, else pointers as the raw.
        z_out, lse_out: [batch, head, query, d] and [batch, head, query], natural logarithm.
        descriptors: int32 [program, FIELDS], longest first; the first of four near tiles stands at
            NEAR.
        whole, partly, bits, masks: of all patterns; see `headscope.kernels.tiles.Tiling`.
        selections: int64 [selection, ..], addresses; see `headscope.kernels.chosen`.
        LISTS, MORE, CHOSEN: whether some head has lists of whole tiles, more tiles that are seen in
            part than stand in its descriptor, or keys chosen by content.
        JOINED: one loop for tiles that are seen as a whole and in part; not without TMA, nor where
            PACKED, where more is masked than logits, nor with more ROWS than a square of bits has.
        COLUMNS: whether single keys are among these.
        PACKED: whether keys of other sequences follow those of a sequence.
        ROWS: queries of a program; 128 where all keys are chosen, in blocks of that many queries.
    """
    # All that it says is asked for before anything waits for it.
    mine = descriptors + tl.program_id(0).to(tl.int64) * N_FIELDS
    batch, head, tile = tl.load(mine), tl.load(mine + 1), tl.load(mine + 2)
    query_base, query_start, query_stop = tl.load(mine + 3), tl.load(mine + 4), tl.load(mine + 5)
    key_base, key_stop = tl.load(mine + 6), tl.load(mine + 7)
    run_a, n_a = tl.load(mine + 8), tl.load(mine + 9)
    run_b, n_b = tl.load(mine + 10), tl.load(mine + 11)
    n_runs = n_a + n_b
    n_whole = n_runs
    if LISTS:
        lists = tl.load(mine + 12)
        n_whole += tl.load(mine + 13)
    edges, n_edges = tl.load(mine + 14), tl.load(mine + 15)
    row, column = tl.arange(0, ROWS), tl.arange(0, 64)
    if JOINED:
        tile_0, word_0 = _near(mine, masks, n_edges, 0, row, NEAR)
        tile_1, word_1 = _near(mine, masks, n_edges, 1, row, NEAR)
        tile_2, word_2 = _near(mine, masks, n_edges, 2, row, NEAR)
        tile_3, word_3 = _near(mine, masks, n_edges, 3, row, NEAR)
    if CHOSEN:
        selection = tl.load(mine + 16)
        here = selection >= 0
        its = selections + tl.maximum(selection, 0).to(tl.int64) * N_SELECTION
        size, first_row = tl.load(its + 5).to(tl.int32), tl.load(its + 6).to(tl.int32)
        n_blocks, n_tiles = tl.load(its + 8).to(tl.int32), tl.load(its + 10).to(tl.int32)
        own = tile // (size // 64)
        first = own * (size // 64)
        of_head = batch * tl.load(its + 4) + tl.load(mine + 17)
        of_row = of_head * tl.load(its + 7) + (own - first_row)
        chosen = tl.load(its).to(tl.pointer_type(tl.int8)) + of_row * n_blocks
        tiles = tl.load(its + 1).to(tl.pointer_type(tl.int16)) + of_row * tl.load(its + 9)
        counts = tl.load(its + 2).to(tl.pointer_type(tl.int32))
        n_chosen = tl.load(counts + of_row, mask=here, other=0)
        own_seen = tl.load(chosen + own, mask=here & (own < n_blocks), other=0) != 0
        column_bits = tl.load(its + 12).to(tl.pointer_type(tl.int64)) + of_head * n_tiles
    kv_head = head // group
    query = query_base + tile * 64 + row
    q = load_tile(q_in, batch, head, query_base + tile * 64, n_queries, q_b, q_h, q_n,
                  ROWS, WIDTH, BLOCK_D, TMA, True)  # fmt: skip
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)

    for i in range(n_whole + n_edges if JOINED else n_whole):
        place = tl.where(i < n_a, run_a + i, run_b + i - n_a)
        if LISTS:
            listed = (i >= n_runs) & (i < n_whole)
            further = tl.load(whole + lists + i - n_runs, mask=listed, other=0).to(tl.int32)
            place = tl.where(i >= n_runs, further, place)
        if JOINED:
            edge = i >= n_whole
            j = i - n_whole
            in_part = _by_rank(j, tile_0, tile_1, tile_2, tile_3)
            if MORE:
                later = tl.load(partly + edges + j, mask=j > 3, other=0).to(tl.int32)
                in_part = tl.where(j > 3, later, in_part)
            place = tl.where(edge, in_part, place)
        at = key_base + 64 * place
        k = load_tile(k_in, batch, kv_head, at, n_keys, k_b, k_h, k_n, 64, WIDTH, BLOCK_D, TMA,
                      False)  # fmt: skip
        v = load_tile(v_in, batch, kv_head, at, n_keys, v_b, v_h, v_n, 64, WIDTH, BLOCK_D, TMA,
                      False)  # fmt: skip
        s, factor = _logits(q, k, scale, softcap, SOFTCAP)
        if JOINED:  # noqa: SIM102  this is known when it is compiled, and the next is not
            if edge:
                word = _by_rank(j, word_0, word_1, word_2, word_3)
                if MORE:
                    which = tl.load(bits + edges + j, mask=j > 3, other=0).to(tl.int64)
                    behind = row < tl.where(j > 3, 64, 0)
                    later_word = tl.load(masks + which * 64 + row, mask=behind, other=0)
                    word = tl.where(j > 3, later_word, word)
                s = tl.where(_seen(word, column), s, float("-inf"))
        acc, total, top = _fold(s, factor, v, acc, total, top, JOINED)
    if not JOINED:
        for i in range(n_edges):
            at = key_base + 64 * tl.load(partly + edges + i).to(tl.int32)
            word = tl.load(masks + tl.load(bits + edges + i).to(tl.int64) * 64 + row)
            acc, total, top = _visit(
                q, k_in, v_in, at, _seen(word, column), acc, total, top, batch, kv_head, n_keys,
                key_stop, k_b, k_h, k_n, v_b, v_h, v_n, scale, softcap,
                WIDTH, BLOCK_D, TMA, SOFTCAP, PACKED, True,
            )  # fmt: skip
    if CHOSEN:
        # No branch around these loops: values that leave one are moved, and slow every loop down.
        for i in range(n_chosen):
            at = key_base + 64 * tl.load(tiles + i).to(tl.int32)
            acc, total, top = _visit(
                q, k_in, v_in, at, 0, acc, total, top, batch, kv_head, n_keys, key_stop,
                k_b, k_h, k_n, v_b, v_h, v_n, scale, softcap,
                WIDTH, BLOCK_D, TMA, SOFTCAP, PACKED, False,
            )  # fmt: skip
        # Fewer stages than elsewhere: with as many, two programs would not fit a multiprocessor.
        for i in tl.range(tl.where(here, tile + ROWS // 64 - first, 0), num_stages=2):
            at = key_base + 64 * (first + i)
            word = tl.load(column_bits + first + i, mask=first + i < n_tiles, other=0)
            seen = own_seen | (((word >> column.to(tl.int64)) & 1) != 0)
            seen = seen[None, :] & ((first + i) * 64 + column[None, :] <= tile * 64 + row[:, None])
            acc, total, top = _visit(
                q, k_in, v_in, at, seen, acc, total, top, batch, kv_head, n_keys, key_stop,
                k_b, k_h, k_n, v_b, v_h, v_n, scale, softcap,
                WIDTH, BLOCK_D, TMA, SOFTCAP, PACKED, True,
            )  # fmt: skip
        if COLUMNS:
            before = tl.load(its + 11).to(tl.pointer_type(tl.int32)) + of_head * (n_tiles + 1)
            n_columns = tl.load(before + first, mask=here & (n_tiles > 0), other=0)
            columns = tl.load(its + 3).to(tl.pointer_type(tl.int32)) + of_head * tl.load(its + 13)
            wide = tl.arange(0, BLOCK_D)
            k_head = k_raw + batch.to(tl.int64) * k_b + kv_head.to(tl.int64) * k_h + wide[None, :]
            v_head = v_raw + batch.to(tl.int64) * v_b + kv_head.to(tl.int64) * v_h + wide[None, :]
            for c in tl.range(0, n_columns, 64, num_stages=2):
                some = c + column < n_columns
                position = tl.load(columns + c + column, mask=some, other=0)
                block = position // size
                listed = tl.load(chosen + block, mask=some & (block < n_blocks), other=0)
                place = (key_base + position).to(tl.int64)[:, None]
                held = some[:, None] & (wide < WIDTH)[None, :]
                k = tl.load(k_head + place * k_n, mask=held, other=0.0)
                v = tl.load(v_head + place * v_n, mask=held, other=0.0)
                seen = (some & (listed == 0))[None, :]
                s, factor = _logits(q, k, scale, softcap, SOFTCAP)
                s = tl.where(seen, s, float("-inf"))
                acc, total, top = _fold(s, factor, v, acc, total, top, True)

    blind = total == 0
    z = acc / tl.where(blind, 1.0, total)[:, None]
    # Added before it is multiplied, which no compiler makes one instruction of in one kernel only:
    # the same row has the same bits whatever it was compiled for.
    lse = (top + tl.log2(tl.where(blind, 1.0, total))) * 0.6931471805599453
    lse = tl.where(blind, float("-inf"), lse)
    asked = (query >= query_start) & (query < query_stop)
    wide = tl.arange(0, BLOCK_D)
    to = z_out + batch.to(tl.int64) * z_b + head.to(tl.int64) * z_h
    to = to + query[:, None].to(tl.int64) * z_n + wide[None, :]
    held = asked[:, None]
    if WIDTH < BLOCK_D:
        held = held & (wide < WIDTH)[None, :]
    tl.store(to, z.to(z_out.dtype.element_ty), mask=held)
    to = lse_out + batch.to(tl.int64) * lse_b + head.to(tl.int64) * lse_h + query
    tl.store(to, lse, mask=asked)
