from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.act import ACT
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[ACT]:
    return [
        ACT(skip=0),
        ACT(beta=0.0, threshold=0.15, first_receives=False, skip=1),
        ACT(heads=["L1H0", "L1H3", "L2H1"], threshold=0.05, part="answer"),
    ]


def edit(method: ACT, attention: Attention, pattern: Tensor) -> Tensor:
    if attention.layer < method.skip:
        return pattern
    state = attention.run.state.setdefault(("by hand", method), {})
    if attention.layer not in state:
        state[attention.layer] = sinks(attention, pattern, method.threshold)
    out = pattern.clone()
    for b, h in ((b, h) for b in range(len(pattern)) for h in range(pattern.shape[1])):
        if method.heads is not None and (attention.layer, h) not in method.heads:
            continue
        every = state[attention.layer][b, h]
        first, later = every[:1], every[1:]
        for i, query in enumerate(attention.query_positions[b].tolist()):
            start = int(attention.run.prompt_length[b]) - 1 if method.part == "answer" else 0
            if query < start:
                continue
            row = pattern[b, h, i]
            others = row.clone()
            others[later + ([] if method.first_receives else first)] = 0
            if others.sum() > 0:
                freed = (1 - method.beta) * row[later].sum()
                new = row + freed * others / others.sum()
                new[later] = method.beta * row[later]
                out[b, h, i] = new
    return out


def sinks(attention: Attention, pattern: Tensor, threshold: float) -> dict[tuple[int, int], list]:
    found = {}
    for b in range(pattern.shape[0]):
        for h in range(pattern.shape[1]):
            found[b, h] = []
            for j, key in enumerate(attention.key_positions[b].tolist()):
                rows = [i for i, q in enumerate(attention.query_positions[b].tolist()) if q >= key]
                if key >= 0 and float(pattern[b, h, rows, j].mean()) > threshold:
                    found[b, h].append(j)
    return found
