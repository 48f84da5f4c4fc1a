"""How well a model says the answers of an eval, for one set of ablated heads after the other."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.base import Item, TokenIds
from headscope.evals.prefix import Prefix
from headscope.interventions.ablate import Ablate
from headscope.model import HeadModel

# Tokens of one pass over many rows. More fill a CPU's caches no better, and logits of a large
# vocabulary take 200 kB for each.
_TOKENS = {"cpu": 512, "cuda": 8192}

Said = tuple[Float[Tensor, " _"], Bool[Tensor, " _"]]  # nats; whether it is the most likely


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
        curve: mean nats of the tokens of each bucket.
    """

    logp: float
    exact: bool
    margin: float | None
    tokens: int
    curve: tuple[float, ...] = ()


@torch.no_grad()
def scored(
    model: HeadModel,
    item: Item,
    masks: Sequence[Ablate] | None = None,
    prefix: Prefix | None = None,
) -> list[Scored]:
    """Score an item once for each of several ablations, many of them in one pass.

    Args:
        masks: ablations that differ in their heads alone; the model as it is if left out.
        prefix: the prompt, read beforehand. It must have been read as every mask would read it:
            give it only where no mask acts on prompt rows.

    Raises:
        HeadscopeError: the item expects no answer.
    """
    if not item.prompt.answer_ids:
        raise HeadscopeError("This prompt expects no answer, so none can be scored.")
    answers = (item.prompt.answer_ids, *item.right, *item.wrong)
    feeds = _feeds(answers)
    if item.chunk:
        return [
            _score(item, _streamed(model, item, answers, feeds, mask)) for mask in masks or (None,)
        ]
    if prefix is None and len(feeds) > 1:
        # Each answer would take the prompt through the model again.
        return [_one(model, item, mask) for mask in masks or (None,)]
    jobs = [(mask, feed) for mask in range(len(masks or (None,))) for feed in feeds]
    said: dict[tuple[int, TokenIds], Said] = {}
    for batch in _batches(jobs, item, model, prefix is not None):
        chosen = None if masks is None else [masks[mask] for mask, _ in batch]
        logits = _pass(model, item, [feed for _, feed in batch], prefix, chosen)
        for row, (mask, feed) in enumerate(batch):
            for answer in answers:
                if answer[:-1] == feed[: len(answer) - 1]:
                    said[mask, answer] = answer_said(logits[row, : len(answer)], answer)
    return [
        _score(item, [said[mask, answer] for answer in answers])
        for mask in range(len(masks or (None,)))
    ]


def _feeds(answers: Sequence[TokenIds]) -> list[TokenIds]:
    """What has to be read to foretell every token of some answers: those that begin alike are read
    together, and single tokens need nothing."""
    heads = list(dict.fromkeys(answer[:-1] for answer in answers))
    return [h for h in heads if not any(o != h and o[: len(h)] == h for o in heads)]


def _one(model: HeadModel, item: Item, mask: Ablate | None) -> Scored:
    with _scope(model, mask):
        return scored(model, item, None, Prefix.of(model, item.prompt))[0]


def _scope(model: HeadModel, mask: Ablate | None) -> AbstractContextManager[object]:
    return nullcontext() if mask is None else mask(model)


def _batches(
    jobs: list[tuple[int, TokenIds]], item: Item, model: HeadModel, shared: bool
) -> Iterator[list[tuple[int, TokenIds]]]:
    tokens = max(len(feed) for _, feed in jobs) + (1 if shared else len(item.prompt))
    rows = rows_at_once(model, tokens)
    for start in range(0, len(jobs), rows):
        yield jobs[start : start + rows]


def rows_at_once(model: HeadModel, tokens: int) -> int:
    """How many rows of so many tokens one pass should have."""
    return max(1, _TOKENS.get(model.device.type, _TOKENS["cpu"]) // tokens)


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
    with nullcontext() if masks is None else Ablate.rowwise(model, masks):
        return model.forward(
            torch.tensor(rows),
            cache=None if prefix is None else prefix.fork(),
            prompt_length=len(item.prompt),
            last=width + 1,
        )


def _streamed(
    model: HeadModel,
    item: Item,
    answers: Sequence[TokenIds],
    feeds: Sequence[TokenIds],
    mask: Ablate | None,
) -> list[Said]:
    """Answers chunk by chunk, each behind a cache of all before it; one row for each feed."""
    prompt, n, width = item.prompt, len(item.prompt), max(map(len, feeds))
    rows = torch.tensor([(*prompt.token_ids, *f, *[0] * (width - len(f))) for f in feeds])
    of = [
        next(i for i, feed in enumerate(feeds) if answer[:-1] == feed[: len(answer) - 1])
        for answer in answers
    ]
    cache, held = model.new_cache(), 0
    found: list[list[Said]] = [[] for _ in answers]
    for start in range(0, width + 1, item.chunk):
        stop = min(start + item.chunk, width + 1)
        ids = rows[:, held : n + stop - 1]
        with _scope(model, mask):
            logits = model.forward(ids, cache=cache, prompt_length=n, last=stop - start)
        held = n + stop - 1
        for said, row, answer in zip(found, of, answers, strict=True):
            target = answer[start:stop]
            said.append(answer_said(logits[row, : len(target)], target))
    return [(torch.cat([s[0] for s in said]), torch.cat([s[1] for s in said])) for said in found]


def answer_said(logits: Float[Tensor, "token vocab"], answer: TokenIds) -> Said:
    """Nats of each token of an answer, and whether each is the most likely one."""
    want = torch.tensor(answer, device=logits.device)
    logp = logits.float().log_softmax(-1).gather(1, want[:, None])[:, 0]
    return logp.cpu(), (logits.argmax(-1) == want).cpu()


def _score(item: Item, said: Sequence[Said]) -> Scored:
    logp, best = said[0]
    counts = torch.tensor(item.counted or (True,) * len(logp))
    exact, margin = bool(best[counts].all()), None
    if item.wrong:
        each = torch.stack([logp.sum() for logp, _ in said])
        right, wrong = each.split((1 + len(item.right), len(item.wrong)))
        margin = float(right.logsumexp(0) - wrong.logsumexp(0))
        exact = bool(right.max() > wrong.max())
    counted = logp[counts]
    runs = counted.tensor_split(item.buckets) if item.buckets else ()
    curve = tuple(float(run.mean()) for run in runs if len(run))
    return Scored(float(counted.sum()), exact, margin, len(counted), curve)
