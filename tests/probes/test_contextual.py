import pytest

from headscope.errors import HeadscopeError
from headscope.probes.contextual import Contextual
from headscope.prompts import Prompt


def test_a_gold_document_alone_is_refused() -> None:
    spans = {"gold": (2, 5), "doc_0": (2, 5)}
    with pytest.raises(HeadscopeError, match="'contextual' compares documents"):
        Contextual().check(Prompt(tuple(range(9)), spans, "x", (1,)))
