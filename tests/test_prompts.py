"""Prompts: exact spans, exact lengths, the same everywhere, and nothing shared between splits."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizing import CHAT, byte_tokenizer, text_of
from transformers import PreTrainedTokenizerFast

from headscope.errors import HeadscopeError
from headscope.prompts import Jsonl, Needle, Repeated, Text, filler
from headscope.prompts.base import SPLITS, encode
from headscope.prompts.facts import FACTS


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(sorted(FACTS)),
    split=st.sampled_from(SPLITS),
    chat=st.booleans(),
    length=st.integers(900, 4000),
    depth=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_needles_are_whole_and_where_they_are_said_to_be(
    kind: Any, split: Any, chat: bool, length: int, depth: float, seed: int
) -> None:
    tokenizer = byte_tokenizer(chat)
    family = Needle(
        samples=1, seed=seed, kind=kind, lengths=(length,), depths=(depth,), split=split
    )
    prompt = family.prompt(0, tokenizer)
    assert 0.99 * length <= len(prompt) <= length
    needle, answer = text_of(tokenizer, prompt, "needle"), text_of(tokenizer, prompt, "answer")
    template = prompt.facts["template"]
    assert needle == str(template).format(key=prompt.facts["key"], answer=prompt.answer)
    assert answer == prompt.answer
    assert tokenizer.decode(prompt.answer_ids) == " " + prompt.answer
    whole = tokenizer.decode(prompt.token_ids)
    assert whole.count(needle) == 1
    assert whole.endswith(str(prompt.facts["key"])) or prompt.facts["key"] in whole[-80:]
    assert ("<assistant>" in whole) == chat
    at = prompt.span("needle")[0]
    assert at >= prompt.span("question")[0] * depth - length / 2


def test_depth_moves_the_needle() -> None:
    tokenizer = byte_tokenizer()
    places = [
        Needle(lengths=(3000,), depths=(depth,), samples=1).prompt(0, tokenizer).span("needle")[0]
        for depth in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert places == sorted(places)
    for place, depth in zip(places, (0.0, 0.25, 0.5, 0.75, 1.0), strict=True):
        assert abs(place / 3000 - depth) < 0.15


@pytest.mark.parametrize("kind", sorted(FACTS))
def test_more_samples_only_add(kind: Any) -> None:
    tokenizer = byte_tokenizer()
    few = Needle(kind=kind, lengths=(900, 1200), samples=4).prompts(tokenizer)
    many = Needle(kind=kind, lengths=(900, 1200), samples=9).prompts(tokenizer)
    assert many[:4] == few
    assert len({prompt.digest for prompt in many}) == 9
    assert Needle(kind=kind, lengths=(900,), samples=2, seed=1).prompts(tokenizer) != few[:2]


def test_splits_share_nothing() -> None:
    found: dict[str, list[set[Any]]] = {"filler": [], "names": [], "answers": []}
    tokenizer = byte_tokenizer()
    for split in SPLITS:
        family = Needle(split=split, lengths=(900,), samples=60)
        prompts = family.prompts(tokenizer)
        found["filler"].append(set(filler.paragraphs(split)))
        found["names"].append({prompt.facts["key"] for prompt in prompts})
        found["answers"].append({prompt.answer for prompt in prompts})
    for sets in found.values():
        assert all(sets)
        assert not any(a & b for i, a in enumerate(sets) for b in sets[i + 1 :])


def test_filler_is_long_enough_and_says_where_it_is_from() -> None:
    words = [word for split in SPLITS for word in filler.words(split)]
    assert len(words) >= 60_000  # a word is a token at least
    source = Path(filler.__file__).parent / "data" / "SOURCE.md"
    assert "public domain" in source.read_text(encoding="utf-8")


def test_repeated_tokens_repeat() -> None:
    prompt = Repeated(samples=1, block=20, times=3).prompt(0, tiny_tokenizer())
    start, *rest = prompt.token_ids
    assert start == 1
    assert rest[:20] == rest[20:40] == rest[40:]
    assert len(set(rest[:20])) == 20
    assert not set(rest) & {0, 1, 2}
    assert prompt.span("repeats") == (21, 61)
    with pytest.raises(HeadscopeError, match="cannot be drawn"):
        Repeated(block=500).prompt(0, tiny_tokenizer())
    with pytest.raises(HeadscopeError, match="two or more"):
        Repeated(block=5, times=1).prompt(0, tiny_tokenizer())


def test_text_has_the_length_that_was_asked_for() -> None:
    family = Text(samples=5, lengths=(64, 100))
    assert [len(p) for p in family.prompts(byte_tokenizer())] == [64, 100, 64, 100, 64]


def test_too_short_a_prompt_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="question alone takes"):
        Needle(lengths=(40,)).prompt(0, byte_tokenizer())
    with pytest.raises(HeadscopeError, match="depths between 0 and 1"):
        Needle(depths=(1.5,))


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(max_size=10), st.data())
def test_spans_of_any_text_are_exact(text: str, answer: str, data: st.DataObject) -> None:
    """Any script, any symbol: with a token a byte, a span's tokens spell exactly its characters."""
    text = text.encode("utf-8", "ignore").decode() or "x"
    answer = answer.encode("utf-8", "ignore").decode()
    low = data.draw(st.integers(0, len(text) - 1))
    high = data.draw(st.integers(low + 1, len(text)))
    tokenizer = byte_tokenizer()
    prompt = encode(tokenizer, text, {"span": (low, high)}, answer=answer)
    assert tokenizer.decode(prompt.token_ids) == text
    assert text_of(tokenizer, prompt, "span") == text[low:high]
    assert tokenizer.decode(prompt.answer_ids) == answer


