"""What there is: every registered method, read from its folder."""

from functools import cache

import headscope.evals
import headscope.export
import headscope.export.profiles
import headscope.interventions
import headscope.patterns
import headscope.patterns.selectors
import headscope.probes
import headscope.prompts
from headscope.evals.base import Eval
from headscope.export.base import Format
from headscope.export.profiles.base import ProfileFormat
from headscope.interventions.base import Intervention
from headscope.patterns.base import Pattern
from headscope.patterns.selectors.base import Selector
from headscope.probes.base import Probe
from headscope.prompts.base import PromptFamily
from headscope.registry import load_all


@cache
def probes() -> dict[str, type[Probe]]:
    """All probes by name, those of other packages included."""
    return load_all(headscope.probes, Probe)


@cache
def families() -> dict[str, type[PromptFamily]]:
    """All prompt families by name, the questions of evals among them."""
    evals()
    return load_all(headscope.prompts, PromptFamily)


@cache
def patterns() -> dict[str, type[Pattern]]:
    """All patterns by name."""
    return load_all(headscope.patterns, Pattern)


@cache
def selectors() -> dict[str, type[Selector]]:
    """All selectors by name."""
    return load_all(headscope.patterns.selectors, Selector)


@cache
def interventions() -> dict[str, type[Intervention]]:
    """All interventions by name."""
    return load_all(headscope.interventions, Intervention)


@cache
def formats() -> dict[str, type[Format]]:
    """All formats of others' files by name."""
    return load_all(headscope.export, Format)


@cache
def profile_formats() -> dict[str, type[ProfileFormat]]:
    """All formats that profiles are exported to by name."""
    return load_all(headscope.export.profiles, ProfileFormat)


@cache
def evals() -> dict[str, type[Eval]]:
    """All evals by name."""
    return load_all(headscope.evals, Eval)
