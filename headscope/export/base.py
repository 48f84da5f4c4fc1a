"""Formats in which others keep what they found about heads."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from headscope import __version__
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.registry import Registered
from headscope.runinfo import ModelInfo, RunInfo, ScoreInfo, SourceInfo, first_problem
from headscope.scores import Scores

MEGABYTE = 2**20
MOST = 1024  # layers, or heads of a layer; more is not a head map
MOST_NAMES = 2**17  # in a file of JSON: pydantic would list what is wrong with every one

KvView = Literal["max", "mean", "native"]


@dataclass(frozen=True, eq=False)
class Content:
    """What files of a format say.

    Attributes:
        spec: the model, as the files name it.
        name: the model's short name.
        scores: [sample, layer, head]; one sample where there is one number a head.
        kv_views: by score, how query heads make their kv_head's; "max" where nothing is said.
        curves: [sample, layer, head, point], by name.
        points: by curve, what its points are.
        details: what else the files say about how it was made.
    """

    spec: str
    name: str
    scores: Mapping[str, np.ndarray]
    kv_views: Mapping[str, KvView] = field(default_factory=dict)
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)
    points: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format(Registered, ABC):
    """One format of others' files; being in the folder registers it.

    Files are read whole, up to a limit, and trusted in nothing: what does not hold together is
    refused. Numbers become float32, as everywhere in a head map.
    """

    registry: ClassVar[dict[str, "type[Format]"]] = {}
    paper: ClassVar[str]  # whose findings they are
    reads: ClassVar[str]  # what the files are, in words
    per: ClassVar[Literal["query head", "KV head"]] = "query head"  # what one number is about
    limit: ClassVar[int] = 16 * MEGABYTE  # bytes of one file

    @abstractmethod
    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether a file or folder looks like this format.

        Args:
            start: how the file begins, white space left out; nothing of a folder.
        """

    @abstractmethod
    def parse(self, path: Path, contents: Sequence[bytes]) -> Content:
        """What the files say; `contents` are those of `files(path)`.

        Raises:
            ValueError: in a few words, what is wrong with them.
        """

    def files(self, path: Path) -> Sequence[Path]:
        """The files to read, of which `path` is one or the folder."""
        return [path]

    def read(
        self,
        path: Path,
        n_heads: int | None = None,
        n_kv_heads: int | None = None,
        command: str = "",
    ) -> HeadMap:
        """The files as a head map; `headscope.read_heads` says more.

        Raises:
            HeadscopeError: a file is missing, too large, damaged or another's, or the numbers of
                heads do not fit.
        """
        files = self.files(path)
        contents = [self._content(file) for file in files]
        try:
            content = self.parse(path, contents)
        except ValueError as error:  # pydantic's is one
            raise self._refusal(path, first_problem(error)) from error
        (found,) = {values.shape[2] for values in content.scores.values()}
        shape = self._shape(path, found, n_heads, n_kv_heads)
        assumed = self._assumed(n_heads, n_kv_heads)
        digests = {f.name: sha256(c).hexdigest() for f, c in zip(files, contents, strict=True)}
        source = SourceInfo(
            format=self.name,
            paper=self.paper,
            path=str(path),
            files=digests,
            assumed=assumed,
            details=dict(content.details),
        )
        info = self._info(content, source, shape, command)

        def spread(values: np.ndarray) -> np.ndarray:
            return np.repeat(values.astype(np.float32), info.model.n_heads // found, axis=2)

        scores = {
            name: Scores(spread(values), info.scores[name].kv_view)
            for name, values in content.scores.items()
        }
        return HeadMap(info, scores, {name: spread(c) for name, c in content.curves.items()})

    def _info(
        self, content: Content, source: SourceInfo, shape: dict[str, int], command: str
    ) -> RunInfo:
        layers = len(next(iter(content.scores.values()))[0])
        return RunInfo(
            kind="imported",
            state="complete",
            model=ModelInfo(
                spec=content.spec,
                name=content.name,
                revision=None,
                fingerprint=None,
                layers=list(range(layers)),
                d_head=None,
                context_length=None,
                parameters=None,
                reach={},
                **shape,
            ),
            backend=None,
            dtype=None,
            device=None,
            seed=0,
            probes={},
            scores={
                name: ScoreInfo(probe=self.name, kv_view=content.kv_views.get(name, "max"))
                for name in content.scores
            },
            curves=dict(content.points),
            families={},
            versions={"headscope": __version__, "numpy": np.__version__},
            command=command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source,
        )

    def _shape(
        self, path: Path, found: int, n_heads: int | None, n_kv_heads: int | None
    ) -> dict[str, int]:
        heads = found if n_heads is None else n_heads
        kv_heads = found if n_kv_heads is None else n_kv_heads
        told = kv_heads if self.per == "KV head" else heads
        if told != found or kv_heads < 1 or heads % kv_heads or not 1 <= heads <= MOST:
            raise HeadscopeError(
                f"{path} is about {found} {self.per}s a layer: {heads} query heads and {kv_heads} "
                "KV heads do not fit it; give n_heads as a multiple of n_kv_heads, and neither "
                "against the file."
            )
        return {"n_heads": heads, "n_kv_heads": kv_heads}

    def _assumed(self, n_heads: int | None, n_kv_heads: int | None) -> dict[str, str]:
        if self.per == "KV head":
            missing = n_heads is None
            return {"n_heads": "each KV head stands for its whole group"} if missing else {}
        missing = n_kv_heads is None
        return {"n_kv_heads": "each query head has its own"} if missing else {}

    def _content(self, file: Path) -> bytes:
        try:
            return content_of(file, self.limit)
        except ValueError as error:
            raise self._refusal(file, str(error)) from error

    def _refusal(self, path: Path, what: str) -> HeadscopeError:
        return HeadscopeError(
            f"{path} cannot be read as {self.name!r} ({self.reads}): {what}. Get the file again, "
            "or name another format."
        )


def content_of(file: Path, limit: int, names: int | None = MOST_NAMES) -> bytes:
    """A file's content, read up to a limit of bytes.

    Args:
        names: colons in it at most; None for files that are no text.

    Raises:
        ValueError: in a few words, why it is not read.
    """
    try:
        if not file.is_file():
            raise ValueError("there is no such file")
        with file.open("rb") as opened:
            content = opened.read(limit + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(content) > limit:
        raise ValueError(f"it has more than {limit // MEGABYTE} MB")
    if names is not None and content.count(b":") > names:
        raise ValueError(f"it names more than {names:,} things")
    return content


def grid(rows: Sequence[Sequence[int | float]], of: str) -> np.ndarray:
    """One number a head as [layer, head].

    Raises:
        ValueError: layers differ in their heads, or there are none or too many.
    """
    widths = {len(row) for row in rows}
    if not 1 <= len(rows) <= MOST or len(widths) != 1 or not 1 <= min(widths) <= MOST:
        raise ValueError(
            f"{of} make no table of layers × heads: {len(rows)} layers, "
            f"{', '.join(map(str, sorted(widths)[:3])) or 'no'} heads a layer"
        )
    return np.array(rows, dtype=np.float64)
