from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.changing import behind_prose, choice, swapped
from headscope.evals.drawing import check_count, third
from headscope.prompts.asking import Draft
from headscope.prompts.base import Range

_ARGUMENTS = tuple(
    """
    size name path mode color width price label index order speed value shape state image level
    scale title depth angle column owner group limit offset region weight frame period margin
    source target random status amount score count input output result message height stream
    table theme
    """.split()
)
_FUNCTIONS = tuple(
    """
    update render collect convert resize prepare measure arrange publish compare restore inspect
    connect divide export gather
    """.split()
)
_SUMMARIES = (
    "Do the usual work for one entry.",
    "Handle a single request.",
    "Take the next step of the job.",
    "Run this part of the program once.",
    "Bring everything up to date.",
    "Finish what was begun before.",
)
# They fit any argument, so that only the order of the signature tells which one is next.
_SAYINGS = (
    "see the notes below", "as given by the caller", "taken from the settings", "used as it is",
    "may be left out", "checked before use", "kept for later", "read only once",
    "passed on unchanged", "the usual one by default", "not changed here", "needed in every case",
)  # fmt: skip


@dataclass(frozen=True)
class Docstring(Eval):
    """The next `:param` name of a Python docstring, in the order of the function's signature.

    "def update(self, size, path, color, width): ... :param size: kept for later, :param path: read
    only once, :param" is followed by " color", and by no other argument. All arguments compete.
    Two or three of them are described, in turn, always the first ones. In the corrupt prompt the
    answer and another argument that is not described are in each other's place in the signature.
    Spans: "argument_0", ... (of the signature), "described_0", ... (names in the docstring) and
    "answer" (the next argument, in the signature).

    Source: after Heimersheim & Janiak 2023, "A circuit for Python docstrings in a 4-layer
    attention-only transformer". Words and wording are headscope's own.

    Attributes:
        arguments: of the function, beside `self`.
    """

    metric = "choice"
    source = "Heimersheim & Janiak 2023, LessWrong / Alignment Forum"
    licence = "none stated; the idea alone"
    arguments: int = field(default=6, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "arguments", self.arguments, 5, len(third(_ARGUMENTS, self.split)))

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, described = self.rng(index), 2 + index % 2
        names = rng.sample(third(_ARGUMENTS, self.split), self.arguments)
        sayings = rng.sample(third(_SAYINGS, self.split), described)
        spans = dict[str, Range]()
        text = f"def {rng.choice(third(_FUNCTIONS, self.split))}(self"
        for i, name in enumerate(names):
            spans[f"argument_{i}"] = (len(text) + 2, len(text) + 2 + len(name))
            text += f", {name}"
        text += f'):\n    """{rng.choice(third(_SUMMARIES, self.split))}\n\n'
        for i, saying in enumerate(sayings):
            start = len(text) + len("    :param ")
            spans[f"described_{i}"] = (start, start + len(names[i]))
            text += f"    :param {names[i]}: {saying}\n"
        text += "    :param"
        spans["answer"] = spans[f"argument_{described}"]
        facts = {
            "length": self.length(index), "arguments": self.arguments, "described": described
        }  # fmt: skip
        answer = names[described]
        draft = behind_prose(
            self, index, tokenizer, text, spans,
            lambda whole, found: Draft(whole, found, answer, False, facts),
        )  # fmt: skip
        later = list(range(described + 1, self.arguments))
        swaps = [
            swapped(draft, f"argument_{described}", f"argument_{i}")
            for i in rng.sample(later, len(later))
        ]
        others = [name for name in names if name != answer]
        return choice(draft, tokenizer, others, *swaps)
