"""Methods that change what heads do, each in a file of its own; imported on first use by name."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from headscope.registry import snake_case


def __getattr__(name: str) -> Any:
    module = f"{__name__}.{snake_case(name)}"
    if name[:1].isupper() and find_spec(module) is not None:
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__))
