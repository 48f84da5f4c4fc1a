"""Words as single tokens, and named concepts with their words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.model import HeadModel

LEAST = 5  # words of a named concept that have to be single tokens


@dataclass(frozen=True)
class NamedConcept:
    """A concept by its words, with questions that are answered by them.

    Attributes:
        words: each is likely to be one token behind a space.
        asks: sentences that a word ends, with {} for what they are about.
        about: what they may be about; none of it holds a word of the concept.
    """

    words: tuple[str, ...]
    asks: tuple[str, ...]
    about: tuple[str, ...]


@cache
def concepts() -> Mapping[str, NamedConcept]:
    """All named concepts."""
    text = (files("headscope.prompts") / "data" / "concepts.json").read_text(encoding="utf-8")
    return {
        name: NamedConcept(tuple(one["words"]), tuple(one["asks"]), tuple(one["about"]))
        for name, one in json.loads(text).items()
    }


def concept(name: str) -> NamedConcept:
    """A named concept.

    Raises:
        HeadscopeError: there is none of this name; it lists those that there are.
    """
    if name not in concepts():
        raise HeadscopeError(
            f"There is no concept named {name!r}. There are {', '.join(concepts())}; or give words "
            "of your own with words=."
        )
    return concepts()[name]


def token(model: "HeadModel", word: str | int) -> int:
    """The id of a word that is one token behind a space; an id is its own.

    Raises:
        HeadscopeError: the word is several tokens, or the model has no such id.
    """
    if isinstance(word, int) and not isinstance(word, bool):
        if not 0 <= word < model.vocab_size:
            raise HeadscopeError(f"{model.name} has the tokens 0 to {model.vocab_size - 1}.")
        return word
    ids = spelled(model.tokenizer, str(word))
    if len(ids) != 1 or ids[0] == model.tokenizer.unk_token_id:
        several = f"is {len(ids)} tokens" if len(ids) != 1 else "is unknown"
        raise HeadscopeError(
            f"The word {word!r} behind a space {several} for {model.name}; use a word "
            "that is one, or the id of its first token."
        )
    return ids[0]


def tokens_of(model: "HeadModel", words: Sequence[str | int]) -> tuple[int, ...]:
    """Ids of words, each once, in their order.

    Raises:
        HeadscopeError: as `token`.
    """
    return tuple(dict.fromkeys(token(model, word) for word in words))


def tokens_of_concept(model: "HeadModel", name: str) -> tuple[int, ...]:
    """Ids of those words of a named concept that are one token each for a model.

    Raises:
        HeadscopeError: there is no such concept, or too few of its words are one token.
    """
    unknown = model.tokenizer.unk_token_id
    words = concept(name).words
    ids = [spelled(model.tokenizer, word) for word in words]
    found = tuple(dict.fromkeys(one[0] for one in ids if len(one) == 1 and one[0] != unknown))
    if len(found) < LEAST:
        raise HeadscopeError(
            f"Of the {len(words)} words of {name!r}, {len(found)} are one token for {model.name}, "
            f"and at least {LEAST} are needed; name another concept, or give words of your own."
        )
    return found


def spelled(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """The tokens of a word behind a space."""
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    if len(ids) > 1:
        # Some put a space of their own before every text, and then this one makes two.
        plain = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(plain) == 1 and _shape(_piece(tokenizer, plain[0]))[0]:
            ids = plain
    return [int(i) for i in ids]


def alike(model: "HeadModel", tokens: Sequence[int]) -> list[int]:
    """Other tokens that look like these: with a space in front or not, of letters or not.

    Where fewer look so than there are of these, all others that are not special.
    """
    tokenizer = model.tokenizer
    size = min(model.vocab_size, len(tokenizer))
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)}
    others = sorted({*range(size)} - {*tokens} - special)
    shapes = {_shape(_piece(tokenizer, one)) for one in tokens}
    pieces = tokenizer.convert_ids_to_tokens(others)
    same = [one for one, piece in zip(others, pieces, strict=True) if _shape(str(piece)) in shapes]
    return same if len(same) >= len(tokens) else others


def _piece(tokenizer: PreTrainedTokenizerBase, one: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(one))


def _shape(piece: str) -> tuple[bool, bool, bool]:
    """Whether a piece stands behind a space, is of letters, and of ASCII."""
    bare = piece.lstrip("\u0120\u2581 ")
    return bare != piece, bare.isalpha(), bare.isascii()
