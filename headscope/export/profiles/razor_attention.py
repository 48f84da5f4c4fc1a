import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field

from headscope.export.base import MOST
from headscope.export.profiles.base import Grid
from headscope.export.profiles.full_or_streaming import _FullOrStreaming
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_Index = Annotated[int, Field(ge=0, lt=MOST)]
_Layer = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3})$")]
_Heads = Annotated[list[_Index], Field(max_length=MOST), FailFast()]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["razor_attention_heads"]
    schema_version: Literal[1]
    n_kv_heads: _Index
    sink: Annotated[int, Field(ge=0, le=10**9)]
    window: Annotated[int, Field(ge=1, le=10**9)]
    retrieval_kv_heads: Annotated[dict[_Layer, _Heads], Field(max_length=MOST)]


@dataclass(frozen=True)
class RazorAttention(_FullOrStreaming):
    """Retrieval KV heads by layer, as JSON; the others keep a sink and a window.

    `{"retrieval_kv_heads": {"0": [3, 5], ...}, "sink": 4, "window": 4000, ...}`. MindIE on Ascend
    takes such heads from a file `head.pt` (`win.pt` of the older tools), which is a pickle;
    headscope writes none. The names of the keys within it were not verified, and how to make one
    from this file is therefore left to whoever has the tools.

    Source: RazorAttention (Tang et al. 2024, arXiv 2407.15891); msModelSlim's documentation of
    RARopeCompressor.get_compress_heads.
    """

    paper = "Tang et al. 2024, arXiv 2407.15891"
    granularity = "KV head"
    loads = "nothing directly (unverified): MindIE takes the same heads from a pickled head.pt"
    loses = (
        "MindIE has its own sink and window, and RazorAttention's window also grows with the text "
        "and has a compensation token."
    )
    gaps = True

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        rule, full = self.streaming_of(profile), self.full_of(profile)
        told = _File(
            kind="razor_attention_heads",
            schema_version=1,
            n_kv_heads=profile.model.n_kv_heads,
            sink=rule.sink,
            window=rule.window,
            retrieval_kv_heads={
                str(layer): np.flatnonzero(row).tolist()
                for layer, row in zip(profile.model.layers, full, strict=True)
            },
        )
        return [(json.dumps(told.model_dump(), indent=1) + "\n").encode()]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        told = _File.model_validate_json(contents[0])
        if told.n_kv_heads != model.n_kv_heads:
            raise ValueError(f"it is about {told.n_kv_heads} KV heads a layer")
        heads = told.retrieval_kv_heads
        if set(heads) != {str(layer) for layer in model.layers}:
            raise ValueError(f"its {len(heads)} layers are not those of the model")
        full = np.zeros((len(model.layers), model.n_kv_heads), dtype=bool)
        for row, layer in enumerate(model.layers):
            mine = heads[str(layer)]
            if len(set(mine)) != len(mine) or any(kv >= model.n_kv_heads for kv in mine):
                raise ValueError(f"the heads of its layer {layer} are not KV heads, each once")
            full[row, mine] = True
        return self.grid_of(full, Streaming(told.sink, told.window), model)
