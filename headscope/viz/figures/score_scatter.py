"""One score against another, a dot a head."""

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.charts import signed
from headscope.viz.marks import Along, Dots, Look, Rule
from headscope.viz.palette import Marker, Pair, styles
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import conditions, words

# Roles of one kind share a hue, so that a mark tells them apart.
_MARKS: tuple[Marker, ...] = ("circle", "triangle", "square", "diamond", "cross", "bar")
_NONE = Look(themes.LINE, "circle", size=4.5)


def score_scatter(found: HeadMap, x: str, y: str) -> Chart:
    """Two scores of every head, their primary roles as hue and mark.

    Args:
        found: what a scan found.
        x: the score on the horizontal axis.
        y: that on the vertical one.

    Raises:
        HeadscopeError: the map has no such score, or the two are one.
    """
    if x == y:
        raise HeadscopeError(f"A score says nothing beside itself; name another one than {x!r}.")
    across, up = (found[name].mean().ravel() for name in (x, y))
    known = np.isfinite(across) & np.isfinite(up)
    table = found.roles()
    roles, names = table["role"].to_numpy(), table["name"].to_numpy()
    looks = _looks([role for role in found.rules() if role in set(roles)])
    marks = []
    for role, look in {"": _NONE, **looks}.items():
        chosen = np.flatnonzero(known & (roles == role))
        if len(chosen):
            all_roles = [words(each).replace(",", ", ") for each in table["roles"].iloc[chosen]]
            said = [f"{names[i]}: {its or 'no role'}\n{words(x)} {signed(across[i])}, "
                    f"{words(y)} {signed(up[i])}"
                    for i, its in zip(chosen, all_roles, strict=True)]  # fmt: skip
            label = f"{words(role) or 'no role'} {len(chosen)}"
            marks.append(Dots(across[chosen], up[chosen], look, label, said=said))
    left_out = int((~known).sum())
    note = "Dashed: where rules cut."
    if left_out:
        note += (
            f" {left_out} head{' is' if left_out == 1 else 's are'} left out: a score is not known."
        )
    return Chart(
        f"{words(x).capitalize()} and {words(y)} of every head of {found.info.model.name}",
        (
            Panel(
                Axis(words(x)),
                Axis(words(y)),
                (*_cuts(found, x, "x"), *_cuts(found, y, "y"), *marks),
                width=520.0,
                height=400.0,
            ),
        ),
        note=note,
    )


def _cuts(found: HeadMap, score: str, axis: Along) -> list[Rule]:
    return [Rule(cut, axis) for cut in sorted({cut for cut, _ in conditions(found, score)})]


def _looks(roles: list[str]) -> dict[str, Look]:
    """A hue and a mark for each role; no two have both in common."""
    taken: dict[str, int] = {}
    found = {}
    for role, style in styles(roles).items():
        turn = taken.get(style.colour, 0)
        taken[style.colour] = turn + 1
        colour = Pair.of(style.colour)
        found[role] = Look(colour, _MARKS[turn % len(_MARKS)], filled=turn < len(_MARKS), size=7.5)
    return found
