from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class TaskKv(Probe):
    """How far what a head reads lies from what its layer's heads read on average.

    c_j = mean over the last `window` rows i of the prompt of A[i, j]; I = the `top` keys with the
    largest c (all, if there are fewer); v' = sum_{j in I} c_j v_j; task_kv_raw = |v' - mean over
    the layer's heads of v'|, in units of the values, which differ from layer to layer, so that
    task_kv = task_kv_raw / its mean over the layer's heads: 0 or more, 1 on average in every layer.

    Source: the semantic distance of Task-KV (He et al. 2025, arXiv 2501.15113), which calls the
    farthest heads of each layer heterogeneous and keeps all of their cache. Dividing by the layer's
    mean is headscope's own and keeps the order within a layer. The distance is one of a task: it
    differs by design from prompt to prompt.

    Attributes:
        window: rows at the end of the prompt.
        top: keys of the largest c.
    """

    paper = "after He et al. 2025, arXiv 2501.15113"
    scores = {"task_kv_raw": "distance to the centre of the layer's heads, in units of v"}  # noqa: RUF012
    rows = "last"
    prompts: PromptFamily = field(default_factory=Needle)
    window: int = 32
    top: int = 256

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        rows = reading.last_rows(self.window)
        distance = semantic_distance(attended.attention, rows, self.top)[0]
        # Heads that all read the same, such as a layer's only one, lie in the centre.
        mean = distance.mean()
        relative = torch.where(mean > 0, distance / mean, 0.0)
        return {"task_kv": relative, "task_kv_raw": distance}


def semantic_distance(attention: Attention, rows: Any, top: int) -> Float[Tensor, "batch head"]:
    """Distance of what each head reads from what the layer's heads read on average; see `TaskKv`.

    Args:
        rows: indices of the last rows of the prompt.
        top: keys that are counted at most.
    """
    received = attention.rows(rows).mean(2)  # [batch, head, key]
    best = received.topk(min(top, attention.n_keys), dim=-1)
    weights = torch.zeros_like(received).scatter(2, best.indices, best.values)
    grouped = rearrange(weights, "b (k g) j -> b k g j", g=attention.group)
    meaning = torch.matmul(grouped, attention.v.to(grouped)).flatten(1, 2)  # [batch, head, dv]
    return (meaning - meaning.mean(1, keepdim=True)).norm(dim=-1)
