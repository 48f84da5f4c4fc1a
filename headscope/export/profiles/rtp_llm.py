import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from headscope.errors import HeadscopeError
from headscope.export.base import MOST
from headscope.export.profiles.base import Grid, shaped
from headscope.export.profiles.full_or_streaming import _FullOrStreaming
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_Size = Annotated[int, Field(ge=0, le=10**9)]
_Heads = TypeAdapter(Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(max_length=MOST)])


class _Headwise(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    sink_token_num: _Size = 4
    swa_token_num: _Size = 8192
    seqlen_threshold: _Size = 16384


class _File(BaseModel):
    """The file, or a checkpoint's whole config.json with the key in it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    headwise_config: _Headwise


@dataclass(frozen=True)
class RtpLlm(_FullOrStreaming):
    """`headwise_config` of RTP-LLM: 1 for full query heads, 0 for a sink and a sliding window.

    A JSON file with that one key, which belongs into the checkpoint's config.json. A layer that is
    missing there is full.

    Read in its code: swa_token_num counts the keys before the query, so that a window of w tokens
    is written as w - 1. Full heads are gathered and run with all KV heads of the rank, which maps
    them right only if every KV head of a rank has as many full query heads as the others; other
    profiles are refused. Within one rank of a single KV head all are right. The kernel itself is
    closed; a sink of 0 was not looked into and is refused.

    Source: rtp_llm/models_py/modules/factory/attention/cuda_headwise_impl and models/qwen_v2.py of
    alibaba/rtp-llm at 4b8d39c.

    Attributes:
        threshold: tokens from which on a prompt runs sparsely; shorter ones run in full.
        ranks: of tensor parallelism, each with its share of the KV heads.
    """

    paper = "alibaba/rtp-llm, headwise_config"
    granularity = "query head"
    loads = "RTP-LLM (4b8d39c, 2026-08), Qwen2 and Qwen3 families, CUDA 12.8 or newer"
    loses = (
        "Only prompts of `threshold` tokens and more run sparsely; shorter prompts and decoding "
        "run in full, so that no KV cache is saved."
    )
    expresses = _FullOrStreaming.expresses + ", as many full heads in every KV group of a rank"
    gaps = True
    least_sink = 1
    threshold: int = 16384
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.threshold < 0 or self.ranks < 1:
            raise HeadscopeError(
                f"RTP-LLM needs threshold >= 0 and ranks >= 1, not {self.threshold} and "
                f"{self.ranks}."
            )

    def told(self, profile: SparseProfile) -> str:
        return (
            "put headwise_config into the checkpoint's config.json; serve with a tensor "
            f"parallelism of {self.ranks}"
        )

    def check(self, profile: SparseProfile) -> None:
        super().check(profile)
        model = profile.model
        if model.n_kv_heads % self.ranks:
            raise HeadscopeError(
                f"{model.n_kv_heads} KV heads do not divide over {self.ranks} ranks; name another "
                "number of ranks."
            )
        counts = self.full_of(profile).reshape(len(model.layers), self.ranks, -1, model.group)
        counts = counts.sum(-1)
        uneven = np.argwhere(counts != counts[..., :1])
        if len(uneven):
            row, rank, _ = uneven[0]
            found = ", ".join(map(str, counts[row, rank]))
            raise HeadscopeError(
                f"RTP-LLM maps full heads to the wrong KV heads unless each KV head of a rank has "
                f"as many of them; in layer {model.layers[row]} they have {found}. Make the counts "
                f"equal, or serve with ranks={model.n_kv_heads}, one KV head each."
            )

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        rule, full = self.streaming_of(profile), self.full_of(profile)
        layers = zip(profile.model.layers, full.astype(int).tolist(), strict=True)
        config: dict[str, Any] = {
            "sink_token_num": rule.sink,
            "swa_token_num": rule.window - 1,
            "seqlen_threshold": self.threshold,
        }
        lines = [f'  "{layer}": {json.dumps(heads)}' for layer, heads in layers]
        head = [f'  "{name}": {value}' for name, value in config.items()]
        text = '{"headwise_config": {\n' + ",\n".join([*head, *lines]) + "\n}}\n"
        return [text.encode()]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        told = _File.model_validate_json(contents[0]).headwise_config
        rows = {name: _Heads.validate_python(row) for name, row in (told.model_extra or {}).items()}
        strange = set(rows) - {str(layer) for layer in model.layers}
        if strange:
            raise ValueError(f"it names the layer {min(strange)[:20]!r}, which the model has not")
        every = [rows.get(str(layer), [1] * model.n_heads) for layer in model.layers]
        shaped(every, len(model.layers), model.n_heads, "query head")
        rule = Streaming(told.sink_token_num, told.swa_token_num + 1)
        return self.grid_of(np.array(every, dtype=bool), rule, model)
