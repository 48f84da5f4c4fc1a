from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from headscope.blocks import budget
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.probes.readout import mean_direction, require_readout, token_directions
from headscope.prompts.base import PromptFamily
from headscope.prompts.repeated import Repeated

Sample = tuple[Int[Tensor, " token"], Float[Tensor, "token model"]]


@dataclass(frozen=True)
class Copying(Probe):
    """Whether a head raises the token that it attends to, rather than other tokens of the prompt.

    Attending to key j alone, a head adds l_j[x] = (v_j W_O[head]) · (u_x - mean of u over the
    vocabulary) to the logit of token x, where u is the unembedding times the final norm's gain
    (centred for a LayerNorm); a positive scale apart, which cancels. raised_j[x] = max(l_j[x], 0).
    score = mean over keys j of 2 raised_j[x_j] / sum_x raised_j[x] - 1, where x runs over the
    distinct tokens of the prompt and j over the first place of each; in [-1, 1]. 1: nothing but
    the attended token is raised; -1: it is not raised. Chance is near -1, about 2 / (number of
    distinct tokens) above it. A key that raises nothing gives -1.

    The head's output is taken key by key, not as attention mixes it: what it would copy is then
    told apart from where it looks, and a head at rest on the start is judged all the same. No
    attention is asked for. The values are those of the real pass, at first places, so that nothing
    earlier in the prompt foretells them.

    Source: the copying score of Olsson et al. 2022, arXiv 2209.11895: 25 random tokens, a mean
    taken off, negative logits cut off, the attended token's share of what is raised. There the
    share is said to end at 1/2 and to be scaled by 4 s - 1; here it ends at 1 and is scaled by
    2 s - 1, so that ranks can be compared and values cannot. Left out are biases of W_O and norms
    that a model puts behind it (Gemma 2 and 3).
    """

    paper = "after Olsson et al. 2022, arXiv 2209.11895"
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8))

    def check_model(self, model: HeadModel) -> None:
        require_readout(model, self.name)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        W_O = reading.model.weights(attention.layer).W_O.float()
        places, directions = (x.to(W_O.device) for x in reading.once(_sample))
        # Heads side by side are W_O as models store it: the product needs no copy of it.
        beside = rearrange(W_O, "head d model -> model (head d)")
        raises = rearrange(directions @ beside, "token (head d) -> head d token", head=len(W_O))
        shares = []
        # All keys against all tokens at once would grow with the square of a long text.
        step = max(1, budget(attention) // (len(W_O) * len(places)))
        for own in torch.arange(len(places), device=W_O.device).split(step):
            values = attention.v[0, :, places[own]].float()
            values = repeat(values, "kv key d -> (kv group) key d", group=attention.group)
            raised = (values @ raises).relu_()
            mine = raised[:, torch.arange(len(own), device=own.device), own]
            # Where nothing is raised the token itself is not.
            shares.append(mine / raised.sum(-1).clamp(min=torch.finfo(raised.dtype).tiny))
        return {"copying": 2 * torch.cat(shares, 1).mean(1) - 1}


def _sample(reading: Reading) -> Sample:
    """The first place of every distinct token, and the tokens' directions less the mean."""
    ordered, order = reading.token_ids.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    directions = token_directions(reading.model, ordered[first]) - mean_direction(reading.model)
    return order[first], directions