def test_a_token_across_the_answer_s_edge_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(HeadscopeError, match="joins the end"):
        encode(tokenizer, "w5 w3", answer="4")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow(PreTrainedTokenizerFast):
        is_fast = False

    with pytest.raises(HeadscopeError, match="no character offsets"):
        encode(Slow(tokenizer_object=byte_tokenizer().backend_tokenizer), "text")


def write(path: Path, *lines: Any) -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_own_prompts_are_read(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(chat=True)
    path = write(
        tmp_path / "own.jsonl",
        {
            "text": "Код 417. Код",
            "spans": {"needle": "Код 417.", "answer": "417"},
            "answer": " 417",
        },
        "",
        {
            "text": "密码是灯笼。密码是",
            "spans": {"needle": [0, 6], "answer": [3, 5]},
            "answer": "灯笼",
        },
        {
            "text": "Say it.",
            "chat": True,
            "lead": "It is",
            "spans": {"verb": "Say"},
            "answer": " so",
        },
    )
    one, two, three = Jsonl(path=path).prompts(tokenizer)
    assert text_of(tokenizer, one, "answer") == "417"
    assert text_of(tokenizer, one, "needle") == "Код 417."
    assert text_of(tokenizer, two, "answer") == "灯笼"
    assert tokenizer.decode(three.token_ids) == "<user>Say it.</s><assistant>It is"
    assert text_of(tokenizer, three, "verb") == "Say"
    assert len(Jsonl(path=path, samples=2).prompts(tokenizer)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 1: invalid json: .* .column"),
        ("[1]", "line 1: input should be an object"),
        ({"text": "a", "lead": "b"}, '"lead" begins'),
        ({"spans": {}}, "text field required"),
        ({"text": "a", "unknown": 1}, "unknown"),
        ({"text": "a b a", "spans": {"x": "a"}}, "stands 2 times"),
        ({"text": "a b", "spans": {"x": "c"}}, "does not stand in the text"),
        ({"text": "a b", "spans": {"x": [2, 9]}}, "outside the text"),
        ({"text": "a b", "spans": {"x": [1]}}, "line 1"),
        ("", "holds no prompts"),
        ({"text": "hi", "chat": True}, "no chat template"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", line)
    with pytest.raises(HeadscopeError, match=message):
        Jsonl(path=path).prompts(byte_tokenizer())


def test_lines_end_where_json_lines_end(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    texts = ["a\u2028b", "c\u0085d", "e"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    tokenizer = byte_tokenizer()
    prompts = Jsonl(path=str(path)).prompts(tokenizer)
    assert [tokenizer.decode(prompt.token_ids) for prompt in prompts] == texts


def test_the_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = write(tmp_path / "own.jsonl", *[{"text": "a"}] * 5), []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: reads.append(file) or read(file))
    assert len(Jsonl(path=path).prompts(byte_tokenizer())) == 5
    assert len(reads) == 1


def test_a_chat_template_may_trim_the_text(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(chat=True)
    tokenizer.chat_template = CHAT.replace("m['content']", "m['content'] | trim")
    spans = {"verb": "Say", "all": [0, 10]}
    path = write(tmp_path / "own.jsonl", {"text": " \nSay it. \n", "chat": True, "spans": spans})
    (prompt,) = Jsonl(path=path).prompts(tokenizer)
    assert tokenizer.decode(prompt.token_ids) == "<user>Say it.</s><assistant>"
    assert text_of(tokenizer, prompt, "verb") == "Say"
    assert text_of(tokenizer, prompt, "all") == "Say it."
    for line, message in (
        ({"text": "a\n", "spans": {"x": [1, 2]}}, "'x' holds only space"),
        ({"text": " \n"}, "does not hold the text"),
    ):
        path = write(tmp_path / "bad.jsonl", line | {"chat": True})
        with pytest.raises(HeadscopeError, match=message):
            Jsonl(path=path).prompts(tokenizer)
    tokenizer.chat_template = CHAT.replace("m['content']", "m['content'] | upper")
    path = write(tmp_path / "bad.jsonl", {"text": "Say it.", "chat": True})
    with pytest.raises(HeadscopeError, match="does not hold the text"):
        Jsonl(path=path).prompts(tokenizer)


def test_words_of_the_template_are_not_taken_for_the_text(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(chat=True)
    path = write(tmp_path / "own.jsonl", {"text": "use", "chat": True, "spans": {"x": [0, 3]}})
    (prompt,) = Jsonl(path=path).prompts(tokenizer)
    assert prompt.span("x") == (6, 9)  # <user>use</s>


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match=r"nothing\.jsonl"):
        Jsonl(path=str(tmp_path / "nothing.jsonl")).prompts(byte_tokenizer())


def test_a_span_that_is_not_there_is_named() -> None:
    with pytest.raises(HeadscopeError, match=r"'needle' \(it has: repeats"):
        Repeated(block=4, times=2).prompt(0, tiny_tokenizer()).span("needle")
