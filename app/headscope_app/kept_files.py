"""Files of results as a process keeps them: read once while they stay as they are."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from headscope.errors import HeadscopeError

_Read = TypeVar("_Read")


class KeptFiles:
    """What was read of the last files."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: files that stay in memory.
        """
        self._most = most
        self._files: OrderedDict[tuple[str, int, int], Any] = OrderedDict()

    def read(self, path: str, load: Callable[[Path], _Read], otherwise: str) -> _Read:
        """A file, loaded unless it is kept.

        Args:
            otherwise: what to do where it is gone, for the sentence.

        Raises:
            HeadscopeError: it is gone, or what `load` raises.
        """
        try:
            stat = Path(path).stat()
        except OSError as error:
            raise HeadscopeError(
                f"{Path(path).name} is not there any more; {otherwise}."
            ) from error
        key = path, stat.st_mtime_ns, stat.st_size
        if key not in self._files:
            self._files[key] = load(Path(path))
            while len(self._files) > self._most:
                self._files.popitem(last=False)
        self._files.move_to_end(key)
        return self._files[key]
