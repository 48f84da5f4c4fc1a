"""Prompts of documents, and transformers' own patterns of them, for tests of their order."""

from functools import cache
from typing import Any

import torch
from tiny import reference_model
from torch import Tensor

from headscope.interventions.attention_sorting import AttentionSorting
from headscope.interventions.attn_rank import AttnRank
from headscope.interventions.calibrated_ranking import CalibratedRanking
from headscope.interventions.slot_profile import SlotProfile
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

LENGTHS, GAPS = (5, 7, 4, 6, 5), (3, 1, 2, 0, 1)


MODELS = ("llama", "qwen3", "gpt2", "mistral")


def prompt(seed: int, tail: int = 4) -> Prompt:
    """Five documents of random words, text between most of them, and a question behind."""
    spans, at = {}, 0
    for number, (gap, length) in enumerate(zip(GAPS, LENGTHS, strict=True)):
        spans[f"doc_{number}"] = (at + gap, at + gap + length)
        at += gap + length
    spans |= {"question": (at + 1, at + tail), "gold": spans["doc_2"], "answer": (17, 18)}
    drawn = torch.randint(3, 97, (at + tail,), generator=torch.Generator().manual_seed(seed))
    return Prompt(tuple(drawn.tolist()), spans, "w5", (5,))


reference = cache(reference_model)


def by_hand(architecture: str, ids: Any, spans: Any, heads: Any = None) -> Tensor:
    """The last row of every dense pattern, averaged over heads and over each document's tokens."""
    found = reference(architecture)(torch.tensor([list(ids)]), output_attentions=True).attentions
    rows = torch.stack([layer[0, :, -1] for layer in found]).double()
    mean = rows.mean((0, 1)) if heads is None else torch.stack([rows[h] for h in heads]).mean(0)
    return torch.stack([mean[start:stop].mean() for start, stop in spans])


def joined(ids: Any, pieces: Any) -> tuple[int, ...]:
    return tuple(token for start, stop in pieces for token in ids[start:stop])


def words(found: Prompt, name: str) -> tuple[int, ...]:
    return found.token_ids[slice(*found.span(name))]


def docs(found: Prompt) -> list[int]:
    """The numbers of documents in the order in which they stand."""
    spans = found.numbered("doc")
    return [spans.index(span) for span in sorted(spans)]


def profile(model: HeadModel, values: Any) -> SlotProfile:
    return SlotProfile(
        values=tuple(values), model_name="m", fingerprint=_fingerprint(model), layers=(0,),
        prompts=1,
    )  # fmt: skip


@cache
def _fingerprint(model: HeadModel) -> str:
    return model.fingerprint


def methods(model: HeadModel) -> list[Any]:
    ranked = AttnRank(profile=profile(model, (2, 1, 3, 0, 9)), relevance=(5, 4, 3, 2, 1))
    return [AttentionSorting(rounds=2), CalibratedRanking(), ranked]
