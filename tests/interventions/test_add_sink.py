"""Tokens before the prompt: where they stand, and what moves with them."""

import pytest
import torch
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.interventions.add_sink import AddSink
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

PROMPT = Prompt((5, 6, 7, 8), {"answer": (1, 3)}, "w9", (9,))


def test_tokens_stand_first_and_spans_move(llama: HeadModel) -> None:
    found = AddSink(3, token="w4").rewritten(llama, PROMPT)
    assert found.token_ids == (4, 4, 4, 5, 6, 7, 8)
    assert found.spans == {"answer": (4, 6)}
    assert (found.answer, found.answer_ids) == (PROMPT.answer, PROMPT.answer_ids)
    assert AddSink(0, token=4).rewritten(llama, PROMPT) == PROMPT


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (AddSink(2, token="w4 w5"), "is 2"),
        (AddSink(2, token=97), "tokens 0 to 96"),
    ],
)
def test_what_is_no_token_is_refused(llama: HeadModel, method: AddSink, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        method.rewritten(llama, PROMPT)
    with pytest.raises(HeadscopeError, match="cannot put -1"):
        AddSink(-1)


def test_a_prompt_method_has_no_scope(llama: HeadModel) -> None:
    plain = llama(list(PROMPT.token_ids))
    with pytest.raises(HeadscopeError, match="rewritten"), AddSink()(llama):
        pass
    assert_close(llama(list(PROMPT.token_ids)), plain, atol=0, rtol=0)
    assert torch.isfinite(plain).all()
