"""How a method becomes known: by being a class in its folder.

A subclass of a `Registered` base enters that base's registry under the snake_case of its class
name; `load_all` imports the modules of the folder, and the entry points of other packages.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, ClassVar

from headscope.errors import HeadscopeError


class Registered:
    """Mixin of the bases that keep a registry: `registry` maps names to concrete classes."""

    registry: ClassVar[dict[str, type[Any]]]
    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.name = snake_case(cls.__name__)
        # Abstract helpers between a base and its methods have no file of their own to be found in.
        if "registry" not in cls.__dict__ and not cls.__name__.startswith("_"):
            cls.registry[cls.name] = cls


def snake_case(name: str) -> str:
    """The name of a method's file and of the method, from that of its class."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def load_all(package: ModuleType, base: type[Registered]) -> dict[str, type[Any]]:
    """Import every module of a methods folder, and the methods of other packages.

    Args:
        package: the folder, e.g. `headscope.probes`.
        base: the class whose registry the modules fill.

    Returns:
        The registry, ordered by name.
    """
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    for entry in entry_points(group=package.__name__):
        entry.load()
    concrete = {k: v for k, v in base.registry.items() if not inspect.isabstract(v)}
    return dict(sorted(concrete.items()))


def find(registry: dict[str, type[Any]], name: str, kind: str) -> type[Any]:
    """The class registered under a name; an error that lists the nearest names otherwise."""
    from difflib import get_close_matches

    if name in registry:
        return registry[name]
    near = get_close_matches(name, registry, n=3) or sorted(registry)
    raise HeadscopeError(f"There is no {kind} named {name!r}. Did you mean {', '.join(near)}?")
