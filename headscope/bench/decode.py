"""One token after n through one layer, over what a HeadCache holds: headscope and dense kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.bench.baselines.sdpa import _Sdpa, attend
from headscope.bench.contending import timed
from headscope.bench.meters import Call, Meter
from headscope.bench.prefill import OURS, dense_ones
from headscope.bench.result import DecodeRow, counted
from headscope.bench.timing import Spread, interleaved
from headscope.kernels.decode_plan import DecodePlan, KeyStore, See
from headscope.kernels.decoding import decode
from headscope.patterns.rules import Rule
from headscope.sparsity.decoding import seen_by
from headscope.sparsity.profile import SparseProfile, held_tokens

COPY = "copy"
_COPIED = 2**30  # bytes, many times an L2


@dataclass(frozen=True, eq=False)
class Step:
    """A decode step of one layer.

    Attributes:
        rules: of each query head.
        needs: (sink, window) that each KV head holds, None for all tokens.
        q: of the new token.
        k, v: of all tokens, the new one among them: what dense kernels read.
    """

    rules: tuple[Rule, ...]
    needs: tuple[See | None, ...]
    q: Float[Tensor, "batch head 1 d"]
    k: Float[Tensor, "batch kv_head token d"]
    v: Float[Tensor, "batch kv_head token d"]

    @property
    def n_bytes(self) -> tuple[int, int]:
        """Bytes of keys and values that have to be read, and that there are."""
        batch, n_kv, n, width = self.k.shape
        token = 2 * batch * width * self.k.element_size()
        return token * sum(held_tokens(need, n) for need in self.needs), token * n_kv * n

    def stores(self) -> list[KeyStore]:
        """Keys and values as a HeadCache holds them: rings where heads stream, all tokens else.

        What stands in them is no matter to their speed: rings hold the first tokens.
        """
        n = self.k.shape[2]
        # A ring that is not full yet is as good as all tokens in order.
        needs = [need if need and sum(need) < n else None for need in self.needs]
        found = []
        for need in dict.fromkeys(needs):
            kv = [head for head, other in enumerate(needs) if other == need]
            slots = n if need is None else sum(need)
            k, v = (x[:, kv, :slots].contiguous() for x in (self.k, self.v))
            found.append(KeyStore(k, v, kv, need))
        return found


def made_step(
    profile: SparseProfile,
    layer: int,
    n: int,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> Step:
    """A step after n tokens, of normal numbers: what it takes does not depend on them."""
    generator = torch.Generator(device).manual_seed(seed)
    model = profile.model

    def normal(heads: int, tokens: int) -> Tensor:
        shape = batch, heads, tokens, model.d_head
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    return Step(
        rules=profile.of_layer(layer),
        needs=tuple(profile.held(layer)),
        q=normal(model.n_heads, 1),
        k=normal(model.n_kv_heads, n),
        v=normal(model.n_kv_heads, n),
    )


def why_no_step(rules: Sequence[Rule]) -> str | None:
    """What keeps the decode kernel from taking a layer, as a clause; None if nothing does."""
    other = next((rule for rule in rules if seen_by(rule) is None), None)
    if other is None:
        return None
    return f"the decode kernel takes full and streaming heads, not {other}"


@torch.no_grad()
def measure_decode(
    step: Step,
    against: Sequence[_Sdpa],
    meter: Meter,
    rounds: int,
    mix: str,
    layers: int = 1,
) -> DecodeRow:
    """Time one step, as CUDA graphs where there are such.

    Args:
        step: that `why_no_step` has nothing against.
        against, rounds, mix, layers: as in `measure_prefill`.

    Raises:
        HeadscopeError: the kernel does not take the case, or no dense one does.
    """
    batch, n = step.k.shape[0], step.k.shape[2]
    sees = [see for see in map(seen_by, step.rules) if see is not None]
    plan = DecodePlan.of(step.stores(), sees)
    seen = torch.full((batch,), n, dtype=torch.int32, device=step.q.device)

    def ours() -> object:
        return decode(step.q, plan, seen, step.q.shape[3] ** -0.5)

    first = meter.seconds(ours)
    plain: dict[str, Call] = {}
    calls: dict[str, Call] = {}
    left_out: dict[str, str] = {}
    for each in against:
        reason = each.why_not_these(step.q, step.k, step.v, causal=False)
        call = partial(attend, each.backend, step.q, step.k, step.v, False)
        if reason is None:
            try:
                calls[each.name] = meter.captured(call)
                plain[each.name] = call
                continue
            except RuntimeError as error:  # some kernels cannot be captured
                reason = f"it failed ({str(error).splitlines()[0]})"
        left_out[each.name] = reason
    calls |= {OURS: meter.captured(ours), COPY: _copy(step.q.device)}
    timings = interleaved(calls, rounds, meter)
    dense = timings.fastest(dense_ones(against, plain, left_out))
    n_bytes, whole = step.n_bytes
    copied = timings.of(COPY)
    gbs = [2 * _COPIED / ms / 1e6 for ms in (copied.median, copied.high, copied.low)]

    return DecodeRow(
        mix=mix,
        layers=layers,
        rounds=rounds,
        n=n,
        batch=batch,
        rules=counted(step.rules),
        dense=dense,
        bytes_read=n_bytes,
        bytes_dense=whole,
        copy_gbs=Spread(median=gbs[0], low=gbs[1], high=gbs[2]),
        share=timings.ratio(COPY, OURS, n_bytes / (2 * _COPIED)),
        ours=timed(OURS, ours, dense, timings, meter, first),
        others={name: timed(name, call, dense, timings, meter) for name, call in plain.items()},
        left_out=left_out,
    )


def _copy(device: torch.device) -> Call:
    """A copy from the device to itself, whose bytes are read once and written once."""
    one, other = (torch.zeros(_COPIED // 4, device=device) for _ in range(2))
    return lambda: other.copy_(one)
