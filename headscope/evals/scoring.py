"""How well a model says the answers of an eval, for one set of ablated heads after the other."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.base import Item, TokenIds
from headscope.evals.prefix import Prefix
from headscope.interventions.ablate import Ablate
from headscope.model import HeadModel

# Tokens of one pass over many rows. More fill a CPU's caches no better, and logits of a large
# vocabulary take 200 kB for each.
_TOKENS = {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True)
class Scored:
    """One item under one condition.

    Attributes:
        logp: nats of the counted tokens of the answer.
        exact: whether each of them is the most likely token; of a choice, whether the most likely
            answer is a right one.
        margin: log of the probability of all right answers less that of all wrong ones, in nats;
            None where there is no choice.
        tokens: how many tokens were counted.
    """

    logp: float
    exact: bool
    margin: float | None
    tokens: int


@torch.no_grad()
def scored(
    model: HeadModel,
    item: Item,
    masks: Sequence[Ablate] | None = None,
    prefix: Prefix | None = None,
) -> list[Scored]:
    """Score an item once for each of several ablations of one kind, many of them in one pass.

    Args:
        masks: ablations that differ in their heads alone; the model as it is if left out.
        prefix: the prompt, read beforehand. It must have been read as every mask would read it:
            give it only where no mask acts on prompt rows.

    Raises:
        HeadscopeError: the item expects no answer.
    """
    prompt = item.prompt
    if not prompt.answer_ids:
        raise HeadscopeError("This prompt expects no answer, so none can be scored.")
    answers = (prompt.answer_ids, *item.right, *item.wrong)
    # Answers that begin alike are read together: all single tokens from one row.
    feeds = list(dict.fromkeys(answer[:-1] for answer in answers))
    feeds = [f for f in feeds if not any(g != f and g[: len(f)] == f for g in feeds)]
    jobs = [(mask, feed) for mask in range(len(masks or [0])) for feed in range(len(feeds))]
    found: dict[tuple[int, TokenIds], tuple[Tensor, Tensor]] = {}
    for batch in _batches(jobs, len(prompt), max(map(len, feeds)), model, prefix is not None):
        logits = _pass(model, item, [feeds[f] for _, f in batch], prefix,
                       None if masks is None else [masks[m] for m, _ in batch])  # fmt: skip
        for row, (mask, feed) in enumerate(batch):
            for answer in answers:
                key = mask, answer
                if key not in found and feeds[feed][: len(answer) - 1] == answer[:-1]:
                    found[key] = _said(logits[row, : len(answer)], answer)
    return [
        _score(item, [found[mask, answer] for answer in answers])
        for mask in range(len(masks or [0]))
    ]


def _batches(
    jobs: list[tuple[int, int]], prompt: int, answer: int, model: HeadModel, shared: bool
) -> Iterator[list[tuple[int, int]]]:
    tokens = 1 + answer if shared else prompt + answer
    rows = max(1, _TOKENS.get(model.device.type, _TOKENS["cpu"]) // tokens)
    for start in range(0, len(jobs), rows):
        yield jobs[start : start + rows]


def _pass(
    model: HeadModel,
    item: Item,
    feeds: Sequence[TokenIds],
    prefix: Prefix | None,
    masks: Sequence[Ablate] | None,
) -> Float[Tensor, "row token vocab"]:
    """Logits from the prompt's last token on, for one row a feed."""
    start = item.prompt.token_ids if prefix is None else item.prompt.token_ids[-1:]
    width = max(map(len, feeds))
    # What pads a short answer on the right is seen by nothing that is read.
    rows = [(*start, *feed, *[0] * (width - len(feed))) for feed in feeds]
    ids: Int[Tensor, "row token"] = torch.tensor(rows, device=model.device)
    scope = nullcontext() if masks is None else Ablate.rowwise(model, masks)
    with scope:
        return model.forward(
            ids,
            cache=None if prefix is None else prefix.fork(),
            prompt_length=len(item.prompt),
            last=width + 1,
        )


def _said(logits: Float[Tensor, "token vocab"], answer: TokenIds) -> tuple[Tensor, Tensor]:
    """Nats of each token of an answer, and whether it is the most likely one."""
    want = torch.tensor(answer, device=logits.device)
    logp = logits.float().log_softmax(-1).gather(1, want[:, None])[:, 0]
    return logp.cpu(), (logits.argmax(-1) == want).cpu()


def _score(item: Item, said: Sequence[tuple[Tensor, Tensor]]) -> Scored:
    logp, best = said[0]
    counts = torch.tensor(item.counted or (True,) * len(logp))
    total, exact, margin = float(logp[counts].sum()), bool(best[counts].all()), None
    if item.wrong:
        each = torch.stack([logp.sum() for logp, _ in said])
        right, wrong = each.split((1 + len(item.right), len(item.wrong)))
        margin = float(right.logsumexp(0) - wrong.logsumexp(0))
        exact = bool(right.max() > wrong.max())
    return Scored(total, exact, margin, int(counts.sum()))
