import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.iti import ITI
from headscope.interventions.output_directions import OutputDirections, OutputFacts
from headscope.interventions.trained import facts_of
from headscope.model import HeadModel
from headscope.stack import Attend

HEADS = ((1, 2), (0, 5), (2, 0))
NO_HEADS = {"count": 0}


def methods(model: HeadModel) -> list[ITI]:
    generator = torch.Generator().manual_seed(7)
    theta = torch.randn(len(HEADS), model.d_head, generator=generator)
    facts = OutputFacts(**facts_of(model), heads=HEADS, accuracy=(0.9, 0.8, 0.7), prompts=(10, 10))
    directions = OutputDirections(
        theta / theta.norm(dim=1, keepdim=True), torch.tensor([0.5, 1.0, 2.0]), facts
    )
    return [ITI(directions), ITI(directions, alpha=-3.0, count=2, part="all")]


def by_hand(method: ITI):
    def attend(attention: Attention, _: Attend) -> Attended:
        z = oracle.dense(attention).z.clone()
        for at, (layer, head) in list(enumerate(HEADS))[: method.count]:
            if layer != attention.layer:
                continue
            step = method.directions.sigma[at].double() * method.directions.theta[at].double()
            for b, row in enumerate(attention.query_positions.tolist()):
                start = int(attention.run.prompt_length[b]) - 1 if method.part == "answer" else 0
                for i, query in enumerate(row):
                    if query >= start:
                        z[b, head, i] += method.alpha * step
        return Attended(z.to(attention.v.dtype), attention)

    return attend
