from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.drafting import at_length, before, choices
from headscope.prompts.asking import Draft
from headscope.prompts.base import SPLITS

Order = Literal["ABBA", "BABA"]  # of names up to the answer, A being the indirect object
ORDERS: tuple[Order, ...] = ("ABBA", "BABA")

# Splits take every third. None of these names stands in the prose that long prompts begin with.
_NAMES = tuple(
    """
    Sarah Adam Anna Ryan Kate Jason Emma Simon Susan Matthew Linda Anthony Lisa Brian Karen Jacob
    Nancy Aaron Emily Justin Helen Benjamin Rachel Patrick Maria Tyler Olivia Ethan Julie Walter
    Victoria Sean Kelly Austin Diana Carl Hannah Roger Martha Jesse Teresa Albert Sophia Bruce Rose
    Gabriel Charlotte Logan Claire Juan Lucy Leo Eva Oscar Nina Hugo Clara Ivan Jane Felix Ellen
    Harry Maya Philip Lily Victor Mia Louis Amy Ralph Ruth Neil
    """.split()
)
_PLACES = tuple(
    """
    bakery stadium museum harbor library airport market school hotel station garden church theater
    hospital lake office farm beach restaurant bridge castle park factory zoo
    """.split()
)
_THINGS = tuple(
    """
    book ring map lamp key letter basket camera ticket bottle guitar coat ball knife watch box
    drink picture hat pen bag cake bone flower
    """.split()
)
_TEMPLATES = (
    "When {a} and {b} arrived at the {place}, {s} handed the {thing} to",
    "After {a} and {b} had met near the {place}, {s} gave the {thing} to",
    "Yesterday {a} and {b} walked to the {place} together. There {s} gave a {thing} to",
    "The {place} was almost empty when {a} and {b} came in. Soon {s} passed the {thing} to",
    "At the {place}, {a} and {b} sat down for a while, and {s} offered the {thing} to",
    "Last week {a} and {b} worked at the {place}. Afterwards {s} sent the {thing} to",
    "While {a} and {b} were waiting outside the {place}, {s} showed the {thing} to",
    "Because {a} and {b} often go to the {place}, {s} decided to give the {thing} to",
)
_LEAST = 4  # names of a split: with fewer, most pairs would be the same two


@dataclass(frozen=True)
class Ioi(Eval):
    """Indirect object identification: two people meet, one gives the other something.

    "When Sarah and Adam arrived at the museum, Sarah handed the ring to" is followed by " Adam",
    the indirect object, and not by " Sarah", the subject. In half of the prompts the indirect
    object is named first (order ABBA), in half of them second (BABA). Beside "answer", its first
    mention, the spans are "subject_0" and "subject_1", both mentions of the subject, and "end", the
    last word.

    The corrupt prompt has the indirect object's name for the second mention of the subject, so that
    the subject becomes its right answer: one token is another one and no new word comes in, the
    symmetric token replacement of Zhang & Nanda 2023 (arXiv 2309.16042).

    Names are those of a split that are one token behind a space. Templates and words are
    headscope's own.

    Source: Wang et al. 2022, "Interpretability in the Wild", arXiv 2211.00593.
    """

    metric = "choice"
    source = "Wang et al. 2022, arXiv 2211.00593; Zhang & Nanda 2023, arXiv 2309.16042"
    licence = "MIT"

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, third = self.rng("item", index), slice(SPLITS.index(self.split), None, len(SPLITS))
        io, subject = rng.sample(self._names(tokenizer, _NAMES[third]), 2)
        order = ORDERS[index % len(ORDERS)]
        first, second = (io, subject) if order == "ABBA" else (subject, io)
        kind = index // len(ORDERS) % len(_TEMPLATES)
        place, thing = rng.choice(_PLACES[third]), rng.choice(_THINGS[third])
        said = _TEMPLATES[kind].format(a=first, b=second, s=subject, place=place, thing=thing)
        facts = {"length": self.length(index), "template": kind, "order": order}

        def draft(words: list[str]) -> Draft:
            text, moved = before(words, said)
            spans = {
                "answer": _mention(text, io, text.index(f" {io}", moved)),
                "subject_0": _mention(text, subject, text.index(f" {subject}", moved)),
                "subject_1": _mention(text, subject, text.rindex(f" {subject}")),
                "end": (text.rindex(" ") + 1, len(text)),
            }
            return Draft(text, spans, io, False, facts)

        clean = at_length(self, index, tokenizer, draft)
        prompt, corrupt = (x.encode(tokenizer) for x in (clean, _swapped(clean, subject)))
        wrong = choices(clean, tokenizer, [subject])
        if len(corrupt) != len(prompt) or corrupt.answer_ids not in wrong:
            raise HeadscopeError(
                f"With this tokenizer {io} and {subject} do not take the same place in a sentence, "
                "so that no pair of prompts for 'ioi' can be made; use another eval."
            )
        return Item(prompt, wrong=wrong, corrupt=corrupt)

    def _names(self, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[str]:
        """Those that are one token behind a space.

        Raises:
            HeadscopeError: there are too few of them.
        """
        texts = ["to", *(f"to {name}" for name in names)]
        alone, *each = tokenizer(texts, add_special_tokens=False)["input_ids"]
        fit = [
            name
            for name, ids in zip(names, each, strict=True)
            if len(ids) == len(alone) + 1 and ids[-1] != tokenizer.unk_token_id
        ]
        if len(fit) < _LEAST:
            raise HeadscopeError(
                f"The eval 'ioi' needs names that are one token behind a space, and of its "
                f"{len(names)} this tokenizer has {len(fit)}; use another eval."
            )
        return fit


def _swapped(clean: Draft, subject: str) -> Draft:
    """The draft with its indirect object for the second mention of its subject."""
    start, stop = clean.spans["subject_1"]
    text = clean.text[:start] + clean.answer + clean.text[stop:]
    end = clean.spans["end"]
    spans = {
        "answer": clean.spans["subject_0"],
        "subject_0": clean.spans["answer"],
        "subject_1": (start, start + len(clean.answer)),
        "end": (len(text) - (end[1] - end[0]), len(text)),
    }
    return replace(clean, text=text, spans=spans, answer=subject)


def _mention(text: str, name: str, space: int) -> tuple[int, int]:
    """The characters of a name behind a space."""
    assert text[space + 1 :].startswith(name)
    return space + 1, space + 1 + len(name)
