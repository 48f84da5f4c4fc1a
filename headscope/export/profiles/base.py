"""Formats in which a profile leaves for the software that serves it, and comes back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.export.base import MEGABYTE, MOST_NAMES, content_of
from headscope.heads import label
from headscope.patterns.rules import Rule
from headscope.registry import Registered
from headscope.runinfo import first_problem
from headscope.sparsity.kv_view import kv_view
from headscope.sparsity.profile import ProfiledModel, SparseProfile

Grid = Sequence[Sequence[Rule]]  # rules as [layer][query head]


@dataclass(frozen=True)
class ProfileFormat(Registered, ABC):
    """One format that others load; being in the folder registers it.

    What a target cannot say is refused before anything is written, and what is written reads back
    as the same rules. Files are read whole, up to a limit, and trusted in nothing; what they do
    not say is taken from the profile or the model that they are read for.
    """

    registry: ClassVar[dict[str, "type[ProfileFormat]"]] = {}
    paper: ClassVar[str]  # the method or the software that it comes from
    granularity: ClassVar[Literal["query head", "KV head"]]  # what one entry of a file is about
    expresses: ClassVar[str]  # the rules it can say, in a few words
    loads: ClassVar[str]  # what loads it, with versions
    loses: ClassVar[str]  # what is different there, in one sentence
    files: ClassVar[tuple[str, ...]] = ()  # of a folder; one file if empty
    limit: ClassVar[int] = 16 * MEGABYTE  # bytes of one file
    names: ClassVar[int | None] = MOST_NAMES  # in a file of text
    gaps: ClassVar[bool] = False  # whether it can leave layers out

    @abstractmethod
    def check(self, profile: SparseProfile) -> None:
        """Refuse what is particular to the format.

        Raises:
            HeadscopeError: what the target cannot express, and what to do.
        """

    @abstractmethod
    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        """The contents of the files, in their order, of a profile that was not refused."""

    @abstractmethod
    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        """The rules that the files give the model's heads.

        Raises:
            ValueError: in a few words, what is wrong with them.
            HeadscopeError: a rule is none, or a parameter is missing.
        """

    def told(self, profile: SparseProfile) -> str:
        """What whoever loads the files has to pass along with them; "" if nothing."""
        return ""

    def refuse(self, profile: SparseProfile) -> None:
        """Refuse a profile that the format cannot express.

        Raises:
            HeadscopeError: what the target cannot express, and what to do.
        """
        layers = profile.model.layers
        if not self.gaps and layers != tuple(range(len(layers))):
            raise HeadscopeError(
                f"{self.name} counts layers from 0 without gaps, and {profile.model.name} has "
                f"attention in the layers {layers[0]} to {layers[-1]} only in part; export it as "
                "headscope."
            )
        self.check(profile)

    def write(
        self, profile: SparseProfile, path: str | Path, merge: bool = False
    ) -> tuple[Path, ...]:
        """Write the files in one step: all of them are there afterwards, or none.

        Args:
            path: the file; for a format of several a new or empty folder.
            merge: give each KV head one rule that covers those of its query heads, where the
                format is of KV heads; see `headscope.sparsity.kv_view`.

        Returns:
            The files.

        Raises:
            HeadscopeError: the target cannot express the profile, or the place cannot be written.
        """
        if merge:
            self.check_merge()
            profile = kv_view(profile).profile
        self.refuse(profile)
        path, contents = Path(path), self.encode(profile)
        if not self.files:
            storage.write(path, contents[0])
            return (path,)
        storage.write_folder(path, dict(zip(self.files, contents, strict=True)))
        return tuple(path / name for name in self.files)

    def check_merge(self) -> None:
        """Refuse to merge rules for a format that has one for every query head."""
        if self.granularity != "KV head":
            raise HeadscopeError(f"{self.name} has a rule for every query head; do not merge them.")

    def read(self, path: str | Path, like: ProfiledModel | SparseProfile) -> SparseProfile:
        """The rules of files as a profile.

        Args:
            path: the file, or the folder of a format that has several.
            like: the model that they are for, or a profile of it.

        Raises:
            HeadscopeError: a file is missing, too large, damaged, another's or of another shape.
        """
        model = like.model if isinstance(like, SparseProfile) else like
        path = Path(path)
        try:
            places = [path / name for name in self.files] or [path]
            contents = [content_of(place, self.limit, self.names) for place in places]
            return SparseProfile.of(model, self.decode(contents, model))
        except (ValueError, HeadscopeError) as error:  # pydantic's is one
            what = first_problem(error) if isinstance(error, ValueError) else str(error)
            raise HeadscopeError(
                f"{path} cannot be read as {self.name} for {model.name}: {what.rstrip('.')}. "
                "Export the profile again, or name another format."
            ) from error

    def _refusal(self, head: tuple[int, int], rule: Rule, do: str) -> HeadscopeError:
        """What to raise about the rule of one query head."""
        return HeadscopeError(
            f"{self.name} cannot express {rule} of {label(head)}; it has {self.expresses}: {do}"
        )


def shaped(rows: Sequence[Sequence[object]], layers: int, heads: int, of: str) -> None:
    """Refuse entries that are not [layer][head] of a model.

    Raises:
        ValueError: how many there are.
    """
    widths = sorted({len(row) for row in rows})
    if len(rows) != layers or widths != [heads]:
        found = ", ".join(map(str, widths[:3])) or "no"
        raise ValueError(
            f"it is about {len(rows)} layers of {found} {of}s, not {layers} of {heads}"
        )


def each(profile: SparseProfile) -> list[tuple[tuple[int, int], Rule]]:
    """((layer, head), rule) of every query head."""
    return [
        ((layer, head), rule)
        for layer in profile.model.layers
        for head, rule in enumerate(profile.of_layer(layer))
    ]
