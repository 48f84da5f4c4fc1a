"""Results as strings: a static SVG head map and a self-contained HTML report.

Nothing here loads a model, draws through a plotting library or touches the network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use: a head map can be drawn without what reads causal tests, which takes torch.
_HOMES = {
    "head_map_svg": "headscope.viz.head_map",
    "report_html": "headscope.viz.report",
    "write_report": "headscope.viz.report",
}

if TYPE_CHECKING:
    from headscope.viz.head_map import head_map_svg
    from headscope.viz.report import report_html, write_report

__all__ = ["head_map_svg", "report_html", "write_report"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headscope.viz' has no attribute {name!r}")
