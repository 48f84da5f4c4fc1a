"""Log-likelihoods of continuations, each context read once where that changes nothing."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from headscope.engines import dense
from headscope.evals.prefix import Prefix
from headscope.evals.scoring import answer_said
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

Ids = tuple[int, ...]
Said = tuple[float, bool]  # nats of a continuation; whether greedy decoding would have said it


def changed(model: HeadModel) -> bool:
    """Whether anything is in force that could read a prompt in another way than the model does."""
    chain = model.stack.chain
    return bool(chain.entered) or chain.engine is not dense


def said(
    model: HeadModel, pairs: Sequence[tuple[Ids, Ids]], share: bool = True
) -> Iterator[tuple[int, Said]]:
    """Score continuations of contexts.

    Args:
        pairs: token ids of a context and its continuation, both of at least one token.
        share: read a context once for all of its continuations, as long as nothing is in force.

    Yields:
        The index of a pair, and its score; the longest contexts first.
    """
    # Equal inputs are one pass whatever is in force: continuations that differ in the last token.
    groups: dict[Ids, dict[Ids, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (context, continuation) in enumerate(pairs):
        groups[context][continuation[:-1]].append(index)
    for context in sorted(groups, key=len, reverse=True):
        feeds = groups[context]
        for feed, logits in _passes(model, context, list(feeds), share and not changed(model)):
            for index in feeds[feed]:
                yield index, _score(logits, pairs[index][1])


def _passes(
    model: HeadModel, context: Ids, feeds: Sequence[Ids], share: bool
) -> Iterator[tuple[Ids, Float[Tensor, "token vocab"]]]:
    """For each feed the logits of the context's last token and of its own."""
    n, prefix = len(context), None
    if share and len(feeds) > 1:
        prefix = Prefix.of(model, Prompt(context))
    begin = context if prefix is None else context[-1:]
    for feed in feeds:
        cache = None if prefix is None else prefix.fork()
        new = [*begin, *feed]
        yield feed, model.forward(new, cache=cache, prompt_length=n, last=len(feed) + 1)[0]


def _score(logits: Float[Tensor, "token vocab"], continuation: Ids) -> Said:
    logp, best = answer_said(logits, continuation)
    return float(logp.sum()), bool(best.all())
