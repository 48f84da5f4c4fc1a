"""All rows of a bench of one profile."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import JsonValue

from headscope.bench.baselines import Baseline
from headscope.bench.baselines.sdpa import _Sdpa
from headscope.bench.decode import made_step, measure_decode, why_no_step
from headscope.bench.inputs import made_case
from headscope.bench.meters import Meter
from headscope.bench.prefill import measure_prefill
from headscope.bench.result import Bench, DecodeRow, PrefillRow, Skipped, counted
from headscope.bench.versions import bench_versions
from headscope.errors import HeadscopeError
from headscope.sparsity.profile import SparseProfile

if TYPE_CHECKING:
    from headscope.kernels.mixed import Dispatch

Part = Literal["prefill", "decode", "all"]
Row = PrefillRow | DecodeRow | Skipped
Progress = Callable[[str, int, int], None]


def bench(
    profile: SparseProfile,
    lengths: Sequence[int],
    meter: Meter,
    against: Sequence[Baseline],
    *,
    name: str = "profile",
    part: Part = "all",
    batches: Sequence[int] = (1,),
    rounds: int = 11,
    dtype: torch.dtype = torch.bfloat16,
    command: str = "",
    quality: Mapping[str, JsonValue] | None = None,
    keep: Callable[[Bench], object] | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Time the attention of a profile's layers.

    Layers with the same rules are timed once and counted as often as they occur. A layer's own
    window is left out: every layer is timed as one that lets its heads see all earlier tokens.

    Args:
        lengths: of texts in tokens; decode times the token after as many.
        meter: of the device.
        against: baselines, a dense one among them.
        name: of the mix in results.
        batches: sequences that decode at once; prefill has one.
        rounds: in each of which every contender is timed once.
        command: what was typed, for the result.
        quality: what is known of what the profile loses, for the result.
        keep: called after every row with what there is by then.
        progress: called with (part, rows done, rows in all).

    Raises:
        HeadscopeError: the kernels do not take the profile's heads, or memory does not suffice.
    """
    found = empty(profile, meter, name, dtype, command)
    found.quality = dict(quality or {})
    parts: dict[str, Iterator[Row]] = {}
    kinds = len(layers_of(profile))
    if part != "decode":
        parts["prefill"] = prefill_rows(profile, lengths, meter, against, name, rounds, dtype)
    if part != "prefill":
        parts["decode"] = decode_rows(
            profile, lengths, meter, against, name, rounds, dtype, batches
        )
    for which, rows in parts.items():
        total = kinds * len(lengths) * (1 if which == "prefill" else len(batches))
        for done, row in enumerate(rows, 1):
            found.add(row)
            if keep is not None:
                keep(found)
            if progress is not None:
                progress(which, done, total)
    return found


def empty(
    profile: SparseProfile,
    meter: Meter,
    name: str,
    dtype: torch.dtype,
    command: str,
) -> Bench:
    """A bench without rows."""
    return Bench(
        profile=name,
        model=profile.model.model_dump(mode="json"),
        device=meter.name,
        dtype=str(dtype).removeprefix("torch."),
        date=date.today().isoformat(),
        command=command,
        versions=bench_versions(),
    )


def prefill_rows(
    profile: SparseProfile,
    lengths: Sequence[int],
    meter: Meter,
    against: Sequence[Baseline],
    name: str,
    rounds: int,
    dtype: torch.dtype,
    dispatch: "Dispatch" = "auto",
) -> Iterator[PrefillRow]:
    """A row for each length and each kind of layer."""
    model = profile.model
    for n in lengths:
        for layer, count in layers_of(profile).items():
            rules = profile.of_layer(layer)
            with _enough_memory(n):
                case = made_case(rules, model.n_kv_heads, model.d_head, n, meter.device, dtype)
                row = measure_prefill(case, against, meter, rounds, name, count, dispatch)
            yield row


def decode_rows(
    profile: SparseProfile,
    lengths: Sequence[int],
    meter: Meter,
    against: Sequence[Baseline],
    name: str,
    rounds: int,
    dtype: torch.dtype,
    batches: Sequence[int],
) -> Iterator[DecodeRow | Skipped]:
    """A row for each length, batch and kind of layer; of one that the kernel does not take, why."""
    dense = [each for each in against if isinstance(each, _Sdpa)]
    for n in lengths:
        for batch in batches:
            for layer, count in layers_of(profile).items():
                rules = profile.of_layer(layer)
                if reason := why_no_step(rules):
                    yield Skipped(
                        part="decode", mix=name, n=n, batch=batch, rules=counted(rules),
                        reason=reason,
                    )  # fmt: skip
                    continue
                with _enough_memory(n, batch):
                    step = made_step(profile, layer, n, batch, meter.device, dtype)
                    row = measure_decode(step, dense, meter, rounds, name, count)
                yield row


def layers_of(profile: SparseProfile) -> dict[int, int]:
    """The first layer of each kind, and how many layers are of it."""
    by_rules = {layer: profile.of_layer(layer) for layer in profile.model.layers}
    counts = Counter(by_rules.values())
    first: dict[int, int] = {}
    for layer, rules in by_rules.items():
        if rules in counts:
            first[layer] = counts.pop(rules)
    return first


@contextmanager
def _enough_memory(n: int, batch: int = 1) -> Iterator[None]:
    """Say in a sentence that a row does not fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        of = f"{batch} sequences of " if batch > 1 else ""
        raise HeadscopeError(
            f"A layer of {of}{n} tokens does not fit into the GPU's memory; give shorter --lengths "
            "or smaller --batch."
        ) from error
