import oracle

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.scale_heads import ScaleHeads
from headscope.model import HeadModel
from headscope.stack import Attend

HEADS = ((0, 1), (1, 0), (1, 4), (2, 5))


def methods(model: HeadModel) -> list[ScaleHeads]:
    return [ScaleHeads(HEADS, 0.0), ScaleHeads(HEADS, -1.5, "answer"), ScaleHeads(["L2H1"], 3.0)]


def by_hand(method: ScaleHeads):
    def attend(attention: Attention, _: Attend) -> Attended:
        z = oracle.dense(attention).z.clone()
        for b, row in enumerate(attention.query_positions.tolist()):
            start = int(attention.run.prompt_length[b]) - 1 if method.part == "answer" else 0
            for layer, head in method.heads:
                for i, query in enumerate(row):
                    if layer == attention.layer and query >= start:
                        z[b, head, i] *= method.factor
        return Attended(z.to(attention.v.dtype), attention)

    return attend
