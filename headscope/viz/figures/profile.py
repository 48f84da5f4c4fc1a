"""A sparse profile: which rule each head has, darker where it computes more."""

from collections.abc import Sequence
from math import inf

import numpy as np

from headscope.heads import label
from headscope.patterns.rules import Rule
from headscope.sparsity.profile import SparseProfile
from headscope.viz import themes
from headscope.viz.chart import Chart, Key
from headscope.viz.marks import Cells, Look, Outline
from headscope.viz.palette import SURFACE, TOWARDS, Pair, mix
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import sequential, stepped

_AT = 4096  # tokens at which rules are ordered by what they compute
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_KEYED = 12


def profile(found: SparseProfile, note: str = "") -> Chart:
    """Every head as a cell, its rule as depth of colour and letter.

    Args:
        found: a profile.
        note: said below; what it computes and holds of 4,096 tokens if left out.
    """
    model = found.model
    grid = [found.of_layer(layer) for layer in model.layers]
    rules = _ordered([rule for row in grid for rule in row])
    index = {rule: i for i, rule in enumerate(rules)}
    values = np.array([[index[rule] for rule in row] for row in grid]).T
    colours = _colours(rules)
    letters = np.array([_letter(i) for i in range(len(rules))], object)
    said = np.array(
        [
            [f"{label((layer, head))}\n{row[head]}" for layer, row in zip(model.layers, grid,
                                                                         strict=True)]
            for head in range(model.n_heads)
        ],
        object,
    )  # fmt: skip
    cells = Cells(values.astype(np.int16), stepped(colours), letters[values], said, digits=None)
    pitch = max(9.0, min(22.0, 760.0 / len(model.layers)))
    panel = Panel(
        Axis("layer", names=tuple(map(str, model.layers))),
        Axis("head", names=tuple(map(str, range(model.n_heads))), down=True),
        (cells, *_separators(found)),
        width=max(pitch * len(model.layers), 24.0),
        height=max(pitch * model.n_heads, 24.0),
    )
    counts = np.bincount(values.ravel(), minlength=len(rules))
    key = [Key(f"{rule} {counts[i]}", colours[i], _letter(i)) for i, rule in enumerate(rules)]
    if len(key) > _KEYED:
        key = [*key[: _KEYED - 1], Key(f"and {len(rules) - _KEYED + 1} rules more", themes.EMPTY)]
    return Chart(
        f"Rules of the heads of {model.name}", (panel,), key=tuple(key), note=note or _costs(found)
    )


def _ordered(rules: Sequence[Rule]) -> list[Rule]:
    """Each once, those that compute most first, and last those whose cost the text decides."""

    def computed(rule: Rule) -> float:
        density = rule.density(_AT)
        return inf if density is None else -density

    return sorted(dict.fromkeys(rules), key=computed)


def _colours(rules: Sequence[Rule]) -> list[Pair]:
    """Of rules by position shades of one hue, of those by content shades of another."""
    by_position = [rule.density(_AT) is not None for rule in rules]
    n, m = sum(by_position), len(rules) - sum(by_position)
    ramp = sequential()
    shades = np.linspace(0.75, 0.12, n) if n > 1 else np.array([0.6])
    light, dark = (ramp.colours(shades, theme) for theme in ("light", "dark"))
    found = [Pair(_hex(a), _hex(b)) for a, b in zip(light[:n], dark[:n], strict=True)]
    content = Pair.of(TOWARDS)
    return found + [_faded(content, 1 - 0.6 * i / max(m, 1)) for i in range(m)]


def _faded(colour: Pair, amount: float) -> Pair:
    return Pair(
        mix(colour.light, SURFACE["light"], amount), mix(colour.dark, SURFACE["dark"], amount)
    )


def _hex(channels: np.ndarray) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in channels)


def _letter(index: int) -> str:
    return _LETTERS[index] if index < len(_LETTERS) else ""


def _separators(found: SparseProfile) -> list[Outline]:
    model = found.model
    if model.n_kv_heads in (1, model.n_heads):
        return []
    edges = np.arange(1, model.n_kv_heads) * model.group - 0.5
    x = np.tile([-0.5, len(model.layers) - 0.5, np.nan], len(edges))
    return [Outline(x, np.repeat(edges, 3), Look(themes.MUTED, "none", width=1.2))]


def _costs(found: SparseProfile) -> str:
    whole = 4 * len(found.model.layers) * found.model.n_kv_heads * found.model.d_head * _AT
    held = found.kv_bytes(_AT) / whole
    said = f"Of {_AT:,} tokens {held:.0%} of the keys and values are held"
    if not found.by_position:
        return f"{said}; how much is computed the text decides, where a rule looks at it."
    return f"{said} and {found.density(_AT):.0%} of the causal pairs computed."
