"""Lines of a user's own file that are nearly right."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizing import byte_tokenizer

from headscope.errors import HeadscopeError
from headscope.prompts import Jsonl


@pytest.mark.parametrize(
    "span", [[0, 1, 2], [0], [0.0, 1.0], [0.5, 1.5], [False, True], ["0", "1"], 3, None, {"a": 1}]
)
def test_what_is_no_span_is_told_what_one_is(tmp_path: Path, span: Any) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"text": "a b c", "spans": {"x": span}}))
    with pytest.raises(HeadscopeError, match=r"line 1: the span 'x' .* \[start, end\]") as caught:
        Jsonl(path=str(path)).prompts(byte_tokenizer())
    assert "\n" not in str(caught.value)
