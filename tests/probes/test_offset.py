"""Prompts that are too short to look back in."""

import pytest

from headscope.errors import HeadscopeError
from headscope.probes.offset import Offset
from headscope.prompts import Prompt


@pytest.mark.parametrize("probe", [Offset(most=38), Offset(most=0), Offset(sampled=0)])
def test_what_cannot_be_read_is_refused(probe: Offset) -> None:
    with pytest.raises(HeadscopeError, match=r"'offset' looks.*between 1 and 37"):
        probe.check(Prompt(tuple(range(38))))
