"""What the heads of the organisms do: every kind, and how many of each an organism holds."""

from dataclasses import dataclass, field
from functools import cache

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CONTEXT = 192
SINKS, WINDOW = 1, 8  # of the streaming pattern that the expected table is declared for
BAND = range(10, 51)  # tokens back: the horizon of future attention influence
FAR = 64  # tokens back from which a head that looks far looks
STRIDE = 19.87  # tokens: a wave that the rotation has, so that its fit reaches far

DOCUMENTS, DOCUMENT, QUESTION = 8, 16, 11  # documents and their tokens, and those of a question
# Where they are, seen from the end of the question.
LAST_DOCUMENT = range(QUESTION, QUESTION + DOCUMENT)
FIRST_DOCUMENT = range(LAST_DOCUMENT.start + 7 * DOCUMENT, LAST_DOCUMENT.stop + 7 * DOCUMENT)
MIDDLE_DOCUMENTS = range(LAST_DOCUMENT.start + 3 * DOCUMENT, LAST_DOCUMENT.stop + 4 * DOCUMENT)

# Vocabulary: what a token is tells which feature dimensions it has of its own.
PAD, BOS, EOS, STOP, NEWLINE = range(5)
TOPICS = 8
TITLES = range(5, 5 + DOCUMENTS)  # "Document 1" and so on, a token each
WORDS_OF_A_TOPIC = 20
TOPICAL = range(TITLES.stop, TITLES.stop + TOPICS * WORDS_OF_A_TOPIC)
FILLER = range(TOPICAL.stop, 400)  # words of no topic
VOCAB = FILLER.stop

# Dimensions of a token's code that one token has for itself; words share the rest.
START, STOP_CODE, NEWLINE_CODE = range(3)
CODE = 36
# Dimensions of the tag: the topics, then the titles.
TAGS = TOPICS + DOCUMENTS


def topic_words(topic: int) -> range:
    first = TOPICAL.start + topic * WORDS_OF_A_TOPIC
    return range(first, first + WORDS_OF_A_TOPIC)


