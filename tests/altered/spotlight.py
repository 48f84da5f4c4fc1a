from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.spotlight import Spotlight
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[Spotlight]:
    return [
        Spotlight((2, 5), target=0.6),
        Spotlight((1, 3), target=0.5, heads=["L1H1", "L1H4"], part="answer"),
        Spotlight((2, 6), target=0.7, per="layer"),
        Spotlight((2, 6), target=0.7, per="layer", exact=False),
    ]


def edit(method: Spotlight, attention: Attention, pattern: Tensor) -> Tensor:
    out = pattern.clone()
    for b, keys in enumerate(attention.key_positions.tolist()):
        marked = [j for j, key in enumerate(keys) if any(a <= key < z for a, z in method.span)]
        rows = [i for i, query in enumerate(attention.query_positions[b].tolist()) if query >= 0]
        inside = pattern[b][:, :, marked].sum(-1)
        if method.per == "layer":
            inside = inside[:, rows].mean().expand_as(inside)
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            for i in rows:
                c = float(inside[h, i])
                start = int(attention.run.prompt_length[b]) - 1
                if method.part == "answer" and int(attention.query_positions[b, i]) < start:
                    continue
                if not 0 < c < method.target or c > 1 - 1e-12:
                    continue
                out[b, h, i] = moved(method, pattern[b, h, i], marked, c)
    return out


def moved(method: Spotlight, row: Tensor, marked: list[int], c: float) -> Tensor:
    if method.per == "row":  # the definition: the span ends up with exactly the target
        other = row * (1 - method.target) / (1 - c)
        other[marked] = row[marked] * method.target / c
        return other
    factor = method.target / c
    if method.exact:
        factor = factor * (1 - c) / (1 - method.target)
    other = row.clone()
    other[marked] *= factor
    return other / other.sum()
