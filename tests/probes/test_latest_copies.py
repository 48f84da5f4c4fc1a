"""The latest earlier copy of a token, and prompts that have none."""

import pytest
import torch

from headscope.errors import HeadscopeError
from headscope.probes.base import Probe
from headscope.probes.echo import Echo
from headscope.probes.latest_copies import latest_copies
from headscope.probes.razor_induction import RazorInduction
from headscope.prompts import Prompt


def test_every_row_is_paired_with_the_latest_place_of_its_token() -> None:
    rows, places = latest_copies(torch.tensor([5, 7, 5, 5, 7, 9]))
    assert sorted(zip(rows.tolist(), places.tolist(), strict=True)) == [(2, 0), (3, 2), (4, 1)]


@pytest.mark.parametrize("probe", [Echo(), RazorInduction()])
def test_a_prompt_without_copies_is_refused(probe: Probe) -> None:
    with pytest.raises(HeadscopeError, match=f"'{probe.name}' reads earlier copies"):
        probe.check(Prompt((3, 4, 5)))
    probe.check(Prompt((3, 4, 3)))
