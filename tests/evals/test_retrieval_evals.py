"""What is special to evals that look something up: order, counts, chains, swapped values."""

import json
import re
from collections import Counter
from functools import cache
from itertools import groupby, pairwise

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.common_words import CommonWords
from headscope.evals.drawing import invented, turn
from headscope.evals.frequent_words import FrequentWords
from headscope.evals.key_value import KeyValue
from headscope.evals.multi_key_needle import MultiKeyNeedle
from headscope.evals.multi_query_needle import MultiQueryNeedle
from headscope.evals.multi_value_needle import MultiValueNeedle
from headscope.evals.needle_threading import NeedleThreading
from headscope.evals.passkey import Passkey
from headscope.evals.variable_tracking import VariableTracking
from headscope.prompts.base import SPLITS, Prompt
from headscope.smollm2 import smollm2_folder

SEVERAL: list[Eval] = [
    MultiValueNeedle(values=4), MultiQueryNeedle(queries=3), CommonWords(), FrequentWords(),
    VariableTracking(chains=2, hops=3, lengths=(512,)),
]  # fmt: skip
ALL = [Passkey, MultiKeyNeedle, MultiValueNeedle, MultiQueryNeedle, VariableTracking, CommonWords,
       FrequentWords, KeyValue, NeedleThreading]  # fmt: skip


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_folder())


def text(prompt: Prompt) -> str:
    return str(tokenizer().decode(prompt.token_ids))


def said(prompt: Prompt, name: str) -> str:
    return str(tokenizer().decode(prompt.token_ids[slice(*prompt.span(name))])).strip(' .:="')


def values(item: Item) -> list[str]:
    """The values of an answer, from what counts in it."""
    runs = groupby(zip(item.counted, item.prompt.answer_ids, strict=True), key=lambda pair: pair[0])
    runs = [[token for _, token in run] for counts, run in runs if counts]
    return [str(tokenizer().decode(run)).strip() for run in runs]


def pairs(prompt: Prompt) -> dict[str, str]:
    """The JSON object of a prompt."""
    found = json.loads(text(prompt)[text(prompt).index("{") : text(prompt).rindex("}") + 1])
    return {key: str(value) for key, value in found.items()}


def chosen(prompt: Prompt) -> str:
    return str(tokenizer().decode(prompt.answer_ids)).strip()


@pytest.mark.parametrize("task", SEVERAL, ids=lambda task: task.name)
def test_what_counts_is_the_values_and_each_stands_in_its_span(task: Eval) -> None:
    for index in range(6):
        item = task.item(index, tokenizer())
        answer = re.split(", | and ", item.prompt.answer)
        assert values(item) == answer
        count = len(item.prompt.numbered("answer"))
        assert [said(item.prompt, f"answer_{i}") for i in range(count)] == answer
        assert not any(name.startswith("said") for name in item.prompt.spans)


def test_several_values_are_asked_for_in_the_order_of_the_text() -> None:
    for index in range(9):
        item = MultiValueNeedle(values=4).item(index, tokenizer())
        spans = item.prompt.numbered("answer")
        assert spans == sorted(spans)
        assert re.findall(r"has the number (\d{5})\.", text(item.prompt)) == values(item)


def test_several_keys_are_answered_in_the_order_of_the_question() -> None:
    orders = set()
    for index in range(9):
        item = MultiQueryNeedle(queries=3).item(index, tokenizer())
        owned = dict(re.findall(r"of (\w+) has the number (\d{5})\.", text(item.prompt)))
        owners = re.split(", | and ", str(item.prompt.facts["key"]))
        assert [owned[owner] for owner in owners] == values(item)
        orders.add(item.prompt.numbered("answer") == sorted(item.prompt.numbered("answer")))
    assert orders == {True, False}


def test_one_key_among_others_has_its_own_number() -> None:
    prompt = MultiKeyNeedle(distractors=5).item(0, tokenizer()).prompt
    owned = dict(re.findall(r"of (\w+) has the number (\d{5})\.", text(prompt)))
    assert len(owned) == 6
    assert owned[str(prompt.facts["key"])] == chosen(prompt) == said(prompt, "answer")
    assert len(prompt.numbered("distractor")) == 5


