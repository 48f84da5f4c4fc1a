"""The decode step in Triton: one query token per sequence, keys of every head of another length.

The keys that have to be read are cut into tiles, counted over all (sequence, KV head) in a line,
and each program takes as many of them as any other (stream-K; LeanAttention, Sanovar et al. 2024,
arXiv 2405.10480): a program may end in the middle of one head and a head in the middle of a
program. What a program found of a head is a record of its own, joined by a second kernel in the
order of the line, so that the same input gives the same bits. Query heads of a KV head are the rows
of one product. Lengths are read on the device, grids do not depend on them.
"""

# Triton's annotations promise less than its compiler takes.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

_LN2 = tl.constexpr(0.6931471805599453)
_RUNTIME = ("n_units", "n_kv", "group", "least")


@triton.jit
def _ranges(seen, ring_sink, ring_window, sink, window, room):
    """Slots that have to be read: [0, first) and [start, stop), and whether there is room."""
    stop = tl.minimum(seen, ring_sink) + tl.minimum(tl.maximum(seen - ring_sink, 0), ring_window)
    start = tl.maximum(seen - window, 0)
    apart = sink < start
    start = tl.where(apart, start, 0)
    fits = stop <= room
    return tl.where(apart & fits, sink, 0), start, tl.where(fits, stop, start), fits


@triton.jit
def _ranges_of(unit, real, seen, places, reads, n_kv):
    """The same for units, one or many: unit = sequence * n_kv + KV head."""
    mine = reads + (unit % n_kv) * 5
    return _ranges(
        tl.load(seen + unit // n_kv, mask=real, other=0),
        tl.load(mine, mask=real, other=0),
        tl.load(mine + 1, mask=real, other=0),
        tl.load(mine + 2, mask=real, other=0),
        tl.load(mine + 3, mask=real, other=0),
        tl.load(places + (unit % n_kv) * 7 + 6, mask=real, other=0),
    )


@triton.jit
def _tiles(seen, places, reads, n_units, n_kv, UNITS: tl.constexpr, TILE: tl.constexpr):
    """Tiles of every unit."""
    unit = tl.arange(0, UNITS)
    first, start, stop, _ = _ranges_of(unit, unit < n_units, seen, places, reads, n_kv)
    return tl.cdiv(first, TILE) + tl.cdiv(stop - start, TILE)


@triton.jit
def _fold(q, k, v, seen, m, sums, acc, scale, softcap, CAPPED: tl.constexpr, MASKED: tl.constexpr):
    """One tile into the running maximum (of base 2), sum and product of every row."""
    logits = tl.dot(q, tl.trans(k)) * scale
    if CAPPED:
        # tanh(x) = 1 - 2 / (exp(2 x) + 1), with base 2 and the cap folded into `scale`
        logits = softcap * (1 - 2 / (tl.exp2(logits) + 1))
    if MASKED:
        logits = tl.where(seen, logits, -float("inf"))
    top = tl.maximum(m, tl.max(logits, 1))
    base = top
    if MASKED:
        base = tl.where(top == -float("inf"), 0.0, top)  # a row that has seen nothing so far
    weights = tl.exp2(logits - base[:, None])
    shrink = tl.exp2(m - base)
    sums = sums * shrink + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
    return top, sums, acc


@triton.jit(do_not_specialize=_RUNTIME)
def attend(
    q, places, reads, sees, seen, records, peaks,
    n_units, n_kv, group, q_sequence, q_head, scale, softcap, least,
    WIDTH: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    UNITS: tl.constexpr, CAPPED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    program = tl.program_id(0)
    counts = _tiles(seen, places, reads, n_units, n_kv, UNITS, TILE)
    stops = tl.cumsum(counts, 0)
    total = tl.sum(counts, 0)
    share = tl.maximum(tl.cdiv(total, tl.num_programs(0)), least)
    begin = program * share
    end = tl.minimum(begin + share, total)
    first_unit = tl.sum((stops <= begin).to(tl.int32), 0)
    last_unit = tl.sum((stops < end).to(tl.int32), 0)

    row, d, step = tl.arange(0, ROWS), tl.arange(0, D), tl.arange(0, TILE)
    inside = (d < WIDTH)[None, :]
    for unit in range(first_unit, last_unit + 1):
        sequence, kv = unit // n_kv, unit % n_kv
        first, start, stop, _ = _ranges_of(unit, unit < n_units, seen, places, reads, n_kv)
        whole_first, whole = first // TILE, first // TILE + (stop - start) // TILE
        count = tl.cdiv(first, TILE) + tl.cdiv(stop - start, TILE)
        ring_sink, ring_window = tl.load(reads + kv * 5), tl.load(reads + kv * 5 + 1)
        hides = tl.load(reads + kv * 5 + 4)
        now = tl.load(seen + sequence) - 1
        newest = tl.maximum(now - ring_sink, 0) % ring_window  # where it stands behind the sinks

        place = places + kv * 7
        pointer: tl.constexpr = tl.pointer_type(q.dtype.element_ty)
        k_at = tl.load(place).to(pointer) + sequence * tl.load(place + 1)
        v_at = tl.load(place + 3).to(pointer) + sequence * tl.load(place + 4)
        k_step = tl.multiple_of(tl.load(place + 2).to(tl.int32), 8)
        v_step = tl.multiple_of(tl.load(place + 5).to(tl.int32), 8)
        k_inner = step[:, None] * k_step + d[None, :]
        v_inner = step[:, None] * v_step + d[None, :]

        head = kv * group + row
        mine = row < group
        rows = q + sequence.to(tl.int64) * q_sequence + head[:, None] * q_head + d[None, :]
        query = tl.load(rows, mask=mine[:, None] & inside, other=0.0)
        sink = tl.load(sees + head * 2, mask=mine, other=0)
        window = tl.load(sees + head * 2 + 1, mask=mine, other=0)
        m = tl.full([ROWS], -float("inf"), tl.float32)
        sums = tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, D], tl.float32)

        # Not counted up from piece to piece: a compiler (Triton 3.6) takes what is carried through
        # a loop, and needed for nothing but the bounds of loops inside it, to be needed nowhere.
        before = tl.sum(tl.where(tl.arange(0, UNITS) < unit, counts, 0), 0)
        low, high = tl.maximum(begin - before, 0), tl.minimum(end - before, count)
        plain = tl.where(hides != 0, 0, whole)
        # Whole tiles first, whose keys every row sees; then those that end early or hide keys.
        for tile in range(low, tl.minimum(high, plain)):
            at = tl.where(tile < whole_first, tile * TILE, start + (tile - whole_first) * TILE)
            # The plan saw to it that keys begin at multiples of 16 bytes; loads are as wide.
            k_tile = tl.multiple_of(k_at + at.to(tl.int64) * k_step + k_inner, (1, 16))
            v_tile = tl.multiple_of(v_at + at.to(tl.int64) * v_step + v_inner, (1, 16))
            if D == WIDTH:
                k, v = tl.load(k_tile), tl.load(v_tile)
            else:
                k, v = tl.load(k_tile, mask=inside, other=0.0), tl.load(v_tile, inside, other=0.0)
            m, sums, acc = _fold(query, k, v, mine, m, sums, acc, scale, softcap, CAPPED, False)
        for tile in range(tl.maximum(low, plain), high):
            rest = (tile == whole) & (first % TILE != 0)
            in_first = (tile < whole_first) | rest
            behind = tl.where(tile < whole, tile, whole) - whole_first
            at = tl.where(in_first, tl.where(rest, whole_first, tile), behind) * TILE
            at = tl.where(in_first, at, start + at)
            slot = at + step
            held = slot < tl.where(in_first, first, stop)
            taken = held[:, None] & inside
            k_tile = tl.multiple_of(k_at + at.to(tl.int64) * k_step + k_inner, (1, 16))
            v_tile = tl.multiple_of(v_at + at.to(tl.int64) * v_step + v_inner, (1, 16))
            k = tl.load(k_tile, mask=taken, other=0.0)
            v = tl.load(v_tile, mask=taken, other=0.0)
            ahead = slot - ring_sink
            turned = newest - ahead + tl.where(ahead > newest, ring_window, 0)
            age = tl.where(ahead < 0, now - slot, turned)[None, :]
            visible = (now - age < sink[:, None]) | (age < window[:, None])
            visible = visible & held[None, :]
            m, sums, acc = _fold(query, k, v, visible, m, sums, acc, scale, softcap, CAPPED, True)

        # Along the line either the program or the unit goes up from one piece to the next.
        record = (program + unit) * group + row
        tl.store(records + record[:, None] * D + d[None, :], acc, mask=mine[:, None])
        tl.store(peaks + record * 2, m, mask=mine)
        tl.store(peaks + record * 2 + 1, sums, mask=mine)


