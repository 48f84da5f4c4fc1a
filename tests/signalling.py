"""A small GPT-2 whose heads write what later heads match keys by: quick to make and to trace.

Its norms have gains and biases, its MLPs say things at random, and heads that only look like
senders or readers stand beside the true ones.
"""

from dataclasses import dataclass
from typing import cast

import torch
from tiny import VOCAB, tiny_tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

import headscope
from headscope.model import HeadModel

PLACES, CODE, HEADS, LAYERS = 40, 24, 4, 3  # one dimension of a head for each place
WIDE = HEADS * PLACES
LENGTH = 2.0  # of what stands in the stream
SHARP = 3.0  # of the weights: logits of a match are about 50
FEATURES = {"place": PLACES, "token": CODE, "previous": CODE, "earlier": CODE, "output": CODE}

# By kind: how far back it looks or what of a key it holds the query's token against, and where it
# writes the key's token.
KINDS: dict[str, tuple[int | str, str]] = {
    "previous_token": (1, "previous"), "two_back": (2, "earlier"),
    "idle_previous_token": (1, "output"), "idle_two_back": (2, "output"),
    "duplicate_token": ("token", "output"), "current_token": (0, "output"),
    "induction": ("previous", "output"), "late_induction": ("earlier", "output"),
}  # fmt: skip
EARLY = (
    "previous_token", "two_back", "idle_previous_token", "idle_two_back", "duplicate_token",
    "current_token", "noise", "noise",
)  # fmt: skip
LATE = ("induction", "induction", "late_induction", "noise")
EDGES = {("previous_token", "induction"), ("two_back", "late_induction")}


@dataclass(frozen=True, eq=False)
class Signalling:
    """The model, and the kind of each of its heads."""

    model: HeadModel
    kinds: dict[tuple[int, int], str]


def signalling(seed: int, noise: float) -> Signalling:
    """A model of a seed; `noise` moves every output of a projection by about as much."""
    draw = torch.Generator().manual_seed(seed)
    order = [[*EARLY][i] for i in torch.randperm(len(EARLY), generator=draw).tolist()]
    order += [[*LATE][i] for i in torch.randperm(len(LATE), generator=draw).tolist()]
    kinds = {divmod(i, HEADS): kind for i, kind in enumerate(order)}
    columns = torch.cat((torch.ones(WIDE, 1), torch.randn(WIDE, WIDE - 1, generator=draw)), 1)
    rows = torch.linalg.qr(columns).Q.T[1 : 1 + sum(FEATURES.values())]  # of no mean
    ways = dict(zip(FEATURES, rows.split(list(FEATURES.values())), strict=True))
    codes = normalize(torch.randn(VOCAB, CODE, generator=draw), dim=-1)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=WIDE, n_inner=32, n_layer=LAYERS, n_head=HEADS, n_positions=PLACES,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    hf = GPT2LMHeadModel(config).eval()
    hf.transformer.wte.weight.copy_(LENGTH * codes @ ways["token"])
    hf.transformer.wpe.weight.copy_(LENGTH * ways["place"])
    for layer, block in enumerate(hf.transformer.h):
        norm, at = block.ln_1, block.attn
        norm.weight.copy_(0.5 + torch.rand(WIDE, generator=draw))
        norm.bias.copy_(torch.randn(WIDE, generator=draw) / 2)
        own = [_head(kinds[layer, head], ways, draw) for head in range(HEADS)]
        q, k, v, o = (torch.cat(parts) for parts in zip(*own, strict=True))
        reads = torch.cat((q, k, v)) / norm.weight
        at.c_attn.weight.copy_(reads.T)
        at.c_attn.bias.copy_(-reads @ norm.bias)
        at.c_proj.weight.copy_(o)
    for parameter in hf.parameters():
        parameter += noise / WIDE**0.5 * torch.randn(parameter.shape, generator=draw)
    model = headscope.load(cast(PreTrainedModel, hf), tiny_tokenizer())
    return Signalling(model, kinds)


def _head(kind: str, ways: dict[str, Tensor], draw: torch.Generator) -> tuple[Tensor, ...]:
    """W_Q, W_K, W_V as [d, model] and W_O as [d, model]."""
    token = torch.zeros(PLACES, WIDE)
    token[:CODE] = ways["token"] / 3  # the norm makes about 3 of each of them
    if kind == "noise":  # of what no head writes, so that true senders alone are read
        seen = torch.cat((ways["token"], ways["place"]))
        q, k = (
            SHARP * torch.randn(PLACES, len(seen), generator=draw) @ seen / PLACES**0.5
            for _ in range(2)
        )
        mixed = torch.randn(PLACES, CODE, generator=draw) / CODE**0.5
        return q, k, token, mixed @ ways["output"]
    by, writes = KINDS[kind]
    q, k, o = (torch.zeros(PLACES, WIDE) for _ in range(3))
    if isinstance(by, int):
        q, k = ways["place"], ways["place"].roll(by, 0)
    else:
        q[:CODE], k[:CODE] = ways["token"], ways[by]
    o[:CODE] = ways[writes]
    return SHARP * q, SHARP * k, token, o
