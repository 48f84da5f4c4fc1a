"""What is special to evals that ask for more than a copy: their answers, worked out once more."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import opened
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizing import byte_tokenizer, text_of, within
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from headscope.catalog import evals
from headscope.errors import HeadscopeError
from headscope.evals.associations import associations
from headscope.evals.base import Eval, Item
from headscope.evals.common_knowledge import KINDS
from headscope.evals.own import Own
from headscope.evals.perplexity import Perplexity
from headscope.evals.scoring import scored
from headscope.prompts.base import SPLITS, Prompt
from headscope.smollm2 import smollm2_folder


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_folder())


def made(name: str, count: int = 6, **given: Any) -> list[Item]:
    return [
        evals()[name](seed=3, split=split, **given).item(index, tokenizer())
        for split in SPLITS
        for index in range(count)
    ]


def said(ids: Any) -> str:
    return str(tokenizer().decode(list(ids))).strip()


def asked(prompt: Prompt) -> str:
    return text_of(tokenizer(), prompt, "question")


def where_it_is(prompt: Prompt) -> str:
    """The place of who or what is asked for, after each sentence of the story in turn."""
    at, holds = dict[str, str](), dict[str, str]()
    for i in range(len(prompt.numbered("fact"))):
        who, verb, *_, last = text_of(tokenizer(), prompt, f"fact_{i}").rstrip(".").split()
        if verb == "picked":
            holds[last] = who
        elif verb == "put":
            at[last] = at[holds.pop(last)]
        else:
            at[who] = last
    found = re.fullmatch(r"Where is (?:the )?(\w+)(?: now)?\?", asked(prompt))
    assert found
    return at[holds.get(found[1], found[1])]


def color_of(prompt: Prompt) -> str:
    pairs = (text_of(tokenizer(), prompt, f"object_{i}").split() for i in range(9)
             if f"object_{i}" in prompt.spans)  # fmt: skip
    colors = {thing: color for color, thing in pairs}
    return next(color for thing, color in colors.items() if f"the {thing}?" in asked(prompt))


def by_the_association(prompt: Prompt) -> str:
    known = [a for split in SPLITS for kind in associations(split) for a in kind]
    clue = next(a.clue for a in known if a.question == asked(prompt))
    names = [n for n in prompt.spans if n == "needle" or n.startswith("distractor_")]
    sentences = [text_of(tokenizer(), prompt, name) for name in names]
    (gold,) = (s for s in sentences if s.endswith(clue))
    return gold.split()[0]


def stated(prompt: Prompt) -> str:
    assert within(prompt, "answer", "needle")
    assert within(prompt, "needle", "gold")
    assert prompt.span("gold") == prompt.span(f"doc_{prompt.facts['slot']}")
    assert text_of(tokenizer(), prompt, "gold").split("\n")[0].lower().endswith(
        str(prompt.facts["key"]).lower()
    )  # fmt: skip
    return text_of(tokenizer(), prompt, "needle").rstrip(".").split()[-1]


@pytest.mark.parametrize("given", [{}, {"lengths": (700,)}], ids=["short", "700 tokens"])
@pytest.mark.parametrize(
    ("name", "work_out"),
    [
        ("single_fact", where_it_is),
        ("two_facts", where_it_is),
        ("colored_objects", color_of),
        ("latent_needle", by_the_association),
        ("documents", stated),
    ],
)
def test_the_answer_is_what_the_prompt_says_and_a_swap_changes_it(
    name: str, work_out: Callable[[Prompt], str], given: Any
) -> None:
    for item in made(name, **given):
        assert work_out(item.prompt) == item.prompt.answer
        assert item.corrupt is not None
        assert work_out(item.corrupt) == item.corrupt.answer != item.prompt.answer
        assert item.prompt.answer not in map(said, item.wrong)


def test_no_clue_shares_a_word_that_means_something_with_its_question() -> None:
    idle = set("a an the in as and of to from with for on who which person by".split())
    kinds = [kind for split in SPLITS for kind in associations(split)]
    assert len({a.clue for kind in kinds for a in kind}) == sum(map(len, kinds)) >= 24
    for a in (a for kind in kinds for a in kind):
        clue, question = (set(re.findall(r"\w+", t.lower())) for t in (a.clue, a.question + a.lead))
        assert not clue & question - idle, a


@pytest.mark.parametrize("joins", [False, True], ids=["digits alone", "years whole"])
def test_every_later_end_of_a_century_is_right_and_every_other_wrong(joins: bool) -> None:
    words = [*map(str, range(1100, 1900)), *(f"{end:02}" for end in range(100)), "?"]
    whole = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    years = PreTrainedTokenizerFast(tokenizer_object=whole) if joins else tokenizer()
    for index in range(8):
        item = evals()["greater_than"](seed=1).item(index, years)
        first = int(item.prompt.facts["year"]) % 100
        right = {int(years.decode(list(ids))) for ids in (item.prompt.answer_ids, *item.right)}
        wrong = {int(years.decode(list(ids))) for ids in item.wrong}
        assert (right, wrong) == (set(range(first + 1, 100)), set(range(first + 1)))
        assert item.corrupt is not None
        assert int(years.decode(list(item.corrupt.answer_ids))) == 2
        start = item.corrupt.token_ids[slice(*item.corrupt.span("start"))]
        assert years.decode(list(start)).strip().endswith("01")


def test_both_copies_are_equal_and_the_first_half_is_scored_on_the_same_tokens() -> None:
    kind, control = evals()["induction"], evals()["first_half_induction"]
    for length in (65, 66):
        item = kind(lengths=(length,)).item(2, tokenizer())
        low, high = item.prompt.span("answer")
        assert item.prompt.token_ids[low:high] == item.prompt.answer_ids
        assert item.prompt.token_ids[low - 1] == item.prompt.token_ids[-1]
        assert len(set(item.prompt.answer_ids)) == len(item.prompt.answer_ids)
    both = kind(lengths=(65,)).item(2, tokenizer()).prompt
    for first in (control(lengths=(33,)), kind(lengths=(33,), half="first")):
        item = first.item(2, tokenizer())
        assert item.prompt.answer_ids == both.answer_ids
        assert len(item.prompt) == 2
        assert not first.in_prompt


def test_a_streamed_text_is_that_of_perplexity_with_a_curve() -> None:
    model, lengths = opened("llama"), (100,)
    whole = Perplexity(lengths=lengths).item(0, model.tokenizer)
    item = evals()["streaming_perplexity"](lengths=lengths, chunk=16).item(0, model.tokenizer)
    assert item.prompt == whole.prompt
    (streamed,), (at_once,) = scored(model, item), scored(model, whole)
    assert len(streamed.curve) == 8
    assert streamed.logp == pytest.approx(at_once.logp, rel=1e-5)


@pytest.mark.parametrize("given", [{}, {"lengths": (500,)}], ids=["short", "500 tokens"])
def test_both_orders_ask_the_same_and_only_what_stands_first_differs(given: Any) -> None:
    pairs = zip(made("context_order", **given), made("question_first", **given), strict=True)
    for first, last in pairs:
        assert (first.prompt.answer, first.wrong) == (last.prompt.answer, last.wrong)
        for item, before in ((first, True), (last, False)):
            text = said(item.prompt.token_ids)
            context, question, options = map(text.index, ("Context:", "Question:", "Options:"))
            assert (context < question) == before
            assert question < options
            listed = text[options : None if before else context]
            assert all(word in listed for word in (item.prompt.answer, *map(said, item.wrong)))


def test_known_facts_are_many_and_no_other_answer_is_right() -> None:
    assert sum(len(kind.facts) for kind in KINDS.values()) >= 60
    for item in made("closed_book", count=12):
        facts = dict(KINDS[str(item.prompt.facts["kind"])].facts)
        assert facts[str(item.prompt.facts["key"])] == item.prompt.answer
        assert {*map(said, item.wrong)} <= {*facts.values()} - {item.prompt.answer}


SHORT = "latent_needle documents colored_objects greater_than single_fact two_facts context_order"


@pytest.mark.parametrize("name", [*SHORT.split(), "question_first", "closed_book", "induction"])
def test_too_short_a_length_is_one_sentence(name: str) -> None:
    with pytest.raises(HeadscopeError, match=r"token.*\.$") as caught:
        evals()[name](lengths=(4,)).item(0, tokenizer())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ("colored_objects", {"objects": 1}),
        ("single_fact", {"people": 9}),
        ("documents", {"documents": 1}),
        ("latent_needle", {"distractors": 0}),
        ("latent_needle", {"depths": (2.0,)}),
        ("streaming_perplexity", {"chunk": 0}),
        ("streaming_perplexity", {"buckets": 0}),
    ],
    ids=str,
)
def test_parameters_that_nothing_can_be_made_of_are_refused(given: tuple[str, Any]) -> None:
    with pytest.raises(HeadscopeError):
        evals()[given[0]](**given[1])


def own(tmp_path: Path, *lines: Any) -> Eval:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return Own(path=str(path))


GOOD = {"text": "The sky is", "answer": " blue"}
CHOICE = GOOD | {"wrong": [" green", " red"], "right": [" gray"]}


def test_own_questions_are_scored_by_what_their_lines_have(tmp_path: Path) -> None:
    (item,) = own(tmp_path, GOOD).items(byte_tokenizer())
    assert own(tmp_path, GOOD).metric == "answer"
    assert (item.wrong, item.chance, item.prompt.answer) == ((), 0, "blue")
    task = own(tmp_path, CHOICE, "", CHOICE | {"text": "Your sky is"})
    items = task.items(byte_tokenizer())
    assert task.metric == "choice"
    assert [item.prompt.facts["line"] for item in items] == [1, 3]
    assert [(len(item.right), len(item.wrong), item.chance) for item in items] == [(1, 2, 0.5)] * 2
    assert task.item(1, byte_tokenizer()) == items[1]


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (['{"text": "The sky'], "line 1"),
        ([GOOD, {"text": "The sea is"}], "line 2"),
        ([GOOD, CHOICE], "line 2"),
        ([CHOICE, CHOICE | {"wrong": [" blue"]}], "line 2"),
        ([CHOICE | {"right": [" red"]}], "line 1"),
        ([CHOICE | {"wrong": "red"}], "line 1"),
        ([], "no prompts"),
    ],
)
def test_own_lines_that_are_nearly_right_are_named(
    tmp_path: Path, lines: list[Any], where: str
) -> None:
    with pytest.raises(HeadscopeError, match=rf"own\.jsonl.*{where}") as caught:
        own(tmp_path, *lines).items(byte_tokenizer())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(HeadscopeError, match=r"nowhere\.jsonl"):
        Own(path="nowhere.jsonl").items(byte_tokenizer())
