from itertools import pairwise

import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.parallel_context import ParallelContext
from headscope.model import HeadModel
from headscope.stack import Attend

BLOCKS = ((2, 5), (6, 8), (8, 10))


def methods(model: HeadModel) -> list[ParallelContext]:
    return [
        ParallelContext(BLOCKS),
        ParallelContext(BLOCKS, shared_sink=False, temperature=0.5),
        ParallelContext(BLOCKS, selective=1, window=2),
        ParallelContext(BLOCKS, shared_sink=False, selective=2, positions="shared"),
        ParallelContext(((0, 4), (4, 9)), temperature=1.5, positions="shared"),
    ]


def by_hand(method: ParallelContext):
    """Row by row in float64, with a list of blocks for each position."""
    chosen: dict[tuple[int, int], set[int]] = {}

    def block(position: int) -> int:
        """-1 before the blocks, their number behind them."""
        if position < method.blocks[0][0]:
            return -1
        return sum(position >= stop for _, stop in method.blocks)

    def place(position: int) -> int:
        ends = [method.blocks[0][0], *(stop for _, stop in method.blocks)]
        if method.positions == "original" or position < ends[0]:
            return position
        if block(position) < len(method.blocks):
            return position - ends[block(position)] + ends[0]
        return position - ends[-1] + ends[0] + max(b - a for a, b in pairwise(ends))

    def attend(attention: Attention, _: Attend) -> Attended:
        at, keys = attention.query_positions, attention.key_positions
        q, k, v = attention.q.double(), attention.k.double(), attention.v.double()
        if method.positions == "shared":
            rope = attention.rope
            q, k = (
                rope.rotate(
                    rope.unrotate(x, p), torch.tensor([[place(i) for i in r] for r in p.tolist()])
                )
                for x, p in ((q, at), (k, keys))
            )
        z = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
        last = len(method.blocks)

        def weights(b: int, h: int, t: int, blocks: set[int]) -> torch.Tensor:
            query, logits = int(at[b, t]), q[b, h, t] @ k[b, h // attention.group].T
            mine, row = block(query), torch.full(logits.shape, -torch.inf, dtype=torch.float64)
            for slot, key in enumerate(keys[b].tolist()):
                of = block(key)
                sees = of == mine or mine == -1 or (of == -1 and method.shared_sink)
                if mine == last:
                    sees = of in (-1, last) or of in blocks
                if 0 <= key <= query and sees:
                    row[slot] = logits[slot] * attention.scale
            return (row / (method.temperature if mine == last else 1)).softmax(-1)

        for b in range(len(q)):
            length, every = int(attention.run.prompt_length[b]), set(range(last))
            rows = at[b].tolist()
            if method.selective is not None and length - 1 in rows:
                judges = [
                    t
                    for t, i in enumerate(rows)
                    if max(method.blocks[-1][1], length - method.window) <= i < length
                ]
                total = sum(weights(b, h, t, every) for h in range(q.shape[1]) for t in judges)
                share = [
                    sum(
                        float(total[slot])
                        for slot, key in enumerate(keys[b].tolist())
                        if key >= 0 and block(key) == n
                    )
                    for n in range(last)
                ]
                ranked = sorted(every, key=lambda n: -share[n])
                chosen[attention.layer, b] = set(ranked[: method.selective])
            for h in range(q.shape[1]):
                for t, query in enumerate(rows):
                    if query >= 0:
                        row = weights(b, h, t, chosen.get((attention.layer, b), every))
                        z[b, h, t] = row @ v[b, h // attention.group]
        return Attended(z.to(attention.v.dtype), attention)

    return attend
