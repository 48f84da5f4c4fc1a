import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.concept import Concept
from headscope.interventions.rescale_concept import RescaleConcept
from headscope.model import HeadModel
from headscope.stack import Attend

HEADS = ((0, 1), (1, 0), (1, 4), (2, 5))
WORDS = (7, 20, 33)
MODELS: dict[Concept, HeadModel] = {}


def methods(model: HeadModel) -> list[RescaleConcept]:
    concept = Concept.of(model, WORDS)
    MODELS[concept] = model
    return [
        RescaleConcept(HEADS, concept),
        RescaleConcept(HEADS, concept, 4.0, "answer"),
        RescaleConcept(["L1H2"], concept, -2.0),
    ]


def by_hand(method: RescaleConcept):
    """Least squares: what of z the logits of the words can tell is scaled."""

    def attend(attention: Attention, _: Attend) -> Attended:
        model, z = MODELS[method.concept], oracle.dense(attention).z.clone()
        d = z.shape[-1]
        layer = model.hf.model.layers[attention.layer].self_attn
        words = model.hf.lm_head.weight[list(WORDS)].double()
        for at, head in method.heads:
            if at != attention.layer:
                continue
            writes = words @ layer.o_proj.weight[:, head * d : (head + 1) * d].double()  # word × d
            for b, row in enumerate(attention.query_positions.tolist()):
                start = int(attention.run.prompt_length[b]) - 1 if method.part == "answer" else 0
                for i, query in enumerate(row):
                    if query >= start:
                        told = torch.linalg.pinv(writes) @ (writes @ z[b, head, i])
                        z[b, head, i] += (method.factor - 1) * told
        return Attended(z.to(attention.v.dtype), attention)

    return attend
