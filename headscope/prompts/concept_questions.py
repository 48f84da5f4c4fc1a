from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.base import SPLITS, Prompt, PromptFamily, Split, encode
from headscope.words import concept

_LISTS = (
    "{}, {}, {},",
    "First {}, then {}, then {}, then",
    "Some say {}, some say {} and some say {}. Others say",
    "Not {}, not {} and not {}, but",
)


@dataclass(frozen=True)
class ConceptQuestions(PromptFamily):
    """Short sentences that a word of a concept would end.

    Of a named concept they are questions that hold none of its words ("The color of snow is").
    Own words have no questions; they stand in lists that could go on ("not red, not blue, but"),
    which heads that copy go on with too.

    Attributes:
        concept: name of a concept; of no account if there are words.
        words: words of one's own, or token ids.
        split: which third of what is asked about is used; thirds share nothing. Lists are drawn
            anew for each.
    """

    samples: int = 44
    concept: str = "colours"
    words: tuple[str | int, ...] = ()
    split: Split = "detect"

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        if self.words:
            rng = self.rng(self.split, index)
            words = [rng.choice(self.words) for _ in range(3)]
            said = [str(tokenizer.decode([w])).strip() if isinstance(w, int) else w for w in words]
            return encode(tokenizer, rng.choice(_LISTS).format(*said))
        named = concept(self.concept)
        about = list(named.about[SPLITS.index(self.split) :: len(SPLITS)])
        if index >= len(about) * len(named.asks):
            raise HeadscopeError(
                f"There are {len(about) * len(named.asks)} questions about {self.concept!r} in a "
                "split; ask for no more samples."
            )
        self.rng().shuffle(about)
        rounds, place = divmod(index, len(about))
        ask = named.asks[(place + rounds) % len(named.asks)].format(about[place])
        return encode(tokenizer, ask[0].upper() + ask[1:])
