"""Colours as CSS variables, from the palette that all figures share."""

from headscope.roles import RULES
from headscope.viz.palette import EMPTY, INK, LEVELS, LINE, MUTED, SURFACE, Theme, styles
from headscope_app.elements import css_name

_BOTH: tuple[Theme, Theme] = ("light", "dark")


def stylesheet() -> str:
    """Surfaces, text and roles in both themes."""
    light, dark = (_variables(theme) for theme in _BOTH)
    return f":root{{{light}}}:root[data-theme=dark]{{{dark}}}" + "".join(map(_role, styles(RULES)))


def _variables(theme: Theme) -> str:
    named = {"surface": SURFACE, "empty": EMPTY, "ink": INK, "muted": MUTED, "line": LINE}
    written = {name: colours[theme] for name, colours in named.items()}
    for role, style in styles(RULES).items():
        written[f"role-{css_name(role)}"] = style.on(theme)
        written[f"letter-{css_name(role)}"] = style.text(len(LEVELS) - 1, theme)
    return "".join(f"--{name}:{colour};" for name, colour in written.items())


def _role(role: str) -> str:
    name = css_name(role)
    return f".role-{name}{{--role:var(--role-{name});--letter:var(--letter-{name})}}"
