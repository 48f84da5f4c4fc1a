"""What is worked out of a head map once and used by all pages and all browsers."""

from functools import lru_cache
from typing import Any

from headscope.headmap import HeadMap
from headscope.viz.view import View
from headscope_app.state import State

_KEPT = 12
_DIGITS = 5
_KNOWN = ("retrieval", "induction")  # what most readers look for first


@lru_cache(maxsize=_KEPT)
def view_of(head_map: HeadMap) -> View:
    """Roles, confidence and intervals of all heads; the map is known by being the same object."""
    return View.of(head_map)


def outline(head_map: HeadMap) -> dict[str, Any]:
    """What the keys need to know of a map: which heads there are."""
    return {
        "layers": head_map.layers,
        "heads": head_map.n_heads,
        "group": head_map.n_heads // head_map.n_kv_heads,
    }


def browsable(view: View) -> dict[str, Any]:
    """What filters need to know too: by head, its roles, as places in a list of names."""
    roles = list(view.rules)
    index = {role: i for i, role in enumerate(roles)}
    of = [[index[role] for role in cell.roles] for cell in view.cells]
    return {**outline(view.head_map), "roles": roles, "of": of}


def numbers(head_map: HeadMap, **scores: str) -> dict[str, list[float]]:
    """Mean scores of all heads, by what they are for; a score that was not measured has none."""
    return {
        use: [float(f"{value:.{_DIGITS}g}") for value in head_map[name].mean().ravel()]
        for use, name in scores.items()
        if name in head_map.scores
    }


def pair_of(head_map: HeadMap, state: State) -> tuple[str, str]:
    """The two scores that are set against each other: those asked for, or else the best known."""
    known = [name for name in _KNOWN if name in head_map.scores]
    names = list(dict.fromkeys([*known, *head_map.scores]))
    up = state.probe if state.probe in names else names[0]
    others = [name for name in names if name != up] or [up]
    across = state.against if state.against in others else others[0]
    return across, up
