from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_places, numbers, turn
from headscope.evals.hiding import Hidden, hide
from headscope.prompts.asking import Asked
from headscope.prompts.base import SPLITS

_NOISE = (
    "The kettle hums. Rain taps on the roof. The cat sleeps on the stair. No one comes in. "
    "It is quiet again.",
    "The road is long. Dust lies on the hedge. A cart rolls down the hill. The dog looks up. "
    "Then nothing moves.",
    "The lake is still. Reeds bend in the wind. A boat drifts to the shore. The oar is wet. "
    "Evening comes slowly.",
)
_TASK = "Most of this text says nothing. One sentence in it gives a pass key; remember it."
_LEAD = "The door opens with the pass key"


@dataclass(frozen=True)
class Passkey(Eval):
    """A five-digit pass key between the same five idle sentences, over and over.

    The text is "... The door opens with the pass key 12345. Write it down: 12345 and nothing else.
    ..." and the forced answer "The door opens with the pass key 12345".

    Source: Mohtashami & Jaggi 2023, "Landmark Attention" (arXiv 2305.16300), whose idea this is;
    all sentences are headscope's own, other ones for each split.

    Attributes:
        depths: relative places of the key, paired evenly with the lengths.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "Mohtashami & Jaggi 2023, arXiv 2305.16300"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    depths: tuple[float, ...] = field(default=(0.1, 0.3, 0.5, 0.7, 0.9), kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self, self.depths)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        depth = turn(self, index, self.depths)
        (key,) = numbers(self.rng(index), self.split, 1)
        text = f"{_LEAD} {key}. Write it down: {key} and nothing else."
        needle = Hidden(depth, text, "needle", key, "answer")
        asked = Asked(_TASK, "Which pass key opens the door?", _LEAD, key, self.chat)
        noise = _NOISE[SPLITS.index(self.split)].split()
        draft = hide(self, index, tokenizer, asked, [needle], {"depth": depth}, noise)
        return Item(draft.encode(tokenizer))
