"""Marked spans: by name, by position, in padded batches; and what is refused."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import opened
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.interventions.attention_knockout import AttentionKnockout
from headscope.interventions.base import Intervention
from headscope.interventions.context_steering import ContextSteering
from headscope.interventions.insta_boost import InstaBoost
from headscope.interventions.pasta import Pasta
from headscope.interventions.scale_sink import ScaleSink
from headscope.interventions.spotlight import Spotlight
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

TOKENS = torch.randint(3, 97, (1, 16), generator=torch.Generator().manual_seed(2))
PROMPT = Prompt(
    tuple(TOKENS[0].tolist()), {"user": (3, 9), "doc_0": (1, 3), "doc_1": (5, 7)}, "w5", (5,)
)
SPANNED = [AttentionKnockout, Pasta, InstaBoost, Spotlight]


@pytest.mark.parametrize("kind", SPANNED)
def test_a_name_means_what_its_range_means(llama: HeadModel, kind: Any) -> None:
    for name, ranges in (("user", (3, 9)), ("doc", [(1, 3), (5, 7)])):
        bound, prompt = kind(name).prepared(llama, PROMPT)
        assert prompt is PROMPT
        with bound(llama):
            found = llama(TOKENS)
        with kind(ranges)(llama):
            assert torch.equal(llama(TOKENS), found)


@pytest.mark.parametrize("kind", SPANNED)
@pytest.mark.parametrize(
    ("span", "message"),
    [((3, 3), "holds no token"), ((-1, 2), "holds no token"), ([], "needs a span")],
)
def test_empty_spans_are_refused(kind: Any, span: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        kind(span)


@pytest.mark.parametrize("kind", SPANNED)
def test_spans_outside_the_prompt_are_refused(llama: HeadModel, kind: Any) -> None:
    plain = llama(TOKENS)
    with kind((10, 17))(llama):
        with pytest.raises(HeadscopeError, match="ends at token 17, and the prompt has 16"):
            llama(TOKENS)
        with pytest.raises(HeadscopeError, match="ends at token 17, and the prompt has 12"):
            llama(TOKENS, prompt_length=12)
    with kind("nowhere")(llama), pytest.raises(HeadscopeError, match="by name"):
        llama(TOKENS)
    with pytest.raises(HeadscopeError, match="no span named 'nowhere'"):
        kind("nowhere").prepared(llama, PROMPT)
    assert torch.equal(llama(TOKENS), plain)


def test_a_span_may_come_with_a_later_chunk(llama: HeadModel) -> None:
    cache = llama.new_cache()
    with InstaBoost((10, 14))(llama):
        first = llama(TOKENS[:, :8], cache=cache, prompt_length=16)
        second = llama(TOKENS[:, 8:], cache=cache, prompt_length=16)
        whole = llama(TOKENS)
    assert_close(torch.cat((first, second), 1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pasta((1, 2), alpha=0.0), "0 < alpha <= 1"),
        (lambda: ContextSteering(alpha=float("nan")), "ContextSteering weakens"),
        (lambda: InstaBoost((1, 2), factor=-1.0), "factor above 0"),
        (lambda: Spotlight((1, 2), target=1.0), "between 0 and 1"),
        (lambda: ScaleSink(-0.5), "dose of 0 or more"),
        (lambda: Pasta((1, 2), heads=["L99"]), "names no head"),
    ],
)
def test_bad_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": ["L0H6"]}, "has no head L0H6"), ({"layers": [3]}, "no attention layer 3")],
)
def test_what_a_model_has_not_is_refused(
    llama: HeadModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HeadscopeError, match=message), Pasta((1, 2), **options)(llama):
        pass
    assert not llama.stack.chain.entered


@dataclasses.dataclass(frozen=True)
class _Endless(Intervention):
    """Queries that grow beyond all bounds in one layer."""

    def attend(self, attention, attend):
        factor = torch.inf if attention.layer == 1 else 1.0
        return attend(attention.with_v(attention.v * factor))


def test_values_that_are_no_numbers_stop_the_pass_and_name_the_layer() -> None:
    model = opened("llama")
    plain = model(TOKENS)
    with _Endless()(model), pytest.raises(HeadscopeError, match="in layer 1 that are not finite"):
        model(TOKENS)
    assert torch.equal(model(TOKENS), plain)


MISTYPED = """
from headscope.errors import HeadscopeError
from headscope.interventions.pasta import Pasta
from headscope.interventions.spotlight import Spotlight
for make in (
    lambda: Pasta(5), lambda: Pasta((1.5, None)), lambda: Pasta((1, 2), part="answers"),
    lambda: Spotlight((1, 2), per="head"),
):
    try:
        make()
    except HeadscopeError as error:
        print(error)
"""


def test_values_of_another_kind_are_refused() -> None:
    """In a process of its own: here a checker of annotations would speak first."""
    done = subprocess.run(
        [sys.executable, "-c", MISTYPED], capture_output=True, text=True, check=True
    )
    number, pair, part, per = done.stdout.splitlines()
    assert "needs a span" in number
    assert "needs a span" in pair
    assert "no part 'answers'" in part
    assert "use row or layer" in per