def test_a_passkey_stands_at_its_depth_in_noise_that_repeats() -> None:
    task = Passkey(lengths=(600,))
    assert {task.item(i, tokenizer()).prompt.facts["depth"] for i in range(5)} == set(task.depths)
    for index in range(5):
        prompt = task.item(index, tokenizer()).prompt
        first, last = prompt.span("sentence_0")[0], prompt.span("question")[0]
        place = (prompt.span("needle")[0] - first) / (last - first)
        assert abs(place - float(prompt.facts["depth"])) < 0.08
        noise = Counter(re.findall(r"[A-Z][^.]+\.", text(prompt)))
        assert sum(count > 10 for count in noise.values()) == 5


@pytest.mark.parametrize(("chains", "hops"), [(1, 2), (3, 1), (2, 3)])
def test_asked_variables_hold_the_number_and_no_others_do(chains: int, hops: int) -> None:
    task = VariableTracking(chains=chains, hops=hops, lengths=(600,))
    for index in range(5):
        item = task.item(index, tokenizer())
        held: dict[str, str] = {}
        # The worked example is read along with the rest: it is one more chain.
        for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", text(item.prompt)):
            assert name not in held
            held[name] = held.get(source, source)
            assert held[name].isdigit()
        assert len(held) == (chains + 1) * (hops + 1)
        key = item.prompt.facts["key"]
        assert [name for name, value in held.items() if value == key] == values(item)


@pytest.mark.parametrize("length", [256, 900])
@pytest.mark.parametrize("words", [2, 3, 5])
def test_asked_words_are_the_most_frequent_in_this_order(words: int, length: int) -> None:
    kinds = (CommonWords, FrequentWords)
    for task in (kind(words=words, lengths=(length,)) for kind in kinds):
        for index in range(4):
            item = task.item(index, tokenizer())
            asked = text(item.prompt).split("user\n", 1)[1].split("\n\n", 1)[1]
            listed = asked[: asked.index("\n\nQuestion")].rsplit("\n\n", 1)[-1]
            found = [entry for entry in listed.split() if not re.fullmatch(r"\d+\.", entry)]
            assert len(found) == item.prompt.facts["entries"]
            (*top, (_, next_count)) = Counter(found).most_common(words + 1 + (".... " in listed))
            assert [word for word, _ in top if word != "...."] == values(item)
            counts = [*(count for _, count in top), next_count]
            assert all(a > b for a, b in pairwise(counts))


def test_counts_follow_a_zeta_distribution() -> None:
    counts = FrequentWords(alpha=2.0).counts(400)
    assert counts[:5] == [400, 100, 44, 25, 16]
    assert counts[-1] == 1
    assert len(FrequentWords(alpha=1.1).counts(100_000)) < 400


@pytest.mark.parametrize("task", [KeyValue(), NeedleThreading()], ids=lambda task: task.name)
def test_a_corrupt_list_has_two_values_swapped(task: Eval) -> None:
    for index in range(6):
        item = task.item(index, tokenizer())
        assert item.corrupt is not None
        clean, corrupt = pairs(item.prompt), pairs(item.corrupt)
        assert list(clean) == list(corrupt)
        changed = [key for key in clean if clean[key] != corrupt[key]]
        assert len(changed) == 2
        assert [clean[key] for key in changed] == [corrupt[key] for key in changed[::-1]]
        assert {chosen(item.prompt), chosen(item.corrupt)} == {clean[key] for key in changed}
        assert item.corrupt.spans == item.prompt.spans
        assert said(item.corrupt, "answer") == chosen(item.corrupt)


