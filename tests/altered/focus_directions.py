import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.directions import DirectionFacts, Directions
from headscope.interventions.focus_directions import FocusDirections
from headscope.interventions.trained import facts_of
from headscope.model import HeadModel
from headscope.stack import Attend

HEADS = ((1, 2), (0, 5), (2, 0), (2, 3))
NO_HEADS = {"count": 0}


def methods(model: HeadModel) -> list[FocusDirections]:
    q = torch.randn(len(HEADS), model.d_head, generator=torch.Generator().manual_seed(6))
    facts = DirectionFacts(
        **facts_of(model), heads=HEADS, span="gold", prompts=1, epochs=1, lr=0.1, before=0, after=0
    )
    directions = Directions(q, facts)
    return [
        FocusDirections(directions),
        FocusDirections(directions, factor=2.0, count=2, part="answer"),
        FocusDirections(directions, factor=-1.0, heads=["L2H0", "L0H5"]),
    ]


def by_hand(method: FocusDirections):
    def attend(attention: Attention, _: Attend) -> Attended:
        used = list(zip(HEADS, method.directions.q, strict=True))[: method.count]
        shift = torch.zeros(*attention.q.shape[:3], attention.n_keys, dtype=torch.float64)
        for (layer, head), direction in used:
            if layer != attention.layer or (method.heads and (layer, head) not in method.heads):
                continue
            k = attention.k[:, head // attention.group].double()  # [batch, key, d]
            for b, row in enumerate(attention.query_positions.tolist()):
                start = int(attention.run.prompt_length[b]) - 1 if method.part == "answer" else 0
                for i, query in enumerate(row):
                    if query >= start:
                        product = k[b] @ direction.double() * attention.scale
                        shift[b, head, i] = method.factor * product
        z = oracle.dense(attention, shift).z
        return Attended(z.to(attention.v.dtype), attention)

    return attend
