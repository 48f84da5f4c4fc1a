from dataclasses import dataclass, field
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count, check_places, numbers, turn
from headscope.evals.listing import filling
from headscope.evals.pairs import choice, line, pair_list
from headscope.prompts.asking import Asked, Draft

_TASK = (
    "Below is a JSON object. Some values are keys of other lines: go on there, from line to line, "
    "until a value is no key any more. That is where a thread ends."
)
_MOST = 500  # threads; more would not fit into the numbers there are


@dataclass(frozen=True)
class NeedleThreading(Eval):
    """Where a thread ends: the value of one pair is the key of the next, chosen among other ends.

    A line reads '"4821": 5930,' and all threads have `hops` of them, shuffled. The answer is forced
    as one more line, headed "The thread's end:", from the first key to the last value. A prompt of
    a given length holds as many threads as fit, with a little prose before them for the rest. All
    choices end threads, so that none is known by its looks. In the corrupt prompt the asked end
    and one of `wrong` are in each other's place. Spans: "pair_0", ..., "needle" (the thread's last
    pair), "answer" (its value), and "step_0", "step_1", ...: the thread's pairs.

    Source: Roberts et al. 2024, "Needle Threading" (arXiv 2411.05000), where keys are UUIDs and
    the answer is free. Wording, four-digit numbers and the choice are headscope's own.

    Attributes:
        hops: pairs in a thread.
        threads: how many where no length is asked for.
        others: ends to choose among beside the right one, fewer where there are not so many.
        depths: relative slots of the asked thread's last pair, paired evenly with the lengths.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "Roberts et al. 2024, arXiv 2411.05000"
    licence = "MIT"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    hops: int = field(default=2, kw_only=True)
    threads: int = field(default=6, kw_only=True)
    others: int = field(default=4, kw_only=True)
    depths: tuple[float, ...] = field(default=(0.0, 0.25, 0.5, 0.75, 1.0), kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self, self.depths)
        check_count(self, "hops", self.hops, 1, 5)
        check_count(self, "threads", self.threads, 2, _MOST)
        check_count(self, "others", self.others, 1, 100)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, step = self.rng(index), self.hops + 1
        drawn = numbers(rng, self.split, _MOST * step, digits=4)
        threads = [drawn[i : i + step] for i in range(0, len(drawn), step)]
        begin, *_, end = threads[0]
        depth = turn(self, index, self.depths)

        def shuffled(count: int) -> list[tuple[str, str]]:
            links = [link for thread in threads[:count] for link in pairwise(thread)]
            self.rng(index, "order").shuffle(links)
            last = next(i for i, (_, value) in enumerate(links) if value == end)
            slot = round(depth * (len(links) - 1))
            links[last], links[slot] = links[slot], links[last]
            return links

        def draft(count: int, prose: list[str]) -> Draft:
            links = shuffled(count)
            steps = [links.index(link) for link in pairwise(threads[0])]
            question = f'Where does the thread that begins at "{begin}" end?'
            lead = f"The thread's end:\n{line(begin)}"
            asked = Asked(_TASK, question, lead, end, self.chat)
            facts = {"length": self.length(index), "depth": depth, "key": begin, "hops": self.hops}
            return pair_list(links, steps[-1], prose, asked, tokenizer, facts, steps)

        made = filling(self, index, tokenizer, draft, (2, _MOST), self.threads)
        links = shuffled(int(made.facts["pairs"]) // self.hops)
        ends = {thread[-1] for thread in threads[1:]}
        others = [i for i, (_, value) in enumerate(links) if value in ends]
        return choice(made, tokenizer, others, rng, self.others)
