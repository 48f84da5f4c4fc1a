import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field

from headscope.export.base import MOST
from headscope.export.profiles.base import Grid, shaped
from headscope.export.profiles.full_or_streaming import _FullOrStreaming
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_PRESS = '''"""Loads press.json beside it: `with ProfilePress()(model): ...`; kvpress 0.5.5."""

import json
from pathlib import Path

import torch
from kvpress import DuoAttentionPress


class ProfilePress(DuoAttentionPress):
    def post_init_from_model(self, model):
        told = json.loads(Path(__file__).with_name("press.json").read_text())
        config = model.config.get_text_config()
        mask = torch.tensor(told["streaming"], dtype=torch.bool, device=model.device)
        if mask.shape != (config.num_hidden_layers, config.num_key_value_heads):
            raise ValueError(f"press.json is for {told['model']}, not for this model")
        self.sink_size, self.recent_size = told["sink_size"], told["recent_size"]
        self.streaming_mask = mask
'''

_Row = Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(max_length=MOST), FailFast()]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["kvpress"]
    schema_version: Literal[1]
    model: str
    sink_size: Annotated[int, Field(ge=0, le=10**9)]
    recent_size: Annotated[int, Field(ge=1, le=10**9)]
    streaming: Annotated[list[_Row], Field(max_length=MOST), FailFast()]


@dataclass(frozen=True)
class Kvpress(_FullOrStreaming):
    """A press for kvpress: streaming KV heads, their sink and window, and the class that loads it.

    A folder with press.json and profile_press.py; `ProfilePress` there is kvpress's
    DuoAttentionPress with the heads of the file in place of those that it fetches for six models.

    Read in its code (0.5.5): the pass over the context is dense. Afterwards a streaming head no
    longer sees keys sink_size to n - recent_size - 1 of the n of the context, which a key without
    attention takes the place of; what comes later it sees for good, so that the window does not
    move on.

    Source: kvpress (NVIDIA), presses/duo_attention_press.py and attention_patch.py; after
    DuoAttention (Xiao et al. 2024, arXiv 2410.10819).
    """

    paper = "Xiao et al. 2024, arXiv 2410.10819, as in NVIDIA's kvpress"
    granularity = "KV head"
    loads = "kvpress 0.5.5 (transformers 4.56 to 5.2), any attention but eager"
    loses = (
        "The context itself is read densely, the window stays at its end while answers grow, and "
        "neither memory nor time is saved: kvpress measures quality."
    )
    files = ("press.json", "profile_press.py")

    def told(self, profile: SparseProfile) -> str:
        return (
            "from profile_press import ProfilePress; pipe(context, question, press=ProfilePress())"
        )

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        rule = self.streaming_of(profile)
        told = {
            "kind": "kvpress",
            "schema_version": 1,
            "model": profile.model.name,
            "sink_size": rule.sink,
            "recent_size": rule.window,
            "streaming": (~self.full_of(profile)).astype(int).tolist(),
        }
        return [(json.dumps(told) + "\n").encode(), _PRESS.encode()]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        told = _File.model_validate_json(contents[0])
        shaped(told.streaming, len(model.layers), model.n_kv_heads, "KV head")
        full = ~np.array(told.streaming, dtype=bool)
        return self.grid_of(full, Streaming(told.sink_size, told.recent_size), model)
