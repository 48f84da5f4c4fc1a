import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.changing import choice
from headscope.evals.drafting import at_length
from headscope.evals.drawing import third, turn
from headscope.prompts import filler
from headscope.prompts.asking import Draft
from headscope.prompts.base import Range
from headscope.prompts.facts import FACTS, KEYS
from headscope.prompts.turns import in_chat

Order = Literal["CQO", "QOC"]
_OPTIONS = 4


@dataclass(frozen=True)
class ContextOrder(Eval):
    """A question of four options about facts of four people, asked behind the facts or before them.

    Context, question and options stand in the order of their letters: CQO shows the facts first,
    QOC last, where options are read before anything is known that could choose between them. The
    forced "Answer:" is followed by the words of an option; every place among the options is right
    equally often. Prose stands at the start of the context where a length is asked for.

    Source: the effect of the order, Ok & Lee 2026, arXiv 2601.14152, known here by its summary;
    task and words are headscope's own.

    Attributes:
        order: which comes first.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "after Ok & Lee 2026, arXiv 2601.14152"
    licence = "none known; the idea alone"
    order: Order = field(default="CQO", kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in get_args(Order):
            raise HeadscopeError(f"The order is one of {', '.join(get_args(Order))}.")

    def rng(self, *parts: Any) -> random.Random:
        # The same questions in both orders, whatever the class is called.
        return random.Random(repr((ContextOrder.__name__, self.seed, self.split, *parts)))

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, slot = self.rng(index), turn(self, index, range(_OPTIONS))
        fact = rng.choice(FACTS["word"])
        people = rng.sample(third(KEYS, self.split), _OPTIONS)
        words = rng.sample(third(fact.answers or (), self.split), _OPTIONS)
        said = [fact.fill(who, word)[0] for who, word in zip(people, words, strict=True)]
        told, listed = rng.sample(said, _OPTIONS), rng.sample(words[1:], _OPTIONS - 1)
        listed.insert(slot, words[0])
        question = f"Question: {fact.fill(people[0], words[0])[1]}"
        options = "Options: " + ", ".join(listed)
        known = {"length": self.length(index), "slot": slot, "order": self.order}

        def draft(prose: list[str]) -> Draft:
            passage = filler.join(prose).strip()
            context = "Context: " + " ".join(([passage] if passage else []) + told)
            parts = {"C": context, "Q": question, "O": options}
            user = "\n".join(parts[letter] for letter in self.order)
            at = user.index(said[0]) + said[0].index(words[0])
            spans: Mapping[str, Range] = {"answer": (at, at + len(words[0]))}
            templated = bool(tokenizer.chat_template) if self.chat is None else self.chat
            text = f"{user}\nAnswer:"
            if templated:
                text, spans = in_chat(tokenizer, user, spans)
                text += "Answer:"
            return Draft(text, spans, words[0], templated, known)

        return choice(at_length(self, index, tokenizer, draft), tokenizer, words[1:])
