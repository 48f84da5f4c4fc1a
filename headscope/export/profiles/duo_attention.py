import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from headscope.errors import HeadscopeError
from headscope.export.duo_attention import TABLE, Config, gates_of
from headscope.export.profiles.base import Grid, shaped
from headscope.export.profiles.full_or_streaming import _FullOrStreaming
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_NOISE = 1e-6  # that loaders add to break ties


class _Told(Config):
    sparsity: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True)
class DuoAttention(_FullOrStreaming):
    """Scores of KV heads, and the sink and window of those below a quantile of them.

    A folder with full_attention_heads.tsv, layers × KV heads, and config.json with sink_size and
    recent_size. Streaming heads score 0 to 0.4 and full ones 0.6 to 1, each its own number: its
    loaders add noise below 1e-6 to break ties, and any share of streaming heads that is right to
    within half a head gives this very set. The share is in config.json as `sparsity`, a key of
    headscope's that loaders pass over; a file without it, such as a released one, needs it as a
    parameter.

    Read in their code: values are cut to [0, 1]; heads at or above `np.quantile(scores, sparsity)`
    are full; sparsity 0 or less leaves all of them full, 1 or more none. recent_size counts the
    query's own key in the mask that gates are trained with; decoding from the trimmed cache, which
    holds sink_size + recent_size earlier keys, sees one key more, and a chunk of a prompt all of
    its own.

    Source: DuoAttention (Xiao et al. 2024, arXiv 2410.10819; mit-han-lab/duo-attention at fe93c31)
    and LServe (Yang et al. 2025, arXiv 2502.14866; mit-han-lab/omniserve at 02b2925).

    Attributes:
        sparsity: share of KV heads that stream, 0 to 1, for files that do not say it.
    """

    paper = "Xiao et al. 2024, arXiv 2410.10819; Yang et al. 2025, arXiv 2502.14866"
    granularity = "KV head"
    loads = (
        "DuoAttention (fe93c31, transformers 4.45.2, Llama and Mistral); OmniServe/LServe (02b2925)"
    )
    loses = (
        "DuoAttention reads the first pass of a prompt densely and sees one key more than the "
        "window when it decodes; LServe takes sink and window from flags, in blocks, and not from "
        "the files."
    )
    files = (TABLE, "config.json")
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise HeadscopeError(f"A sparsity lies between 0 and 1, not {self.sparsity}.")

    def told(self, profile: SparseProfile) -> str:
        rule, sparsity = self.streaming_of(profile), _sparsity(self.full_of(profile))
        return (
            f"pass sparsity {sparsity:.6g} (DuoAttention: --sparsity, LServe: --static-sparsity); "
            f"LServe also needs --ctx-sink-token {rule.sink} --ctx-local-token {rule.window} "
            f"--dec-sink-token {rule.sink} --dec-local-token {rule.window}"
        )

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        full, rule = self.full_of(profile), self.streaming_of(profile)
        table = io.StringIO()
        np.savetxt(table, _scores(full), delimiter="\t")
        config = {
            "model_name": profile.model.name,
            "sink_size": rule.sink,
            "recent_size": rule.window,
            "sparsity": _sparsity(full),
        }
        return [table.getvalue().encode(), (json.dumps(config, indent=1) + "\n").encode()]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        table, config = contents
        scores, told = gates_of(table), _Told.model_validate_json(config)
        shaped(scores.tolist(), len(model.layers), model.n_kv_heads, "KV head")
        sparsity = told.sparsity if self.sparsity is None else self.sparsity
        if sparsity is None:
            raise HeadscopeError(
                "config.json does not say which share of heads streams; give sparsity, 0 to 1"
            )
        full = _kept(scores, sparsity)
        return self.grid_of(full, Streaming(told.sink_size, told.recent_size), model)


def _sparsity(full: Bool[np.ndarray, "layer kv_head"]) -> float:
    return float(1 - full.mean())


def _scores(full: Bool[np.ndarray, "layer kv_head"]) -> Float[np.ndarray, "layer kv_head"]:
    scores = np.empty(full.shape)
    scores[~full] = np.linspace(0, 0.4, int((~full).sum()))
    scores[full] = np.linspace(0.6, 1, int(full.sum()))
    return scores


def _kept(
    scores: Float[np.ndarray, "layer kv_head"], sparsity: float
) -> Bool[np.ndarray, "layer kv_head"]:
    """The heads that stay full, by the rule of the loaders.

    Raises:
        ValueError: their noise would decide.
    """
    if not 0 < sparsity < 1:
        return np.full(scores.shape, sparsity <= 0)
    order = np.sort(scores, axis=None)
    apart = 1 + np.flatnonzero(np.diff(order) > _NOISE)  # counts of streaming heads without a tie
    cut = int(np.ceil(sparsity * (len(order) - 1)))
    if cut > 0 and cut not in apart:
        near = apart[np.argsort(np.abs(apart - cut), kind="stable")[:2]] / len(order)
        others = " and ".join(f"{share:.4g}" for share in sorted(near)) or "0 and 1"
        raise ValueError(
            f"at sparsity {sparsity:g} heads tie, and its loaders draw by chance which of them "
            f"stream; the nearest that part them are {others}"
        )
    return scores >= np.quantile(scores, sparsity)
