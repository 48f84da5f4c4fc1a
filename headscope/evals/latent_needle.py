from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.associations import associations
from headscope.evals.base import Eval, Item
from headscope.evals.changing import choice, swapped
from headscope.evals.drawing import check_count, check_places, third, turn
from headscope.evals.hiding import Hidden, hide
from headscope.evals.stories import PEOPLE
from headscope.prompts.asking import Asked

_TASK = "Read the text. One sentence in it tells what the question asks, in other words."


@dataclass(frozen=True)
class LatentNeedle(Eval):
    """Who it is that a sentence in prose is about, asked for without a word of that sentence.

    "Clara has a flat right beside the Eiffel Tower." answers "Which person lives in Paris?", and
    "Hugo kneads dough long before sunrise." "Which person works as a baker?". The forced answer
    begins "The person who lives in Paris is"; it is a choice between the names of that needle and
    of others of its kind at random depths, whose spans are "distractor_0", ... In the corrupt
    prompt the names of the needle and of one of those are in each other's place.

    Source: NoLiMa (Modarressi et al. 2025, arXiv 2502.05167). Associations, names and prose are
    headscope's own; the others' names as choices are, too, as a small model is near chance.

    Attributes:
        distractors: needles about other people.
        depths: relative places of the asked needle, paired evenly with the lengths.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "NoLiMa, Modarressi et al. 2025, arXiv 2502.05167"
    licence = "Adobe Research License, non-commercial (NoLiMa)"
    lengths: tuple[int, ...] = field(default=(256, 512), kw_only=True)
    distractors: int = field(default=3, kw_only=True)
    depths: tuple[float, ...] = field(default=(0.1, 0.3, 0.5, 0.7, 0.9), kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self, self.depths)
        most = min(map(len, associations(self.split))) - 1
        check_count(self, "distractors", self.distractors, 1, most)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, depth = self.rng(index), turn(self, index, self.depths)
        kind = rng.choice(associations(self.split))
        gold, *others = rng.sample(kind, 1 + self.distractors)
        who, *names = rng.sample(third(PEOPLE, self.split), 1 + self.distractors)
        needles = [Hidden(depth, f"{who} {gold.clue}", "needle", who, "answer")]
        needles += [
            Hidden(rng.random(), f"{name} {other.clue}", f"distractor_{i}", name, f"name_{i}")
            for i, (name, other) in enumerate(zip(names, others, strict=True))
        ]
        asked = Asked(_TASK, gold.question, gold.lead, who, self.chat)
        facts = {"depth": depth, "clue": gold.clue, "distractors": self.distractors}
        draft = hide(self, index, tokenizer, asked, needles, facts)
        # A name that begins a paragraph may take more tokens than behind a space.
        swaps = (swapped(draft, "answer", f"name_{i}") for i in range(self.distractors))
        return choice(draft, tokenizer, names, *swaps)
