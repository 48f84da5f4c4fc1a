"""Others' findings as head maps."""

from pathlib import Path

from headscope.catalog import formats
from headscope.errors import HeadscopeError
from headscope.export.base import Format
from headscope.headmap import HeadMap
from headscope.registry import find


def read_heads(
    path: str | Path,
    format: str | None = None,
    *,
    n_heads: int | None = None,
    n_kv_heads: int | None = None,
    command: str = "",
) -> HeadMap:
    """Read what others found about heads as a head map, to save, look at and compare.

    No model is opened, and what the files do not say stays unknown: `info.source` says where the
    map came from and what had to be assumed.

    Args:
        path: the file, or the folder of a format that has several.
        format: its name; by default it is recognised.
        n_heads: query heads a layer, which files about KV heads do not give; without it each KV
            head is one head of the map, and with it every head of a group carries its number.
        n_kv_heads: KV heads a layer, which files about query heads do not give; without it each
            query head has its own.
        command: the command that asked for it, kept in the map.

    Raises:
        HeadscopeError: there is nothing there, no format fits, or the content is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise HeadscopeError(f"There is no file or folder {path}.")
    if (path / "run.json").exists():
        raise HeadscopeError(
            f"{path} is a run of headscope and needs no import: name it where a run is asked for, "
            "or open it with headscope.HeadMap.load."
        )
    found = recognised(path) if format is None else find(formats(), format, "format")()
    if found is None:
        known = "; ".join(f"{name}: {each.reads}" for name, each in formats().items())
        what = "a folder" if path.is_dir() else "a file"
        raise HeadscopeError(
            f"{path} is {what} of no format that headscope knows; name one file, or the format "
            f"({known})."
        )
    return found.read(path, n_heads, n_kv_heads, command)


def recognised(path: Path) -> Format | None:
    """The format that a file or folder looks like, if any."""
    start = b""
    try:
        if path.is_file():
            with path.open("rb") as file:
                start = file.read(4096).lstrip()
    except OSError as error:
        raise HeadscopeError(f"{path} cannot be read: {error.strerror}.") from error
    known = [kind() for kind in formats().values()]
    return next((each for each in known if each.recognises(path, start)), None)
