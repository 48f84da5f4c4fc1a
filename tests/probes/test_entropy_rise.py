import pytest
import torch
from definitions import a_prompt

import headscope
from headscope.errors import HeadscopeError
from headscope.probes.entropy_rise import EntropyRise, _Apart
from headscope.prompts import Prompt


def test_what_documents_did_not_see_shows_behind_the_first_layer(
    llama: headscope.HeadModel,
) -> None:
    _, prompt = a_prompt()
    rise = EntropyRise().read(llama, prompt)["entropy_rise"]
    torch.testing.assert_close(rise[0], torch.zeros(6), atol=1e-5, rtol=0)
    assert bool((rise[1:].abs() > 1e-3).any(1).all())


def test_documents_see_themselves_and_what_precedes_them() -> None:
    at = torch.arange(8)
    seen = _Apart((2, 4, 6)).mask(at[:, None], at[None]).tril()
    assert [row.nonzero()[:, 0].tolist() for row in seen] == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 4, 5],
        [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7],
    ]  # fmt: skip


def test_prompts_that_cannot_be_split_are_refused() -> None:
    ids = tuple(range(20))
    one = Prompt(ids, {"doc_0": (0, 9), "question": (10, 19)})
    with pytest.raises(HeadscopeError, match="'entropy_rise' needs a span 'doc_1'"):
        EntropyRise().check(one)
    early = Prompt(ids, {"question": (0, 4), "doc_0": (4, 9), "doc_1": (9, 14)})
    with pytest.raises(HeadscopeError, match="'entropy_rise' reads a question that follows"):
        EntropyRise().check(early)
