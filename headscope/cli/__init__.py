"""The command line. Everything heavy is imported inside the commands."""

import sys

from headscope import solver_noise
from headscope.cli import (
    benching,
    evaluating,
    exporting,
    measure,
    others,
    overlap,
    patch,
    planning_profiles,
    pruning,
    reading,
    reference,
    serving,
    signals,
    validating,
)
from headscope.cli.base import app
from headscope.errors import HeadscopeError

__all__ = [
    "app",
    "benching",
    "evaluating",
    "exporting",
    "main",
    "measure",
    "others",
    "overlap",
    "patch",
    "planning_profiles",
    "pruning",
    "reading",
    "reference",
    "serving",
    "signals",
    "validating",
]


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit code 2, anything else a traceback."""
    solver_noise.hush = True
    try:
        app()
    except HeadscopeError as error:
        print(f"headscope: {error}", file=sys.stderr)
        raise SystemExit(2) from None
