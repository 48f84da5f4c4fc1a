"""Commands, run in the process of a test."""

import contextlib
import io
import sys
from typing import Any

import pytest

from headscope import cli


def headscope(*args: Any) -> tuple[int, str, str]:
    """Run a command in this process; (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["headscope", *map(str, args)])
        redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with redirected[0], redirected[1], pytest.raises(SystemExit) as stop:
            cli.main()
    return int(stop.value.code or 0), out.getvalue(), err.getvalue()
