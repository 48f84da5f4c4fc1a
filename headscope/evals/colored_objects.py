from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.changing import behind_prose, choice, swapped
from headscope.evals.drawing import check_count, third, turn
from headscope.evals.several import listed
from headscope.prompts.asking import Asked
from headscope.prompts.base import Range

# None begins with a vowel: two of them can swap places behind "a".
_COLORS = tuple(
    """
    red blue green yellow white black brown pink purple gray silver gold violet turquoise navy
    """.split()
)
_OBJECTS = tuple(
    """
    pen mug book hat cup key ball lamp box bottle ring candle spoon plate brush towel wallet
    notebook glove rope bell basket pencil fork
    """.split()
)
_TASK = "Read the text and answer the question."


@dataclass(frozen=True)
class ColoredObjects(Eval):
    """The color of one of some objects, chosen among the colors of the others.

    "On the table there are a red pen, a blue mug and a green cup. Question: What color is the
    mug?"; the forced answer begins "The color of the mug is". In the corrupt prompt its color and
    that of another object are in each other's place. Spans: "object_0", "object_1", ... ("red
    pen"), "needle" (the asked one) and "answer" (its color).

    Source: "reasoning about colored objects" of BIG-bench (Srivastava et al. 2022, arXiv
    2206.04615), as Merullo et al. 2023 (arXiv 2310.08744) use it. Words and wording are
    headscope's own.

    Attributes:
        objects: how many; each is asked for equally often.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "BIG-bench, arXiv 2206.04615; Merullo et al. 2023, arXiv 2310.08744"
    licence = "Apache-2.0 (BIG-bench)"
    objects: int = field(default=4, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "objects", self.objects, 2, len(third(_COLORS, self.split)))

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng(index)
        objects = rng.sample(third(_OBJECTS, self.split), self.objects)
        colors = rng.sample(third(_COLORS, self.split), self.objects)
        slot = turn(self, index, range(self.objects))
        named = [f"{color} {thing}" for color, thing in zip(colors, objects, strict=True)]
        text = f"On the table there are {listed([f'a {name}' for name in named])}."
        spans = dict[str, Range]()
        for i, (name, color) in enumerate(zip(named, colors, strict=True)):
            start = text.index(f"a {name}") + len("a ")
            spans[f"object_{i}"] = (start, start + len(name))
            spans[f"color_{i}"] = (start, start + len(color))
        spans |= {"needle": spans[f"object_{slot}"], "answer": spans[f"color_{slot}"]}
        question = f"What color is the {objects[slot]}?"
        lead = f"The color of the {objects[slot]} is"
        asked = Asked(_TASK, question, lead, colors[slot], self.chat)
        facts = {"length": self.length(index), "slot": slot, "objects": self.objects}
        draft = behind_prose(
            self, index, tokenizer, text, spans,
            lambda whole, found: asked.about(whole, found, tokenizer, facts),
        )  # fmt: skip
        others = [i for i in range(self.objects) if i != slot]
        swap = swapped(draft, f"color_{slot}", f"color_{rng.choice(others)}")
        return choice(draft, tokenizer, [colors[i] for i in others], swap)
