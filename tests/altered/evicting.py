"""A cache that gives up keys when the prompt is read, as masks on a dense float64 pattern."""

from collections.abc import Callable

import oracle
import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.stack import Attend, Middleware


def hidden_from_then_on(evicted: Callable[[Attention, Tensor], Tensor]) -> Middleware:
    """Keys that `evicted` names by the prompt's pattern, [batch, kv_head, key], get -inf later."""
    gone: dict[int, Tensor] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        if attention.run.step == 0:
            dense = oracle.dense(attention)
            gone[attention.layer] = evicted(attention, dense.pattern)
        else:
            before = gone[attention.layer]
            new = torch.zeros(*before.shape[:2], attention.n_keys - before.shape[2])
            lost = torch.cat((before, new.bool()), 2).repeat_interleave(attention.group, 1)
            hidden = torch.zeros(lost.shape, dtype=torch.float64).masked_fill(lost, -torch.inf)
            dense = oracle.dense(attention, hidden[:, :, None])
        return Attended(dense.z.to(attention.v.dtype), attention)

    return attend
