"""What rules lose of one layer's heads, in blocks of rows."""

from collections.abc import Iterable, Sequence

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import Tile, blocks, columns, weigh, wide
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule
from headscope.patterns.selection import Selection
from headscope.written import Writes


def losses(
    attention: Attention,
    rules: Sequence[Rule],
    rows: Int[Tensor, " row"],
    writes: Writes | None = None,
    slope: Float[Tensor, "1 head query dv"] | None = None,
) -> dict[str, Float[Tensor, "head rule"]]:
    """All losses of one layer's heads, as `measure_recall` names them, and "density".

    Args:
        attention: of one sequence.
        rows: those that recall and output are averaged over.
        writes: how the layer's heads write, for "output".
        slope: of the log-likelihood of the answer by z, up to its sign, for "answer".
    """
    chosen = [rule.resolve(attention) for rule in rules]
    n = attention.n_keys
    density = [
        torch.full((attention.n_heads,), rule.density(n))
        if isinstance(rule, Pattern)
        else _density(attention, selection)
        for rule, selection in zip(rules, chosen, strict=True)
    ]
    found = {"density": torch.stack([each.cpu() for each in density], -1)}
    parts = [_of_rows(attention, tile, chosen, writes) for tile in attention.tiles(rows)]
    found["recall"] = torch.cat([recall for recall, _ in parts], 1).mean(1)
    if writes is not None:
        found["output"] = torch.cat([output for _, output in parts], 1).mean(1)
    if slope is not None:
        found["answer"] = _sum(
            _on_answer(attention, tile, chosen, slope) for tile in attention.tiles()
        )
    return {name: values.cpu() for name, values in found.items()}


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _of_rows(
    attention: Attention, tile: Tile, rules: Sequence[Selection], writes: Writes | None
) -> tuple[Float[Tensor, "head row rule"], Float[Tensor, "head row rule"]]:
    """Recall and relative change of the layer's output, for some rows."""
    recalls, outputs = [], []
    whole = None
    if writes is not None:
        z = wide(weigh(attention, tile.probabilities, tile.keys)[0])
        written = einsum(z, wide(writes.W), "h q d, h d m -> q m").square().sum(-1)
        # What a layer without any output loses is nothing, and not 0 / 0.
        whole = written.clamp(min=torch.finfo(written.dtype).tiny)
        gram = wide(writes.W) @ wide(writes.W).mT
    for rule in rules:
        kept, change = _under(attention, tile, rule)
        recalls.append(kept)
        if whole is not None:
            squared = einsum(change, gram, change, "h q d, h d e, h q e -> h q")
            outputs.append(squared.clamp(min=0) / whole)
        else:
            outputs.append(torch.zeros_like(kept))
    return torch.stack(recalls, -1), torch.stack(outputs, -1)


def _on_answer(
    attention: Attention,
    tile: Tile,
    rules: Sequence[Selection],
    slope: Float[Tensor, "1 head query dv"],
) -> Float[Tensor, "head rule"]:
    """Squared first-order changes of the answer's log-likelihood, summed over some rows."""
    mine = wide(slope[0][:, tile.queries])
    found = []
    for rule in rules:
        _, change = _under(attention, tile, rule)
        found.append((change * mine).sum(-1).double().square().sum(-1))
    return torch.stack(found, -1)


def _under(
    attention: Attention, tile: Tile, rule: Selection
) -> tuple[Float[Tensor, "head row"], Float[Tensor, "head row dv"]]:
    """The share of attention that a rule keeps, and z' - z."""
    keys = columns(tile.keys, tile.queries)
    seen = rule.mask(attention, tile.queries[:, None], keys[None])
    kept = tile.probabilities * seen
    sink: Tensor | float = 0.0
    if attention.sink_logits is not None:
        sink = torch.exp(attention.sink_logits[:, None].to(tile.lse) - tile.lse)
    # What is 1 but for rounding has the same rounding in both, so that a full rule loses nothing.
    total, whole = (
        (part.sum(-1) + sink).clamp(min=torch.finfo(part.dtype).tiny)
        for part in (kept, tile.probabilities)
    )
    change = kept / total[..., None] - tile.probabilities / whole[..., None]
    # As one product: z' and z by themselves would each be rounded to the values' dtype.
    return (total / whole)[0].clamp(max=1), wide(weigh(attention, change, tile.keys)[0])


def _density(attention: Attention, rule: Selection) -> Float[Tensor, " head"]:
    """Share of visible pairs that a selection keeps, by head."""
    seen = torch.zeros(attention.n_heads, dtype=torch.double, device=attention.q.device)
    pairs = torch.zeros_like(seen)
    for rows, keys in blocks(attention):
        at = columns(keys, rows)
        visible = attention.visible_at(rows[:, None], at[None])
        kept = rule.mask(attention, rows[:, None], at[None]) & visible
        seen += kept.sum((-1, -2)).expand(1, attention.n_heads)[0]
        pairs += visible.sum((-1, -2)).expand(1, attention.n_heads)[0]
    return seen / pairs
