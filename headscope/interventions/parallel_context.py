from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.apart import (
    _Apart,
    at_shared_positions,
    attention_on_blocks,
    part_of,
)
from headscope.interventions.base import Claim, Intervention
from headscope.interventions.checks import check_choice, check_sizes
from headscope.interventions.following import _Following
from headscope.interventions.reading_done import ends_prompt
from headscope.interventions.selecting import ranks
from headscope.interventions.sinks_and_window import check_rotation
from headscope.interventions.spans import Span, checked_span, named, rows_in
from headscope.prompts.base import Prompt
from headscope.run import Run
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel

Positions = Literal["original", "shared"]


@dataclass(frozen=True)
class ParallelContext(_Following, Intervention):
    """Parts of a prompt are read without each other, and what follows reads all of them.

    A row inside a block sees the keys of its block alone and, with `shared_sink`, the tokens
    before the first block. Rows before the first block and behind the last are read as usual, but
    for two remedies. With `selective` the rows behind the blocks see that many blocks in each
    layer, those that get most attention from the prompt's last `window` rows, summed over them and
    the layer's heads; of equals the earlier block. With a `temperature` T they read by softmax of
    logits / T. What stands between two blocks goes with the later one.

    Positions are those of the prompt, or "shared": all blocks begin where the first one does, and
    what follows goes on behind the longest. Queries and keys are rotated anew for each pass; the
    cache keeps its own. A layer with a window of its own still counts it in tokens of the prompt.

    One pass over a prompt and its answer, whose length is known, reads what steps read. With
    `selective` the prompt's last rows decide for its earlier rows behind the blocks too, so that
    those look ahead; in a prompt that is read in chunks they see every block until the last chunk.

    Source: Zhang et al. 2024, "Attention Entropy is a Key Factor: An Analysis of Parallel Context
    Encoding with Full-attention-based Pre-trained Language Models", arXiv 2412.16545 (ACL 2025;
    sinks shared by all blocks and a choice among blocks against high entropy; read second-hand).
    How blocks are chosen, the temperature and the tokens between blocks are headscope's own.

    Attributes:
        blocks: the name of a span (or of spans name_0, name_1, ...), or ranges in tokens.
        shared_sink: whether every block sees what stands before the first.
        selective: blocks that are read in each layer; all if left out.
        temperature: above 1 flattens, below 1 sharpens the rows behind the blocks.
        window: last rows of the prompt that choose blocks, those behind the blocks.
        positions: "original" or "shared".
    """

    paper = "Zhang et al. 2024, arXiv 2412.16545"
    stateful: ClassVar[bool] = True
    claims: ClassVar[frozenset[Claim]] = frozenset({"positions"})
    blocks: Span = "doc"
    shared_sink: bool = field(default=True, kw_only=True)
    selective: int | None = field(default=None, kw_only=True)
    temperature: float = field(default=1.0, kw_only=True)
    window: int = field(default=16, kw_only=True)
    positions: Positions = field(default="original", kw_only=True)

    def __post_init__(self) -> None:
        blocks = checked_span(self.blocks, "ParallelContext")
        if not isinstance(blocks, str):
            blocks = tuple(sorted(blocks))
            for (_, stop), (start, _) in pairwise(blocks):
                if start < stop:
                    raise HeadscopeError(
                        f"Two blocks of ParallelContext overlap at token {start}; give disjoint "
                        "ranges."
                    )
        object.__setattr__(self, "blocks", blocks)
        check_sizes("ParallelContext", window=(self.window, 1))
        if self.selective is not None:
            check_sizes("ParallelContext", selective=(self.selective, 1))
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise HeadscopeError(
                f"ParallelContext needs a temperature above 0, not {self.temperature}."
            )
        check_choice(self, "positions", Positions)

    def check(self, model: "HeadModel") -> None:
        if self.positions == "shared":
            check_rotation(model, "ParallelContext", "keep positions='original'")
            if all(site.rotary is None for site in model.backend.sites):
                raise HeadscopeError(
                    f"{model.name} has no RoPE whose positions could be shared; keep "
                    "positions='original'."
                )

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple[Intervention, Prompt]:
        return named(self, prompt, "blocks"), prompt

    @property
    def stepwise(self) -> bool:
        """A choice among blocks needs the prompt in one pass, as `generate` reads it."""
        return self.selective is not None

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        rows_in(attention, self.blocks, "ParallelContext")  # refuses a name, and what has no end
        edges = self._edges
        behind = attention.query_positions >= edges[-1]
        changed = at_shared_positions(attention, edges) if self.positions == "shared" else attention
        changed = changed.with_pattern(_Apart(edges, self.shared_sink))
        if self.temperature != 1:
            sharp = changed.q / self.temperature
            changed = changed.with_q(torch.where(behind[:, None, :, None], sharp, changed.q))
        if self.selective is None or self.selective >= len(edges) - 1:
            return attend(changed)
        chosen = self._chosen(changed)
        if chosen is None:
            return attend(changed)
        outside = torch.ones_like(chosen[:, :1])
        may = torch.cat((outside, chosen, outside), 1)[:, None]
        part = part_of(changed.keys_by_head(), edges)
        hidden = ~may.expand(-1, part.shape[1], -1).gather(2, part)
        return attend(changed.with_bias(hidden, torch.where(behind, -torch.inf, 0.0)[:, None]))

    @property
    def _edges(self) -> tuple[int, ...]:
        """Where the first block begins, and where each block ends."""
        blocks = checked_span(self.blocks, "ParallelContext")
        assert not isinstance(blocks, str)
        return (blocks[0][0], *(stop for _, stop in blocks))

    def _chosen(self, attention: Attention) -> Bool[Tensor, "batch block"] | None:
        """The blocks that rows behind them see; None where nothing has been chosen yet."""
        run = attention.run
        assert run is not None
        kept, ends = run.state.setdefault(self, {}), ends_prompt(attention)
        before = kept.get(attention.layer)
        if not bool(ends.any()):
            return before
        shares = attention_on_blocks(attention, self._edges, self._judges(attention, ends))
        best = ranks(shares) < (self.selective or 0)
        everything = torch.ones_like(best)
        chosen = torch.where(ends[:, None], best, everything if before is None else before)
        kept[attention.layer] = chosen
        return chosen

    def _judges(
        self, attention: Attention, ends: Bool[Tensor, " batch"]
    ) -> Bool[Tensor, "batch query"]:
        """The prompt's last rows, of those behind the blocks."""
        last, at, run = self._edges[-1], attention.query_positions, attention.run
        assert run is not None
        known = run.prompt_length
        stop = at.amax(1) + 1 if known is None else known.to(at.device)
        first = (stop - self.window).clamp(min=last)
        judges = (at >= first[:, None]) & (at < stop[:, None])
        if not bool(judges.any(1)[ends].all()):
            raise HeadscopeError(
                f"No token of the prompt stands behind the blocks, which end at {last}, to choose "
                "among them; leave selective= out."
            )
        return judges

    def crop(self, run: Run, length: int) -> None:
        """What was chosen is the prompt's, which stays."""