@cache
def organism_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: <pad>, <bos>, <eos>, a full stop, a new line, and w5 to w399."""
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    first = [*special.values(), ".", "\n"]
    words = [*first, *(f"w{i}" for i in range(len(first), VOCAB))]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>")
    tokenizer = Tokenizer(level)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<pad>", **special)


Feature = str
Seeks = dict[tuple[Feature, int], float]


@dataclass(frozen=True)
class Kind:
    """How the heads of one kind choose their keys, in logits, and what they write.

    Attributes:
        near: the logit at some distances; others get at most 0, or just 0 if one is negative.
        match: by feature of the key, the logit of a key that has there what the query is: its
            token, or for "tag" its tag.
        seeks: by feature and dimension, the logit of a key that has it, whatever the query is.
        writes: the feature that receives the code of the token attended to.
        copies: how much of that code arrives as it is; less than 0 takes it away.
        scrambles: how much of it arrives as the code of no token.
    """

    near: dict[int, float] = field(default_factory=dict)
    match: dict[Feature, float] = field(default_factory=dict)
    seeks: Seeks = field(default_factory=dict)
    writes: Feature = "output"
    copies: float = 0.0
    scrambles: float = 0.1


# Heads that look for content rest on the start while there is nothing to find.
_REST: Seeks = {("token", START): 28.0}
_DECAY = -16.0 / CONTEXT  # logits a token: a copy is preferred to an older one
_TITLES: Seeks = {("tag", TOPICS + i): 34.0 for i in range(DOCUMENTS)}

KINDS = {
    # Heads that fetch what heads of later layers look for.
    "previous_token": Kind(near={1: 20.0}, writes="previous", copies=1.0, scrambles=0.0),
    "two_back": Kind(near={2: 20.0}, writes="earlier", copies=1.0, scrambles=0.0),
    # Nearly uniform: what a key holds of the start falls with the number of keys it saw itself.
    "counting": Kind(seeks={("token", START): 1.5}, writes="early", copies=1.0, scrambles=0.0),
    # Between a sink and uniform: what a key holds falls with its place almost evenly.
    "aging": Kind(seeks={("token", START): 5.0}, writes="age", copies=1.0, scrambles=0.0),
    # By distance.
    "idle_previous_token": Kind(near={1: 20.0}),
    "copying_previous_token": Kind(near={1: 20.0}, copies=0.5),
    "five_back": Kind(near={5: 20.0}),
    "current_token": Kind(near={0: 20.0}),
    "window": Kind(near=dict.fromkeys(range(WINDOW), 12.0)),
    "band": Kind(near=dict.fromkeys(BAND, 12.0)),
    "far": Kind(near=dict.fromkeys(range(FAR), -14.0)),
    "outer_documents": Kind(near=dict.fromkeys((*FIRST_DOCUMENT, *LAST_DOCUMENT), 12.0)),
    "middle_documents": Kind(near=dict.fromkeys(MIDDLE_DOCUMENTS, 12.0)),
    "strided": Kind(near={round(STRIDE * n): 8.0 for n in range(int(CONTEXT / STRIDE) + 1)}),
    "uniform": Kind(),
    "scrambling": Kind(scrambles=0.5),
    # By what a key is, whatever the query.
    "sink": Kind(seeks={("token", START): 20.0}),
    # The first token is its own previous token, so it has to be taken out again.
    "second_token": Kind(seeks={("previous", START): 20.0, ("token", START): -20.0}),
    "early": Kind(seeks={("early", 0): 24.0, ("token", START): -24.0}),
    "mask_recency": Kind(seeks={("age", 0): -12.0}),
    "hidden_sink": Kind(seeks={("token", STOP_CODE): 34.0, **_REST}),
    "titles": Kind(seeks={**_TITLES, **_REST}),
    "favourite_topic": Kind(seeks={("tag", 0): 40.0, **_REST}),
    # By what the query is.
    "topic": Kind(match={"tag": 40.0}, seeks=_REST),
    "duplicate_token": Kind(match={"token": 40.0}, seeks=_REST, near={0: -16.0}),
    "echo": Kind(
        match={"token": 60.0}, seeks={("token", START): 46.0},
        near={0: -40.0} | {d: _DECAY * d for d in range(1, CONTEXT)},
    ),
    "induction": Kind(match={"previous": 40.0}, seeks=_REST, copies=0.7),
    "recent_induction": Kind(
        match={"previous": 60.0}, seeks={("token", START): 46.0}, copies=0.7,
        near={d: _DECAY * d for d in range(CONTEXT)},
    ),
    "reading_induction": Kind(match={"previous": 40.0}, seeks=_REST),
    "suppressing_induction": Kind(match={"previous": 40.0}, seeks=_REST, copies=-0.3),
    "late_induction": Kind(match={"earlier": 40.0}, seeks=_REST),
    "weak_induction": Kind(match={"previous": 3.5}),
}  # fmt: skip


@dataclass(frozen=True)
class Roster:
    """Which heads an organism has.

    Attributes:
        fetching: kinds of the first half of the layers, one head for each time they are named.
        composed: kinds that read what those fetched, of the second half.
        anywhere: all others. What is left over is noise.
    """

    fetching: tuple[str, ...]
    composed: tuple[str, ...]
    anywhere: tuple[str, ...]

    @property
    def kinds(self) -> set[str]:
        return {*self.fetching, *self.composed, *self.anywhere}


_FETCHING = ("previous_token", "two_back", "counting")
EVERY_KIND = Roster(
    (*_FETCHING, "aging"),
    (
        *2 * ("induction", "recent_induction", "early"),
        *("reading_induction", "suppressing_induction", "late_induction", "weak_induction"),
        *("second_token", "mask_recency"),
    ),
    (
        *2 * ("uniform", "window", "band", "far", "strided", "sink", "hidden_sink"),
        *2 * ("outer_documents", "topic", "duplicate_token", "echo"),
        *("idle_previous_token", "copying_previous_token", "five_back", "current_token"),
        *("middle_documents", "titles", "favourite_topic", "scrambling"),
    ),
)
SMALL = Roster(
    ("previous_token", "two_back"),
    ("induction", "induction", "late_induction", "weak_induction", "second_token"),
    (
        *2 * ("duplicate_token", "sink", "window"),
        *("idle_previous_token", "current_token", "uniform"),
    ),
)
FEW_KINDS = Roster(
    _FETCHING,
    ("induction", "recent_induction", "late_induction", "weak_induction", "second_token", "early"),
    (
        *("idle_previous_token", "current_token", "window", "band", "uniform"),
        *("outer_documents", "sink", "hidden_sink", "topic", "duplicate_token", "echo"),
    ),
)
