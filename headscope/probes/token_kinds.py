"""What kind of token a token is, by its text: words, marks and line breaks of any language."""

import unicodedata
from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

Kind = Literal["special", "newline", "punctuation", "other"]

_BREAKS = frozenset("\n\r\v\f\x85\u2028\u2029")


def token_kinds(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> list[Kind]:
    """The kind of each token.

    Special tokens are the tokenizer's own. A token of nothing but line breaks, spaces and
    punctuation (Unicode's categories P) is a newline if it holds a break, and punctuation if it
    holds none and a mark; all else, spaces alone and pieces of characters included, is other.
    """
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    known: dict[int, Kind] = {
        token: "special" if token in special else _kind(_text(tokenizer, token))
        for token in set(token_ids)
    }
    return [known[token] for token in token_ids]


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.decode([token], clean_up_tokenization_spaces=False))


def _kind(text: str) -> Kind:
    marks = text.strip()
    if any(not unicodedata.category(mark).startswith("P") for mark in marks if not mark.isspace()):
        return "other"
    if not _BREAKS.isdisjoint(text):
        return "newline"
    return "punctuation" if marks else "other"
