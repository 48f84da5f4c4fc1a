"""Rules by name: what a profile gives a head, a pattern or a selector, from and to JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern
from headscope.patterns.selectors.base import Selector

Rule = Pattern | Selector


def rule_of(data: Mapping[str, Any]) -> Rule:
    """A rule from its name and numbers, `{"rule": "streaming", "sink": 4, "window": 64}`.

    Raises:
        HeadscopeError: there is no such rule or field, or a number does not fit.
    """
    from headscope.catalog import patterns, selectors
    from headscope.registry import find

    name = data.get("rule")
    if not isinstance(name, str):
        raise HeadscopeError('A rule is written as {"rule": NAME, ...}, with its numbers.')
    # The registries once more: a user's own rule may have been defined since they were read.
    every = {**patterns(), **selectors(), **Pattern.registry, **Selector.registry}
    kind = find(every, name, "rule")
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    given = {key: value for key, value in data.items() if key != "rule"}
    unknown = sorted(set(given) - set(known))
    if unknown:
        fields = ", ".join(known) or "none"
        raise HeadscopeError(f"The rule {name!r} has no {unknown[0]!r}; its fields are: {fields}.")
    for key, value in given.items():
        whole = known[key] in (int, "int")
        if type(value) is not int and (whole or type(value) is not float):
            what = "a whole number" if whole else "a number"
            raise HeadscopeError(f"{key!r} of the rule {name!r} is {what}, not {value!r}.")
        if not abs(value) <= 10**9:  # NaN is in no range
            raise HeadscopeError(f"{key!r} of the rule {name!r} is out of range: {value!r}.")
        given[key] = value if whole else float(value)
    return kind(**given)
