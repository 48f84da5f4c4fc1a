"""Parameters that methods refuse in the same words."""

from typing import Any, get_args

from headscope.errors import HeadscopeError


def check_choice(method: Any, field: str, kind: Any) -> None:
    """Refuse a field that is none of the names of a Literal."""
    value = getattr(method, field)
    if value not in get_args(kind):
        raise HeadscopeError(
            f"{type(method).__name__} has no {field} {value!r}; use {', '.join(get_args(kind))}."
        )


def check_sizes(whose: str, **sizes: tuple[int, int]) -> None:
    """Refuse a size that is no whole number or too small.

    Args:
        sizes: by name, the size and the least that it may be.
    """
    for name, (size, least) in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise HeadscopeError(
                f"{whose} needs {name} to be a whole number of tokens, {least} or more, not "
                f"{size!r}."
            )
