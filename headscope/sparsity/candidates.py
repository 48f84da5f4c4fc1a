"""The rules that a plan chooses among: as they come by default, and as they are typed."""

import json
from collections.abc import Sequence

from headscope.errors import HeadscopeError
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule, rule_of
from headscope.patterns.streaming import Streaming

SINK = 4  # tokens, as in StreamingLLM
_SHARES = (32, 16, 8, 4, 2)  # windows, as parts of the longest text


def default_rules(lengths: Sequence[int]) -> tuple[Rule, ...]:
    """Streaming with a sink of 4 tokens and a window of 1/32, 1/16, 1/8, 1/4 and 1/2 of the
    longest length in tokens, and full attention.

    Windows that come to the same tokens are one rule.
    """
    longest = _longest(lengths)
    windows = dict.fromkeys(max(1, longest // part) for part in _SHARES)
    return (*(Streaming(SINK, window) for window in windows), Full())


def default_streaming(lengths: Sequence[int]) -> Streaming:
    """The rule of heads that a score does not speak for, where none is given: a sink of 4 tokens
    and a window of 1/8 of the longest length."""
    return Streaming(SINK, max(1, _longest(lengths) // 8))


def _longest(lengths: Sequence[int]) -> int:
    if not lengths or min(lengths) < 1:
        raise HeadscopeError("Rules are made for texts of one token at least; give lengths.")
    return max(lengths)


def parsed_rules(text: str) -> tuple[Rule, ...]:
    """ "streaming:sink=4,window=64;full" as rules, each once.

    Raises:
        HeadscopeError: it names no rule, or one that there is not.
    """
    rules = [_parsed(part.strip()) for part in text.split(";") if part.strip()]
    if not rules:
        raise HeadscopeError("Name rules as streaming:sink=4,window=64;full.")
    return tuple(dict.fromkeys(rules))


def _parsed(text: str) -> Rule:
    name, _, rest = text.partition(":")
    fields: dict[str, int | float] = {}
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        field, equals, value = pair.partition("=")
        try:
            number = json.loads(value)
        except json.JSONDecodeError:
            number = None
        if not equals or isinstance(number, bool) or not isinstance(number, int | float):
            raise HeadscopeError(
                f"{pair!r} sets no number of the rule {name.strip()!r}; write rules as "
                "streaming:sink=4,window=64;full."
            )
        fields[field.strip()] = number
    return rule_of({"rule": name.strip(), **fields})


def distinct(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules in order, each once.

    Raises:
        HeadscopeError: there is none, or one of them is no rule.
    """
    from headscope.patterns.base import Pattern
    from headscope.patterns.selectors.base import Selector

    for rule in rules:
        if not isinstance(rule, Pattern | Selector):
            raise HeadscopeError(f"A rule is a pattern or a selector, and not {rule!r}.")
    if not rules:
        raise HeadscopeError("A plan chooses among rules; give one at least.")
    return tuple(dict.fromkeys(rules))
