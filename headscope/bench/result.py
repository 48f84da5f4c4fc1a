"""What a bench found, as one JSON file."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from headscope.bench.timing import Spread
from headscope.kept import Kept

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timed(_Part):
    """One contender of a row.

    Attributes:
        ms: milliseconds of a call.
        speedup: what the best dense kernel of the row takes / what this takes, round by round.
        peak_bytes: allocated at most during a call beyond what was there before, output included.
        first_seconds: its first call, with whatever is compiled in it.
        mask_seconds: what was built from the tiles of rules before the first call.
        difference: of its output from headscope's, root of the mean square, as a share of it.
    """

    ms: Spread
    speedup: Spread | None = None
    peak_bytes: int | None = None
    first_seconds: float | None = None
    mask_seconds: float | None = None
    difference: float | None = None

    @property
    def faster(self) -> float:
        """The median speed-up; NaN where there is none."""
        return float("nan") if self.speedup is None else self.speedup.median


class _Row(_Part):
    """What one kind of layer takes, and what baselines do.

    Attributes:
        mix: which profile it belongs to.
        layers: how many of its layers have these rules.
        rounds: that medians are of.
        n: tokens.
        rules: with how many query heads have each.
        dense: the best dense kernel, which speed-ups are over.
        ours: headscope, everything that a call does.
        others: by name of the baseline.
        left_out: baselines that did not run, and why.
    """

    mix: str
    layers: int = Field(ge=1)
    rounds: int = Field(ge=1)
    n: int = Field(ge=1)
    rules: dict[str, int]
    dense: str
    ours: Timed
    others: dict[str, Timed]
    left_out: dict[str, str]


class PrefillRow(_Row):
    """A text of n tokens through one kind of layer, batch 1.

    Attributes:
        asked: the dispatch that was asked for.
        dispatch, dense_part, programs: what ran; see `headscope.kernels.mixed.Ran`.
        limit: the tile limit, of 128 × 128 tokens; see `headscope.bench.limit`.
        limit_64: the same of squares of 64 × 64, which the kernel computes.
        ours: with plans kept: choosing keys, lists, attention.
        attention: attention alone, with the lists given; None where rules go by position.
        lists: choosing keys and building their lists alone; None likewise.
        plan_seconds: choosing, lists and planning where no plan is kept.
    """

    part: Literal["prefill"] = "prefill"
    asked: str
    dispatch: str
    dense_part: str | None
    programs: int
    limit: float
    limit_64: float
    attention: Timed | None = None
    lists: Timed | None = None
    plan_seconds: float

    @property
    def reached(self) -> float:
        """The share of the tile limit."""
        return self.ours.faster / self.limit


class DecodeRow(_Row):
    """One token after n of each of `batch` sequences through one kind of layer.

    Attributes:
        bytes_read: of keys and values that this step must read.
        bytes_dense: that it would read without rules.
        copy_gbs: gigabytes a second, read and written, of a copy from the device to itself.
        share: bytes_read / what that copy moves in the same time, round by round.
    """

    part: Literal["decode"] = "decode"
    batch: int = Field(ge=1)
    bytes_read: int
    bytes_dense: int
    copy_gbs: Spread
    share: Spread

    @property
    def limit(self) -> float:
        """The speed-up if time went with the bytes that are read."""
        return self.bytes_dense / self.bytes_read

    @property
    def gbs(self) -> float:
        """Gigabytes a second of what must be read."""
        return self.bytes_read / self.ours.ms.median / 1e6


class Skipped(_Part):
    """A row that was not measured.

    Attributes:
        reason: a clause.
    """

    part: Literal["prefill", "decode"]
    mix: str
    n: int
    batch: int = 1
    rules: dict[str, int]
    reason: str


class Bench(Kept):
    """All rows of one run on one device.

    Attributes:
        profile: its name.
        model: of the profile, with its shape.
        quality: what is known of what the profile loses, beside its speed.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    again: ClassVar[str] = "run the bench again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["bench"] = "bench"
    profile: str
    model: dict[str, JsonValue] = Field(default_factory=dict)
    device: str
    dtype: str
    date: str
    command: str
    versions: dict[str, str]
    prefill: list[PrefillRow] = Field(default_factory=list)
    decode: list[DecodeRow] = Field(default_factory=list)
    skipped: list[Skipped] = Field(default_factory=list)
    quality: dict[str, JsonValue] = Field(default_factory=dict)

    def add(self, row: PrefillRow | DecodeRow | Skipped) -> None:
        """Put a row where it belongs."""
        rows: dict[type, list[Any]] = {
            PrefillRow: self.prefill, DecodeRow: self.decode, Skipped: self.skipped,
        }  # fmt: skip
        rows[type(row)].append(row)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")

    def chart(self) -> "Chart":
        """Speed against length: of whole texts, or of decoding where those were not measured.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: nothing was measured.
        """
        from headscope.viz.figures import decode_speed, kernel_speed

        return kernel_speed(self) if self.prefill or not self.decode else decode_speed(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import bench_repr

        return bench_repr(self)


def counted(rules: Iterable[object]) -> dict[str, int]:
    """How many heads have each rule, in words."""
    return dict(Counter(map(str, rules)))
