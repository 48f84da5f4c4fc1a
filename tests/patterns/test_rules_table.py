"""The table of rules in the documentation says what the registry says."""

from pathlib import Path

import pytest

from headscope.catalog import patterns, selectors
from headscope.patterns.rules import Rule
from headscope.patterns.selectors import Selector

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def row(kind: type[Rule]) -> str:
    """Name with its numbers, what a row sees, source, and what becomes of a single query."""
    sees = (kind.__doc__ or "").split("\n\n")[0]
    decodes = "yes" if not issubclass(kind, Selector) or kind.decodes else "sees everything"
    return f"| `{kind()}` | {' '.join(sees.split())} | {kind.paper} | {decodes} |"


@pytest.mark.skipif(not PAGE.parent.exists(), reason="no documentation beside these tests")
@pytest.mark.parametrize("kinds", [patterns(), selectors()], ids=["patterns", "selectors"])
def test_the_table_of_rules_is_that_of_the_registry(kinds: dict[str, type[Rule]]) -> None:
    section = PAGE.read_text().split("\n## Rules\n")[1].split("\n## ")[0]
    wanted = "\n".join(row(kind) for kind in kinds.values())
    assert wanted in section, f"docs/profiles.md should hold\n{wanted}"