def test_the_asked_key_has_the_value_and_the_list_fills_its_length() -> None:
    few, many = (KeyValue(lengths=(n,)).item(1, tokenizer()) for n in (300, 1000))
    for item in (few, many):
        listed, facts = pairs(item.prompt), item.prompt.facts
        assert listed[str(facts["key"])] == chosen(item.prompt)
        assert list(listed).index(str(facts["key"])) == facts["slot"]
        assert len(listed) == facts["pairs"] == len(item.prompt.numbered("pair"))
        others = {str(tokenizer().decode(wrong)).strip() for wrong in item.wrong}
        assert others < set(listed.values()) - {chosen(item.prompt)}
        assert len(others) == 7
    assert int(many.prompt.facts["pairs"]) > 3 * int(few.prompt.facts["pairs"])


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_a_thread_ends_where_it_is_said_to(hops: int) -> None:
    def end(listed: dict[str, str], key: str) -> str:
        return end(listed, listed[key]) if key in listed else key

    for index in range(5):
        item = NeedleThreading(hops=hops, lengths=(512,)).item(index, tokenizer())
        listed = pairs(item.prompt)
        begin = str(item.prompt.facts["key"])
        assert end(listed, begin) == chosen(item.prompt)
        ends = set(listed.values()) - set(listed)
        wrong = {str(tokenizer().decode(ids)).strip() for ids in item.wrong}
        assert wrong < ends - {chosen(item.prompt)}
        steps = item.prompt.numbered("step")
        assert len(steps) == hops
        assert steps[-1] == item.prompt.span("needle")
        assert said(item.prompt, "step_0").startswith(begin)
        assert item.corrupt is not None
        assert end(pairs(item.corrupt), begin) == chosen(item.corrupt)


def test_places_are_paired_evenly_with_lengths() -> None:
    task = KeyValue(lengths=(300, 400, 500))
    every = [(task.length(i), turn(task, i, task.depths)) for i in range(15)]
    assert len(set(every)) == 15
    assert all(a[1] != b[1] for a, b in pairwise(every[:3]))


@pytest.mark.parametrize("kind", ALL)
def test_splits_share_no_number_and_no_name(kind: type[Eval]) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for item in kind(samples=8, split=split).items(tokenizer()):
            prompt = item.prompt
            drawn = [*re.split(", | and ", prompt.answer)]
            drawn += re.split(", | and ", str(prompt.facts.get("key", prompt.answer)))
            for name in drawn:
                assert seen.setdefault(name, split) == split


@pytest.mark.parametrize("kind", ALL)
def test_without_lengths_prompts_are_as_long_as_they_are(kind: type[Eval]) -> None:
    item = kind(lengths=()).item(3, tokenizer())  # pyright: ignore[reportCallIssue]
    assert item.prompt.facts["length"] == 0
    assert len(item.prompt) < 700


@pytest.mark.parametrize("kind", ALL)
def test_a_length_that_holds_no_question_is_refused(kind: type[Eval]) -> None:
    with pytest.raises(HeadscopeError, match="ask for longer prompts"):
        kind(lengths=(50,)).item(0, tokenizer())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Passkey, {"depths": (1.2,)}), (MultiKeyNeedle, {"distractors": 12}),
        (MultiKeyNeedle, {"depths": ()}), (MultiValueNeedle, {"values": 1}),
        (MultiQueryNeedle, {"queries": 13}), (VariableTracking, {"hops": 0}),
        (VariableTracking, {"chains": 0}), (CommonWords, {"words": 11}),
        (CommonWords, {"entries": 2}), (FrequentWords, {"alpha": 1.0}),
        (FrequentWords, {"words": 0}), (KeyValue, {"pairs": 1}), (KeyValue, {"others": 0}),
        (NeedleThreading, {"threads": 1}), (NeedleThreading, {"hops": 9}),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(kind: type[Eval], wrong: dict[str, object]) -> None:
    with pytest.raises(HeadscopeError, match=kind.name):
        kind(**wrong)  # pyright: ignore[reportArgumentType]


def test_made_up_words_are_enough_for_the_largest_tasks() -> None:
    import random

    for split in SPLITS:
        rng = random.Random(split)
        assert len(set(invented(rng, split, 54, letters=3))) == 54
        assert len(set(invented(rng, split, 400, letters=4))) == 400
