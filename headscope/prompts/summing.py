"""Sentences that take an exact number of tokens together."""

import random
from collections.abc import Callable, Iterable, Sequence

from transformers import PreTrainedTokenizerBase

_ROUNDS = 64


def summing(
    tokens: int,
    behind: str,
    drawn: Callable[[], Iterable[str]],
    rng: random.Random,
    tokenizer: PreTrainedTokenizerBase,
) -> list[str] | None:
    """Random distinct sentences whose lengths sum to `tokens`; None where none are found.

    Args:
        behind: a sentence behind which each is counted, as it begins with a space there.
        drawn: gives some sentences; asked for more until some of them fit together.
    """

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    pool, alone = dict[str, int](), length(behind)
    for _ in range(_ROUNDS):
        for sentence in drawn():
            if sentence not in pool:
                pool[sentence] = length(f"{behind} {sentence}") - alone
        chosen = _subset(list(pool.values()), tokens, rng)
        if chosen is not None:
            said = [sentence for i, sentence in enumerate(pool) if i in chosen]
            rng.shuffle(said)
            return said
    return None


def _subset(costs: Sequence[int], total: int, rng: random.Random) -> set[int] | None:
    """Random indices whose costs sum to exactly `total`; None where none do."""
    # Bit c of reachable[i] says whether some of the first i costs sum to c.
    reachable, kept = [1], (1 << (total + 1)) - 1
    for cost in costs:
        reachable.append((reachable[-1] | reachable[-1] << cost) & kept)
    if not reachable[-1] >> total & 1:
        return None
    chosen = set[int]()
    for i in reversed(range(len(costs))):
        without = reachable[i] >> total & 1
        left = total - costs[i]
        if left >= 0 and reachable[i] >> left & 1 and (not without or rng.random() < 0.5):
            chosen.add(i)
            total = left
    return chosen
