from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import blocks, columns
from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.probes.token_kinds import Kind, token_kinds
from headscope.prompts.base import PromptFamily
from headscope.prompts.text import Text
from headscope.sweep import Sweep

_DELIMITERS: tuple[Kind, ...] = ("special", "newline", "punctuation")


@dataclass(frozen=True)
class SinkTypes(Probe):
    """Attention on tokens that say nothing: punctuation, line breaks, special tokens.

    sink_types = mean over rows i of (sum_{j in D} A[i, j] - |D seen by i| / |keys seen by i|),
    with D the delimiters of the prompt, its first token left out: the mass on them beyond what
    evenly spread attention would give, in [-1, 1]; below 0 where a head prefers words or the first
    token. sink_newline, sink_punctuation and sink_special are the masses on each kind, in [0, 1];
    `token_kinds` says what counts as which, and plain text has no special tokens but its first.

    Source: after the delimiters that attract attention without a need for what they say, Clark et
    al. 2019, arXiv 1906.04341 (special tokens, full stops) and Sun et al. 2024, arXiv 2402.17762
    (the first full stop or newline); as scores of a head they are headscope's own.
    """

    paper = "after Clark et al. 2019, arXiv 1906.04341, and Sun et al. 2024, arXiv 2402.17762"
    scores = {  # noqa: RUF012
        "sink_newline": "attention on line breaks",
        "sink_punctuation": "attention on punctuation",
        "sink_special": "attention on special tokens other than the first token",
    }
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        sweep = reading.sweep(attended)
        received = sweep.column_sums[0]
        kinds = reading.once(_delimiters).to(received.device)
        special, newline, punctuation = torch.einsum(
            "hj,kj->kh", received / attended.attention.n_queries, kinds.to(received)
        )
        evenly = _spread_evenly(attended.attention, sweep, kinds.any(0))
        return {
            "sink_types": special + newline + punctuation - evenly,
            "sink_newline": newline,
            "sink_punctuation": punctuation,
            "sink_special": special,
        }


def _delimiters(reading: Reading) -> Bool[Tensor, "kind token"]:
    """Which tokens are delimiters of each kind; the first token is none."""
    kinds = token_kinds(reading.model.tokenizer, reading.token_ids.tolist())
    masks = torch.tensor([[kind == wanted for kind in kinds] for wanted in _DELIMITERS])
    masks[:, 0] = False
    return masks


def _spread_evenly(
    attention: Attention, sweep: Sweep, keys: Bool[Tensor, " key"]
) -> Float[Tensor, " #head"]:
    """Mean mass that rows would give to some keys, if all keys that they see got as much."""
    total = torch.zeros((), device=keys.device)
    # Heads mostly see alike, and a block that holds no heads may hold as many more rows.
    n_keys = max(1, attention.n_keys * sweep.visible.shape[1] // attention.n_heads)
    for rows, reach in blocks(attention, n_keys=n_keys):
        index = columns(reach, rows)
        seen = attention.visible_at(rows[:, None], index[None, :])[0].float()  # [#head, row, key]
        share = torch.matmul(seen, keys[index].float()) / sweep.visible[0][:, rows].clamp(min=1)
        total = total + share.sum(-1)
    return total / attention.n_queries
