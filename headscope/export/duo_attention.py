import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from headscope.export.base import Content, Format, grid

TABLE = "full_attention_heads.tsv"
_SLACK = 0.05  # a last step of training may leave the range, which is cut off afterwards

_Count = Annotated[int, Field(ge=0, le=10**9)]


class Config(BaseModel):
    """What of config.json is kept; the rest is about the machine that it ran on."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=300)
    sink_size: _Count
    recent_size: _Count
    num_steps: _Count | None = None
    lr: FiniteFloat | None = None
    reg_weight: FiniteFloat | None = None
    context_length_min: _Count | None = None
    context_length_max: _Count | None = None
    num_passkeys: _Count | None = None
    seed: _Count | None = None


def gates_of(table: bytes) -> Float[np.ndarray, "layer kv_head"]:
    """The table, cut to [0, 1] as DuoAttention does when it loads one.

    Raises:
        ValueError: in a few words, what is wrong with it.
    """
    if not table.strip():
        raise ValueError("its table is empty")
    text = io.StringIO(table.decode("ascii"))
    gates = np.loadtxt(text, np.float64, comments=None, delimiter="\t", ndmin=2)
    gates = grid(gates.tolist(), "its gates")
    inside = (gates >= -_SLACK) & (gates <= 1 + _SLACK)  # NaN is not
    if not inside.all():
        layer, head = np.argwhere(~inside)[0]
        raise ValueError(f"the gate in row {layer + 1}, column {head + 1} is not in [0, 1]")
    return gates.clip(0, 1)


@dataclass(frozen=True)
class DuoAttention(Format):
    """Trained gates of KV heads: how much of a head's full attention a model needs.

    A folder with full_attention_heads.tsv, layers × KV heads, and config.json. Gives `duo_gate`, in
    [0, 1]: values that left the range in the last step of training are cut off, as DuoAttention
    does when it loads them. The gate is one of a KV head, and nothing is known of the query heads
    within a group; which of them belong together the files do not say.

    Source: Xiao et al. 2024, arXiv 2410.10819; `attn_patterns` of mit-han-lab/duo-attention.
    """

    paper = "Xiao et al. 2024, arXiv 2410.10819"
    reads = "a folder with full_attention_heads.tsv and config.json of DuoAttention"
    per = "KV head"

    def recognises(self, path: Path, start: bytes) -> bool:
        return (path / TABLE).is_file() or (path.is_file() and path.suffix == ".tsv")

    def files(self, path: Path) -> Sequence[Path]:
        table = path / TABLE if path.is_dir() else path
        return [table, table.with_name("config.json")]

    def parse(self, path: Path, contents: Sequence[bytes]) -> Content:
        table, config = contents
        gates = gates_of(table)
        told = Config.model_validate_json(config)
        if not told.model_name.isprintable():
            raise ValueError("model_name in its config.json cannot be printed")
        return Content(
            spec=told.model_name,
            name=Path(told.model_name).name or told.model_name,
            scores={"duo_gate": gates[None]},
            kv_views={"duo_gate": "native"},
            details=told.model_dump(exclude={"model_name"}, exclude_none=True),
        )
