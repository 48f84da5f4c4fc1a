import oracle
import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.model import HeadModel
from headscope.prompts import Prompt

BOS = 1  # of the tiny tokenizer; the prompt does not begin with it


def define(model: HeadModel, prompt: Prompt) -> dict[str, Tensor]:
    ids = list(prompt.token_ids)
    assert ids[0] != BOS
    return {"sink_bos": on_first(model, [BOS, *ids]), "sink_bare": on_first(model, ids)}


def on_first(model: HeadModel, ids: list[int]) -> Tensor:
    seen: list[Attention] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model(ids)
    patterns = [oracle.dense(attention).pattern[0].tolist() for attention in seen]
    return torch.tensor(
        [[sum(row[0] for row in p[1:]) / (len(ids) - 1) for p in heads] for heads in patterns]
    )
