"""Results in one JSON file: whole, of the right kind, or one sentence about what is wrong."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from headscope import storage
from headscope.errors import HeadscopeError

Kept = TypeVar("Kept", bound=BaseModel)


def write(result: BaseModel, path: str | Path) -> Path:
    """Save a result in one step."""
    path = Path(path)
    storage.write(path, (result.model_dump_json(indent=1) + "\n").encode())
    return path


def read(kind: type[Kept], path: str | Path, again: str) -> Kept:
    """Read a result.

    Args:
        again: what to do to make it anew.

    Raises:
        HeadscopeError: the file is missing, damaged, of another kind, or of a newer headscope.
    """
    name = kind.__name__.lower()
    try:
        return kind.model_validate_json(storage.read(Path(path)))
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["loc"] == ("schema_version",):
            age = "a newer" if problem["type"] == "less_than_equal" else "an older"
            do = "update headscope" if age == "a newer" else f"delete it and {again}"
            raise HeadscopeError(f"{path} was written by {age} headscope; {do}.") from error
        raise HeadscopeError(
            f"{path} is damaged or no {name} ({problem['msg'].lower()}); delete it and {again}."
        ) from error
