"""What goes wrong is said on the page: one sentence, never a traceback."""

import sys
import traceback
from secrets import token_hex

from dash import no_update, set_props

from headscope.errors import HeadscopeError
from headscope_app.worker import Superseded


def told(error: Exception) -> str:
    """What to say of an error; what is no user's mistake is printed in the terminal by a mark."""
    if isinstance(error, HeadscopeError):
        return str(error)
    mark = token_hex(3)
    print(f"headscope app: error {mark}", file=sys.stderr)
    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, MemoryError):
        return f"This machine is out of memory; close what else runs and try again ({mark})."
    return (
        f"Something went wrong that should not have; the terminal says more under {mark}. The "
        "rest of the page still works."
    )


def show(error: Exception) -> object:
    """Every callback's errors end here: the message appears, and nothing else changes."""
    if isinstance(error, Superseded):
        return no_update  # the answer to a later question is on its way
    set_props("message", {"data": {"text": told(error), "mark": token_hex(3)}})
    return no_update