@triton.jit(do_not_specialize=(*_RUNTIME, "programs"))
def join(
    records, peaks, places, reads, seen, z, lse, n_units, n_kv, group, least, programs,
    WIDTH: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, UNITS: tl.constexpr,
    SPLITS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)  # over all sequences
    unit, row = head // group, head % group
    counts = _tiles(seen, places, reads, n_units, n_kv, UNITS, TILE)
    share = tl.maximum(tl.cdiv(tl.sum(counts, 0), programs), least)
    every = tl.arange(0, UNITS)
    before = tl.sum(tl.where(every < unit, counts, 0), 0)
    count = tl.sum(tl.where(every == unit, counts, 0), 0)
    low, high = before // share, (before + count + share - 1) // share
    _, _, _, fits = _ranges_of(unit, unit < n_units, seen, places, reads, n_kv)

    d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    if EARLY:
        tl.extra.cuda.gdc_wait()  # what stands before this ran beside the last of the programs
    m, sums = -float("inf"), 0.0
    acc = tl.zeros([COLUMNS], tl.float32)
    for program in range(low, tl.where(count > 0, high, low), SPLITS):
        some = program + tl.arange(0, SPLITS)
        real = some < high
        record = (some + unit) * group + row
        peak = tl.load(peaks + record * 2, mask=real, other=-float("inf"))
        top = tl.maximum(m, tl.max(peak, 0))
        base = tl.where(top == -float("inf"), 0.0, top)
        weight = tl.exp2(peak - base)
        shrink = tl.exp2(m - base)
        part = tl.load(records + record[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
        acc = acc * shrink + tl.sum(part * weight[:, None], 0)
        own = tl.load(peaks + record * 2 + 1, mask=real, other=0.0)
        sums = sums * shrink + tl.sum(own * weight, 0)
        m = top
    some = sums > 0
    acc = tl.where(some, acc / tl.where(some, sums, 1.0), 0.0)
    total = tl.where(some, (m + tl.log2(tl.where(some, sums, 1.0))) * _LN2, -float("inf"))
    # More tokens than slots: what lies behind them was not read, and the answer says so.
    acc, total = tl.where(fits, acc, float("nan")), tl.where(fits, total, float("nan"))
    tl.store(z + head.to(tl.int64) * WIDTH + d, acc.to(z.dtype.element_ty), mask=d < WIDTH)
    if tl.program_id(1) == 0:
        tl.store(lse + head, total)
