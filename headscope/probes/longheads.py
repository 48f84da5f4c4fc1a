import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.blocks import wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class Longheads(Probe):
    """Whether a head would choose the needle's chunk as LongHeads lets it choose.

    The prompt is cut into chunks c of `chunk` tokens. Within each, a head attends to all of it,
    both ways, and m_c is the mean of its outputs; r_c = sum_j softmax_j(m_c . k_j) k_j over the
    chunk's keys, rotated by their places in the chunk, represents it. The head's query for the
    answer's first token, without its rotation, chooses the `budget` chunks of greatest q . r_c.
    The first chunk and the last two are always read and do not compete, unless they hold part of
    the needle. score = share of the needle's tokens in the chosen chunks; in [0, 1], by chance
    `budget` / chunks that compete (about 0.17 over the default prompts).

    Attention uses the layer's scale and soft-cap; a learned sink takes no part. The choice knows
    no sliding window: in such layers it says what a query asks for, not what the layer reads.
    Layers without RoPE use queries and keys as they are.

    Source: chunk choice of Lu et al. 2024, arXiv 2402.10685, and its code, which has chunks of
    256 tokens and 13 to choose; the hit rate on a needle is headscope's own.

    Attributes:
        chunk: tokens of a chunk.
        budget: chunks that a head may choose.
    """

    paper = "after Lu et al. 2024, arXiv 2402.10685"
    rows = "last"
    spans = ("needle",)
    prompts: PromptFamily = field(default_factory=Needle)
    chunk: int = 32
    budget: int = 2

    def __post_init__(self) -> None:
        if min(self.chunk, self.budget) < 1:
            raise HeadscopeError(
                "The probe 'longheads' needs a chunk of at least one token and a budget of at "
                f"least one chunk, not chunk={self.chunk}, budget={self.budget}."
            )

    def check_model(self, model: HeadModel) -> None:
        for found in model.backend.layers:
            if isinstance(found.rotary, str):
                raise HeadscopeError(
                    f"the probe 'longheads' takes the rotation off, which layer {found.layer} does "
                    f"not allow ({found.rotary}); leave the probe out."
                )
        seen: list[Attention] = []
        with model.observed(lambda attended: seen.append(attended.attention)):
            model.forward(torch.zeros(1, 2, dtype=torch.long, device=model.device))
        for attention in seen:
            if attention.v.shape[-1] != attention.k.shape[-1]:
                raise HeadscopeError(
                    "the probe 'longheads' asks with means of values, and in layer "
                    f"{attention.layer} values are {attention.v.shape[-1]} wide and keys "
                    f"{attention.k.shape[-1]}; leave the probe out."
                )

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        least = (3 + self.budget) * self.chunk
        if len(prompt) <= least:
            raise HeadscopeError(
                f"the probe 'longheads' chooses among chunks only in more than {least} tokens, "
                f"and there are {len(prompt)}; use longer prompts or a smaller chunk."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        n, attention = len(reading.prompt), attended.attention
        last = slice(n - 1, n)
        query = attention.q[:, :, last]
        if attention.rope is not None:
            query = attention.rope.unrotate(query, attention.query_positions[:, last])
        chunks = self._representations(attention, n)
        affinity = einsum(wide(query[0, :, 0]), wide(chunks), "h d, c h d -> h c")
        needle = torch.arange(*reading.prompt.span("needle"), device=query.device) // self.chunk
        competes = torch.zeros(len(chunks), dtype=torch.bool, device=query.device)
        competes[1:-2] = True
        competes[needle] = True
        top = affinity.masked_fill(~competes, -torch.inf).topk(self.budget).indices
        found = (top[:, :, None] == needle).any(1)
        return {"longheads": found.to(affinity.dtype).mean(-1)}

    def _representations(self, attention: Attention, n: int) -> Float[Tensor, "chunk head d"]:
        """What stands for every chunk of the first n tokens; the last chunk may be shorter."""
        size, device = self.chunk, attention.q.device

        def folded(x: Tensor) -> Tensor:
            return rearrange(pad(x[0, :, :n], (0, 0, 0, -n % size)), "h (c w) d -> c h w d", w=size)

        places = torch.arange(n + -n % size, device=device).view(-1, size)
        real = places < n
        # In a chunk's own attention only differences of rotations count; and with every query at
        # its end, all of it is seen.
        within = dataclasses.replace(
            attention,
            q=folded(attention.q),
            k=folded(attention.k),
            v=folded(attention.v),
            query_positions=torch.where(real, size - 1, -1),
            key_positions=torch.where(real, places % size, -1),
            window=None, chunk=None, sink_logits=None, mask=None, slots=None, rope=None,
            hidden=None, cache=None, run=None, edits=(), known_lse=None,
        )  # fmt: skip
        means = within.z().sum(2, keepdim=True) / real.sum(1)[:, None, None, None]
        keys = folded(_local_keys(attention, size))
        at_end = torch.full((len(places), 1), size - 1, device=device)
        asked = dataclasses.replace(within, q=means, k=keys, v=keys, query_positions=at_end)
        return asked.z()[:, :, 0]


def _local_keys(attention: Attention, size: int) -> Float[Tensor, "batch kv_head key d"]:
    """Keys rotated by their places in chunks of `size` tokens."""
    if attention.rope is None:
        return attention.k
    plain = attention.rope.unrotate(attention.k, attention.key_positions)
    places = torch.arange(attention.n_keys, device=plain.device)[None] % size
    return attention.rope.rotate(plain, places)
