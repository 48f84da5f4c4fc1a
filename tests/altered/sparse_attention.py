import oracle
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.sparse_attention import SparseAttention
from headscope.model import HeadModel
from headscope.patterns import Full, Streaming
from headscope.patterns.rules import Rule
from headscope.sparsity import SparseProfile
from headscope.stack import Attend

RULES: dict[str, Rule] = {
    "L0H1": Streaming(2, 5),
    "L0H2": Streaming(0, 3),
    "L1H0": Streaming(1, 0, growth=0.5),
    "L1H3": Full(),
    "L2H3": Streaming(2, 5),
    "L2H4": Streaming(1, 4),
    "L2H5": Streaming(2, 5),
}


def methods(model: HeadModel) -> list[SparseAttention]:
    profile = SparseProfile.of(model, RULES)
    everywhere = SparseProfile.of(model, {}, rest=Streaming(1, 4))
    return [
        SparseAttention(profile),
        SparseAttention(everywhere, "decode"),
        SparseAttention(profile, "answer"),
        SparseAttention(everywhere, "prefill"),
    ]


def by_hand(method: SparseAttention):
    """Innermost whichever scope was opened first, so that it is no edit of what others see."""

    def edited(attention: Attention, _: Attend) -> Attended:
        pattern = _cut(method, attention, oracle.dense(attention).pattern)
        v = attention.v.double().repeat_interleave(attention.group, 1)
        return Attended((pattern @ v).to(attention.v.dtype), attention)

    return edited


def _cut(method: SparseAttention, attention: Attention, pattern: Tensor) -> Tensor:
    """Weights outside a head's rule become zero; rows are normalised again."""
    out = pattern.clone()
    for b, queries in enumerate(attention.query_positions.tolist()):
        start = int(attention.run.prompt_length[b])
        for h, rule in enumerate(method.profile.of_layer(attention.layer)):
            if not isinstance(rule, Streaming):
                continue
            for i, query in enumerate(queries):
                part = {
                    "all": True,
                    "decode": query >= start,
                    "answer": query >= start - 1,
                    "prefill": query < start,
                }[method.part]
                window = max(1, rule.window + int(rule.growth * (query + 1)))
                for j, key in enumerate(attention.key_positions[b].tolist()):
                    if part and key >= rule.sink and query - key >= window:
                        out[b, h, i, j] = 0
    return out / out.sum(-1, keepdim=True).clamp(min=1e-300)
