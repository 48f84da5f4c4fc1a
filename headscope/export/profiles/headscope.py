from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headscope.export.profiles.base import Grid, ProfileFormat
from headscope.sparsity.profile import ProfiledModel, SparseProfile


@dataclass(frozen=True)
class Headscope(ProfileFormat):
    """headscope's own JSON: every rule of every query head, and nothing lost."""

    paper = "headscope"
    granularity = "query head"
    expresses = "every rule"
    loads = "headscope: SparseProfile.load, SparseAttention, use_profile"
    loses = "Nothing."
    gaps = True

    def check(self, profile: SparseProfile) -> None:
        """Nothing is refused."""

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        return [(profile.model_dump_json(indent=1) + "\n").encode()]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        return _rows(SparseProfile.model_validate_json(contents[0]))

    def read(self, path: str | Path, like: ProfiledModel | SparseProfile) -> SparseProfile:
        """The profile as it was written, its notes and the weights it was made for included."""
        profile = SparseProfile.load(path)
        profile.check(like.model if isinstance(like, SparseProfile) else like)
        return profile


def _rows(profile: SparseProfile) -> Grid:
    return [profile.of_layer(layer) for layer in profile.model.layers]
