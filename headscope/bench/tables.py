"""A bench as tables and sentences."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from headscope.bench.result import Bench, PrefillRow, Timed


def prefill_table(found: Bench) -> pd.DataFrame:
    """One row for each mix and length, all layers of the mix together.

    Columns: mix, n, layers, dense, ms (of headscope, summed over layers), speed-up (over the best
    dense kernel), limit, reached (share of it), and a speed-up for each baseline that computed all
    layers. Layers count by how long their dense kernel takes.
    """
    groups: dict[tuple[str, int, str], list[PrefillRow]] = {}
    for row in found.prefill:
        groups.setdefault((row.mix, row.n, row.asked), []).append(row)
    return pd.DataFrame([_together(rows) for rows in groups.values()])


def parts_table(found: Bench) -> pd.DataFrame:
    """One row for each row of prefill: what a call of headscope is made of.

    Columns: mix, n, layers, dispatch, ms (everything of a call), attention and lists (ms of either
    alone; NaN of rules by position), plan (ms where no plan is kept), peak MB, and the peak MB of
    the dense kernel.
    """
    return pd.DataFrame(
        [
            {
                "mix": row.mix, "n": row.n, "layers": row.layers, "dispatch": _ran(row),
                "ms": row.ours.ms.median, "attention": _ms(row.attention), "lists": _ms(row.lists),
                "plan": 1e3 * row.plan_seconds, "peak MB": _megabytes(row.ours),
                "dense MB": _megabytes(row.others[row.dense]),
            }
            for row in found.prefill
        ]
    )  # fmt: skip


def decode_table(found: Bench) -> pd.DataFrame:
    """One row for each row of decode.

    Columns: mix, n, batch, layers, dense, us (of headscope), speed-up, limit, GB/s (of bytes that
    must be read), share (of the copy bandwidth).
    """
    return pd.DataFrame(
        [
            {
                "mix": row.mix, "n": row.n, "batch": row.batch, "layers": row.layers,
                "dense": row.dense, "us": 1e3 * row.ours.ms.median,
                "speed-up": row.ours.faster, "limit": row.limit, "GB/s": row.gbs,
                "share": row.share.median,
            }
            for row in found.decode
        ]
    )  # fmt: skip


def sentences(found: Bench) -> list[str]:
    """What was left out, and what is known of quality."""
    return [*left_out(found), *_quality(found.quality)]


def left_out(found: Bench) -> list[str]:
    """What was left out and why, each reason once."""
    left = {
        f"Left out of {row.part}: {name} ({reason})."
        for row in (*found.prefill, *found.decode)
        for name, reason in row.left_out.items()
    }
    left |= {f"Left out of {row.part}: {row.mix} ({row.reason})." for row in found.skipped}
    return sorted(left)


def _together(rows: list[PrefillRow]) -> dict[str, Any]:
    # What a layer counts for: the time of its dense kernel, in all layers of its kind.
    dense = [row.layers * row.ours.ms.median * row.ours.faster for row in rows]
    speedup = _whole(dense, [row.ours.faster for row in rows])
    limit = _whole(dense, [row.limit for row in rows])
    first = rows[0]
    found: dict[str, Any] = {
        "mix": first.mix if first.asked == "auto" else f"{first.mix} ({first.asked})",
        "n": first.n,
        "layers": sum(row.layers for row in rows),
        "dense": "/".join(dict.fromkeys(row.dense for row in rows)),
        "ms": sum(row.layers * row.ours.ms.median for row in rows),
        "speed-up": speedup,
        "limit": limit,
        "reached": speedup / limit,
    }
    for name in dict.fromkeys(name for row in rows for name in row.others):
        if all(name in row.others for row in rows):
            found[name] = _whole(dense, [row.others[name].faster for row in rows])
    return found


def _whole(dense: list[float], speedups: list[float]) -> float:
    """The speed-up of several layers together."""
    return sum(dense) / sum(t / each for t, each in zip(dense, speedups, strict=True))


def _ran(row: PrefillRow) -> str:
    return row.dispatch if row.dense_part is None else f"{row.dispatch} ({row.dense_part})"


def _ms(timed: Timed | None) -> float:
    return float("nan") if timed is None else timed.ms.median


def _megabytes(timed: Timed) -> float:
    return float("nan") if timed.peak_bytes is None else timed.peak_bytes / 1e6


def _quality(known: Mapping[str, Any]) -> list[str]:
    said = []
    if notes := known.get("notes"):
        told = ", ".join(f"{key} {value}" for key, value in notes.items())
        said.append(f"Quality, as the profile was made: {told}.")
    for each in known.get("perplexity", ()):
        said.append(
            f"Quality: perplexity of {known['model']} at {each['n']} tokens is {each['ratio']:.3f} "
            f"[{each['low']:.3f}, {each['high']:.3f}; {known['texts']} texts] times that without "
            f"the profile, which is {each['without']:.2f}."
        )
    return said or ["Quality: the profile does not say; give --quality MODEL to measure it."]
