"""Shapes of headscope's arrays, checked while tests run: in all that is imported after this module.

jaxtyping's own hook wraps every function, and tests that read token by token then spend half of
their time in wrappers. This one wraps functions and dataclasses that name a shape, and no others.
"""

import ast
import dataclasses
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, get_args

import jaxtyping
from beartype import beartype

PACKAGE = "headscope"
_NAME = "_shapes_checked_"
_SHAPED = ("Float[", "Int[", "Bool[", "UInt8[", "Shaped[")  # in annotations that are strings


def checked(made: Any) -> Any:
    """A function or dataclass that checks its shapes; the same one if it names none."""
    if isinstance(made, type):
        if not dataclasses.is_dataclass(made):
            return made
        named = [field.type for field in dataclasses.fields(made)]
    elif callable(made):
        named = list(getattr(made, "__annotations__", {}).values())
    else:
        return made
    return jaxtyping.jaxtyped(made, typechecker=beartype) if any(map(_shaped, named)) else made


def _shaped(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return any(kind in annotation for kind in _SHAPED)
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return any(map(_shaped, parts))


class _Marked(ast.NodeTransformer):
    """Decorates what a module or a class defines; functions within functions are left alone."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.decorator_list.insert(0, ast.Name(_NAME, ast.Load()))  # after @dataclass
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list.append(ast.Name(_NAME, ast.Load()))  # before @property
        return node


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        tree = _Marked().visit(ast.parse(self.get_data(self.path), self.path))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _NAME, checked)
        super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


if PACKAGE in sys.modules:
    raise RuntimeError(f"{PACKAGE} was imported before its shapes could be checked.")
sys.meta_path.insert(0, _Finder)
