from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count, third
from headscope.evals.stories import PEOPLE, PLACES, going, mixed, where


@dataclass(frozen=True)
class SingleFact(Eval):
    """Where somebody is who has gone to one or two places, while others went elsewhere.

    "Emma ran to the attic. Paul went to the office. ... Question: Where is Emma now?"; the forced
    answer begins "Emma is now in the". It is a choice between the six places of a split. In the
    corrupt prompt the place and that of somebody else are in each other's sentence. Where lengths
    are asked for, the sentences stand in their order at random depths of prose; "depth" is that of
    the one that answers.

    Source: task 1 of bAbI (Weston et al. 2015, arXiv 1502.05698); spread over prose as in BABILong
    (Kuratov et al. 2024, arXiv 2406.10149). Stories, names and prose are headscope's own.

    Attributes:
        people: how many go somewhere; every other one goes on to a second place.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "bAbI, Weston et al. 2015, arXiv 1502.05698; BABILong, Kuratov et al. 2024"
    licence = "BSD (bAbI tasks), Apache-2.0 (BABILong)"
    people: int = field(default=3, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "people", self.people, 2, 4)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng(index)
        people = rng.sample(third(PEOPLE, self.split), self.people)
        places = rng.sample(third(PLACES, self.split), len(third(PLACES, self.split)))
        goes = [[places.pop() for _ in range(1 + i % 2)] for i in range(self.people)]
        story = mixed(
            rng,
            [[going(rng, who, to) for to in tos] for who, tos in zip(people, goes, strict=True)],
        )
        asked, other = rng.sample(range(self.people), 2)
        return where(
            self,
            index,
            tokenizer,
            self.chat,
            people[asked],
            story,
            goes[asked][-1],
            goes[other][-1],
        )
