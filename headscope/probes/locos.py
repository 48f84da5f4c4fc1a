from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.probes.readout import require_readout, token_directions
from headscope.prompts.base import PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class Locos(Probe):
    """How much of the answer's logits a head writes from the needle, against all else it reads.

    Key j gives the token that row t produced c[t, j] = A[t, j] (v_j W_O[head]) · u_t, where u_t is
    the token's column of the unembedding times the final norm's gain (centred for a LayerNorm).
    score = mean over answer rows t of (sum_{j in needle} c[t, j] - sum_{j elsewhere} c[t, j]),
    averaged over accepted prompts only; any real number, in logits before the final norm's scale.
    It sees heads that move a fact without copying its words, and is negative for heads that
    speak against the answer, or for it out of other keys.

    Source: after LOCOS (openreview yhdExZ2yH9), known here from a summary: that the output is
    projected on the unembedding of the answer and the needle set against the rest is theirs, the
    formula headscope's own. Left out are the norm's scale, which differs from row to row but not
    from head to head, biases of W_O, and norms that a model puts behind W_O (Gemma 2 and 3).
    """

    paper = "after LOCOS, openreview yhdExZ2yH9"
    rows = "answer"
    spans = ("needle",)
    prompts: PromptFamily = field(default_factory=Needle)

    def check_model(self, model: HeadModel) -> None:
        require_readout(model, self.name)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        weights = attention.rows(reading.answer_rows)[0]
        start, stop = reading.prompt.span("needle")
        sign = torch.full_like(weights[0, 0], -1.0)
        sign[start:stop] = 1.0
        W_O = reading.model.weights(attention.layer).W_O.to(weights)
        answer = token_directions(reading.model, reading.response).to(weights)
        # Values are summed over keys before they are projected: no vector is made per key.
        signed = rearrange(
            weights * sign, "(kv group) row key -> kv group row key", group=attention.group
        )
        read = einsum(
            signed, attention.v[0].to(weights), "kv group row key, kv key d -> kv group row d"
        )
        read = rearrange(read, "kv group row d -> (kv group) row d")
        wanted = einsum(W_O, answer, "head d model, row model -> head row d")
        return {"locos": (read * wanted).sum(-1).mean(-1)}
