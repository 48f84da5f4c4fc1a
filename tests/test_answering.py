"""When an answer says what was expected, in scripts that ROUGE was not made for."""

import pytest

from headscope.answering import rouge1_recall


@pytest.mark.parametrize(
    "answer", ["🦄🦄", "→", "$", "+", "—", "👩‍👩‍👧‍👦", "٤١٧", "รหัสลับ", "नमस्ते", "𠀀𠀁"]
)
def test_an_answer_in_any_script_says_itself(answer: str) -> None:
    assert rouge1_recall(answer, answer) == 1
    assert rouge1_recall(f"The code is {answer}.", answer) == 1
    assert rouge1_recall("x", answer) == 0


@pytest.mark.parametrize(
    ("said", "expected", "recall"),
    [
        ("417号", "417", 1.0),
        ("417입니다", "417", 1.0),
        ("٤١٧و", "٤١٧", 1.0),
        ("417", "٤١٧", 1.0),
        ("서울입니다", "서울", 1.0),
        ("รหัสคือรหัสลับครับ", "รหัสลับ", 1.0),
        ("𠀀𠀁です", "𠀀𠀁", 1.0),
        ("❤", "❤\ufe0f", 1.0),
        ("cafe\u0301", "café", 1.0),
        ("417th", "417", 0.0),
        ("417417", "417", 0.0),
        ("٤١٧٤١٧", "٤١٧", 0.0),
        ("clockwork", "clock", 0.0),
        ("🦄", "🦄🦄", 0.5),
    ],
)
def test_an_answer_ends_where_its_script_does(said: str, expected: str, recall: float) -> None:
    assert rouge1_recall(said, expected) == pytest.approx(recall)
