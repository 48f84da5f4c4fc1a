"""Methods as people type and combine them: what is typed is what is done, or is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import opened

from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.describing import described, parsed
from headscope.evals.evaluate import _prepared  # pyright: ignore[reportPrivateUsage]
from headscope.interventions.act import ACT
from headscope.interventions.add_sink import AddSink
from headscope.interventions.base import Intervention
from headscope.interventions.pasta import Pasta
from headscope.interventions.remove_sink import RemoveSink
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

HERE = Path(__file__).parents[1]


def test_a_span_is_looked_up_in_the_prompt_that_is_read() -> None:
    item = Item(prompt=Prompt(tuple(range(3, 23)), {"needle": (5, 9)}, "w5", (5,)))
    methods: list[Intervention] = [Pasta("needle"), AddSink(4, "w3")]
    for given in (methods, methods[::-1]):
        (steering,), asked = _prepared(opened("llama"), given, item)
        assert asked.prompt.token_ids[9:13] == item.prompt.token_ids[5:9]
        assert isinstance(steering, Pasta)
        assert steering.span == ((9, 13),)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("streaming_llm:rotate=False", "rotate", False),
        ("streaming_llm:rotate=false", "rotate", False),
        ("spotlight:span=needle,exact=False", "exact", False),
        ("token_select:similarity=None", "similarity", None),
        ("tidal_decode:chooser=1,corrections=2", "corrections", (2,)),
        ("tidal_decode:chooser=1,corrections=", "corrections", ()),
        ("act:layers=1", "layers", (1,)),
        ("act:heads=", "heads", ()),
        ("act:heads=1:2", "heads", ((1, 2),)),
        ("calibrated_attention:documents=3:5,amounts=1", "amounts", (1.0,)),
        ("duo_attention:streaming=L1KV1", "streaming", ((1, 1),)),
        ("calibrated_ranking:dummy=5", "dummy", "5"),
        ('pause_tokens:count=1,token=" ..."', "token", " ..."),
        ("insta_boost:span=needle,factor=2", "factor", 2.0),
    ],
)
def test_a_field_holds_what_was_typed(text: str, field: str, value: Any) -> None:
    model = opened("llama")
    (method,) = parsed(text, model)
    found = getattr(method, field)
    assert found == value
    assert type(found) is type(value)
    assert parsed(described(method), model) == [method]


def test_what_is_typed_for_add_sink_comes_back() -> None:
    assert parsed(described(AddSink()), opened("llama")) == [AddSink()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("streaming_llm:rotate=no", "rotate to be true or false, not 'no'"),
        ("insta_boost:span=needle,factor=true", "factor to be a number"),
        ("insta_boost:span=needle,factor=abc", "factor to be a number"),
        ("insta_boost:span=needle,factor=null", "factor to be a number"),
        ("add_sink:count=2.0", "count to be a whole number"),
        ("attention_sorting:rounds=2.0", "rounds to be a whole number"),
        ("calibrated_ranking:at_once=2.5", "at_once to be a whole number"),
        ("act:skip=1.5", "skip to be a whole number"),
        ("attention_buckets:bases=abc", "bases to be a number"),
        ("attention_buckets:bases=10000+b", "bases to be a number"),
        ("calibrated_attention:amounts=abc", "amounts to be a number"),
        ("tidal_decode:corrections=x,chooser=1", "corrections to be a whole number"),
    ],
)
def test_what_a_field_does_not_take_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(HeadscopeError) as caught:
        parsed(text, opened("llama"))
    assert says in str(caught.value)


UNCHECKED = """
from tiny import tiny_model, tiny_tokenizer
import headscope
import headscope.interventions as all_of
from headscope.evals.describing import parsed

model = headscope.load(tiny_model("llama"), tiny_tokenizer())
wrong = "a_file"
for make in (
    lambda: parsed('pasta:span={"a":1}', model),
    lambda: parsed("focus_directions:directions=5", model),
    lambda: parsed("iti:directions=1:2", model),
    lambda: parsed("dagcd:detector=5", model),
    lambda: parsed("ablate:heads=L1H1,reference=foo", model),
    lambda: all_of.FocusDirections(wrong),
    lambda: all_of.ITI(wrong),
    lambda: all_of.Dagcd(wrong),
    lambda: all_of.RescaleConcept(["L1H1"], wrong),
    lambda: all_of.Ablate(["L1H1"], "mean", reference=wrong),
    lambda: all_of.AddSink(2.0),
    lambda: all_of.AttentionSorting(rounds=2.0),
    lambda: all_of.PauseTokens(1, 4.5).check(model),
):
    try:
        make()
    except headscope.HeadscopeError:
        continue
    raise SystemExit("nothing was refused")
"""


def test_what_a_method_cannot_use_is_refused_without_types_being_checked() -> None:
    # Tests check the types of arguments, which nobody else does.
    done = subprocess.run(
        [sys.executable, "-c", UNCHECKED], capture_output=True, text=True, cwd=HERE, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", [ACT(skip=0), RemoveSink()], ids=["act", "remove_sink"])
def test_sinks_of_a_prompt_read_before_are_not_guessed(llama: HeadModel, method: Any) -> None:
    cache = llama.new_cache()
    tokens = torch.arange(3, 15)[None]
    llama(tokens, cache=cache, prompt_length=12)
    with method(llama), pytest.raises(HeadscopeError, match="began before its scope"):
        llama(tokens[:, :1], cache=cache, prompt_length=12)


def test_one_state_has_one_scope(llama: HeadModel) -> None:
    with ACT(skip=0)(llama):
        with pytest.raises(HeadscopeError, match="in force already"), ACT(skip=0)(llama):
            pass
        with ACT(skip=1)(llama):
            llama(torch.arange(3, 15)[None])


def test_a_span_has_to_lie_in_every_prompt_of_a_batch(llama: HeadModel) -> None:
    tokens, mask = torch.randint(3, 97, (2, 20)), torch.ones(2, 20, dtype=torch.long)
    mask[0, :12] = 0
    with Pasta((10, 14))(llama), pytest.raises(HeadscopeError, match="the prompt has 8"):
        llama(tokens, attention_mask=mask)
