"""Tokens as labels."""

from collections.abc import Sequence

_SHOWN = {" ": "·", "\n": "↵", "\r": "↵", "\t": "⇥"}
_LONGEST = 18


def shown(token: str) -> str:
    """A token with what cannot be seen made visible: "·" for a space, "↵" for a new line."""
    return "".join(_SHOWN.get(c, c) for c in token) or "∅"


def labels(tokens: Sequence[str], size: int = 1) -> tuple[str, ...]:
    """A label for each square of `size` tokens: the token, or where the square begins."""
    if size == 1:
        return tuple(_cut(shown(token)) for token in tokens)
    return tuple(f"{i} {_cut(shown(tokens[i]))}" for i in range(0, len(tokens), size))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
