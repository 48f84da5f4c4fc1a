from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.blocks import Tile, wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.patterns import Streaming as StreamingPattern
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class ShapeRecall(Probe):
    """How much of a head's attention three sparse templates hold, each with 64 keys a row.

    A template's recall = mean over rows i of sum_{j in template} A[i, j], over `sampled` rows
    evenly spaced in the later half; in [0, 1]. score = the best of the three on each prompt.

    shape_a: the first `sink` tokens and a `window`.
    shape_vertical_slash: the `vertical` columns and the `slash` diagonals that hold most attention
        of the `last` rows; the first `always` columns and diagonals are always among them.
    shape_block: for each block of `block` queries, the `blocks` blocks of keys with the greatest
        product of mean q and mean k, rotated as they are.

    In a layer with a sliding window no row sees further than that, and a template that covers the
    window holds everything: compare heads of layers that see equally far.

    Source: the offline search of MInference (Jiang et al. 2024, arXiv 2407.02490) and its code. It
    runs on 30 000 tokens and gives templates unlike shares of a row: 900 keys to the A-shape, 830
    to 3 600 to vertical-slash, an eighth of all blocks. Here each has one budget, 3 % of 2 048
    tokens, so that the best is not simply the largest: recalls do not compare with published ones.
    The rows that choose lines are among those that are scored, there as here.

    Attributes:
        sink, window: tokens of shape_a.
        vertical, slash: columns and diagonals of shape_vertical_slash, those of `always` included.
        always: first columns, and nearest diagonals, that are always among them.
        block: tokens of a block.
        blocks: blocks of keys for each block of queries.
        sampled: rows that are scored.
        last: rows that choose columns and diagonals.
    """

    paper = "after Jiang et al. 2024, arXiv 2407.02490"
    scores = {  # noqa: RUF012
        "shape_a": "attention held by the first tokens and a window",
        "shape_vertical_slash": "attention held by the columns and diagonals that late rows favour",
        "shape_block": "attention held by the blocks whose mean q and k agree most",
    }
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=4, lengths=(2048,)))
    sink: int = 8
    window: int = 56
    vertical: int = 32
    slash: int = 32
    always: int = 2
    block: int = 16
    blocks: int = 4
    sampled: int = 64
    last: int = 64

    def __post_init__(self) -> None:
        StreamingPattern(self.sink, self.window)
        sizes = (self.vertical, self.slash, self.block, self.blocks, self.sampled, self.last)
        if min(sizes) < 1 or not 0 <= self.always <= min(self.vertical, self.slash):
            raise HeadscopeError(
                "The probe 'shape_recall' needs vertical, slash, block, blocks, sampled and last "
                "of at least 1, and always between 0 and the smaller of vertical and slash."
            )

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        most = max(self.sink + self.window, self.vertical + self.slash, self.block * self.blocks)
        if len(prompt) <= 2 * most:
            raise HeadscopeError(
                f"the probe 'shape_recall' needs more than {2 * most} tokens, since its templates "
                f"hold {most} a row, and there are {len(prompt)}; use longer prompts or smaller "
                "templates."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention, n = attended.attention, attended.attention.n_queries
        first = n // 2
        count = min(self.sampled, n - first)
        rows = first + torch.arange(count, device=attention.q.device) * (n - first) // count
        vertical, slash = self._lines(attention)
        chosen = self._blocks(attention, rows)
        streaming = StreamingPattern(self.sink, self.window)
        held, done = [], 0
        for part in attention.tiles(rows):
            p = part.probabilities[0]  # [head, row, key]
            query = attention.query_positions[0, part.queries, None]
            key = attention.keys_by_head()[0, :, None, part.keys]
            blocks = chosen[:, done : done + p.shape[1]]
            done += p.shape[1]
            held.append(
                torch.stack(
                    [
                        (p * streaming.mask(query, key)).sum((1, 2)),
                        _on_lines(part, vertical, slash),
                        _on_blocks(part, blocks, self.block),
                    ]
                )
            )
        a, lines, blocks = torch.stack(held).sum(0) / count
        return {
            "shape_recall": torch.maximum(torch.maximum(a, lines), blocks),
            "shape_a": a,
            "shape_vertical_slash": lines,
            "shape_block": blocks,
        }

    def _lines(
        self, attention: Attention
    ) -> tuple[Int[Tensor, "head vertical"], Int[Tensor, "head slash"]]:
        """The columns, and the diagonals by their distance, that the last rows favour most."""
        n = attention.n_queries
        late = torch.arange(max(0, n - self.last), n, device=attention.q.device)
        p = attention.rows(late)[0]
        keys = torch.arange(attention.n_keys, device=p.device)
        distance = (late[:, None] - keys).clamp(min=0).flatten().expand(len(p), -1)
        on_diagonal = p.new_zeros(len(p), n).scatter_add(1, distance, p.flatten(1))
        return (
            _highest(p.sum(1), self.vertical, self.always),
            _highest(on_diagonal, self.slash, self.always),
        )

    def _blocks(
        self, attention: Attention, rows: Int[Tensor, " row"]
    ) -> Bool[Tensor, "head row key_block"]:
        """The blocks of keys that the block of each row chooses."""
        q = _pooled(attention.q[0], self.block)
        k = _pooled(attention.k[0], self.block)
        own, of_row = torch.unique(rows // self.block, return_inverse=True)
        grouped = rearrange(q[:, own], "(k g) b d -> k g b d", g=attention.group)
        agreement = einsum(grouped, k, "k g b d, k j d -> k g b j").flatten(0, 1)
        later = torch.arange(k.shape[1], device=k.device) > own[:, None]
        top = _highest(agreement.masked_fill(later, -torch.inf), self.blocks, 0)
        return torch.zeros_like(agreement, dtype=torch.bool).scatter(-1, top, True)[:, of_row]


def _on_lines(
    part: Tile, vertical: Int[Tensor, "head vertical"], slash: Int[Tensor, "head slash"]
) -> Float[Tensor, " head"]:
    """Attention on the given columns and diagonals, where they cross counted once."""
    p, start = part.probabilities[0], part.keys.start
    columns = vertical[:, None].expand(-1, p.shape[1], -1)
    keys = part.queries[:, None] - slash[:, None]
    is_column = torch.zeros(len(p), part.keys.stop + 1, dtype=torch.bool, device=p.device)
    is_column.scatter_(1, vertical.clamp(max=part.keys.stop), True)
    crossed = is_column.gather(1, keys.clamp(min=0).flatten(1)).view_as(keys)
    wanted = torch.cat((columns, torch.where(crossed, -1, keys)), dim=-1) - start
    inside = (wanted >= 0) & (wanted < p.shape[-1])
    return (p.gather(-1, wanted.clamp(0, p.shape[-1] - 1)) * inside).sum((1, 2))


def _on_blocks(
    part: Tile, chosen: Bool[Tensor, "head row key_block"], size: int
) -> Float[Tensor, " head"]:
    """Attention inside the chosen blocks of keys."""
    first = part.keys.start // size
    edges = (part.keys.start - first * size, -part.keys.stop % size)
    pooled = pad(part.probabilities[0], edges).unflatten(-1, (-1, size)).sum(-1)
    return (pooled * chosen[..., first : first + pooled.shape[-1]]).sum((1, 2))


def _highest(scores: Float[Tensor, "*row n"], count: int, always: int) -> Int[Tensor, "*row top"]:
    """The `count` highest places of each row, the first `always` places among them."""
    forced = torch.arange(scores.shape[-1], device=scores.device) < always
    return scores.masked_fill(forced, torch.inf).topk(min(count, scores.shape[-1])).indices


def _pooled(x: Float[Tensor, "some n d"], size: int) -> Float[Tensor, "some block d"]:
    """Means over blocks of tokens; the last block may be shorter."""
    n = x.shape[1]
    blocks = rearrange(pad(wide(x), (0, 0, 0, -n % size)), "h (b s) d -> h b s d", s=size)
    lengths = torch.arange(0, n, size, device=x.device).neg().add(n).clamp(max=size)
    return blocks.sum(2) / lengths[:, None]
