"""What a profile loses, beside how fast it is."""

from collections.abc import Callable, Sequence
from math import exp
from typing import TYPE_CHECKING, Any

from headscope.sparsity.profile import SparseProfile

if TYPE_CHECKING:
    from headscope.model import HeadModel

Progress = Callable[[str, int, int], None]
_SAMPLES = 6  # texts of each length: as few as an interval allows


def planned_quality(profile: SparseProfile, path: str) -> dict[str, Any]:
    """What the profile's notes say of how it was made: what it was planned by, and its budget."""
    return {"profile": path, "notes": dict(profile.notes)}


def measured_perplexity(
    model: "HeadModel",
    profile: SparseProfile,
    lengths: Sequence[int],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Perplexity of the model with the profile / without it, on the built-in text.

    Returns:
        For each length that fits the model's context, or for the whole context where none does:
        the perplexity without the profile, the ratio, and its 95 % interval over texts.

    Raises:
        HeadscopeError: the profile is for another model.
    """
    from headscope.evals.evaluate import evaluate
    from headscope.evals.perplexity import Perplexity
    from headscope.interventions.sparse_attention import SparseAttention

    limit = model.context_length
    fitting = sorted({n for n in lengths if n <= limit}) or [limit]
    found = evaluate(
        model,
        [Perplexity(samples=_SAMPLES * len(fitting), lengths=tuple(fitting))],
        changes={"profile": SparseAttention(profile)},
        progress=progress,
    )
    rows = found.by("length").to_dict("records")
    base = {row["length"]: row["value"] for row in rows if row["condition"] == "base"}
    return {
        "model": found.model,
        "texts": _SAMPLES,
        "perplexity": [
            {
                "n": row["length"],
                "without": exp(-base[row["length"]]),
                "ratio": exp(-row["change"]),
                "low": exp(-row["change.high"]),
                "high": exp(-row["change.low"]),
            }
            for row in rows
            if row["condition"] != "base"
        ],
    }
