"""How the numbers of a rule are checked."""

from collections.abc import Mapping
from typing import Any

from headscope.errors import HeadscopeError


def at_least(rule: str, values: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Refuse what is no whole number, or below what a rule can work with.

    Raises:
        HeadscopeError: names the first of them.
    """
    for name, low in least.items():
        value = values[name]
        if type(value) is not int or value < low:
            raise HeadscopeError(
                f"The rule {rule!r} needs {name} to be a whole number of at least {low}, not "
                f"{value!r}."
            )


def share(rule: str, name: str, value: float) -> None:
    """Refuse what is no share above 0 and up to 1.

    Raises:
        HeadscopeError: it is not.
    """
    if isinstance(value, bool) or not 0 < value <= 1:
        raise HeadscopeError(
            f"The rule {rule!r} needs {name} to be above 0 and at most 1, not {value!r}."
        )
