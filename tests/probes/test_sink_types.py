import definitions
import pytest
import torch
from tiny import VOCAB, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import headscope
from headscope.engines import Attended
from headscope.probes.sink_types import SinkTypes
from headscope.probes.token_kinds import token_kinds

MARKS = {4: ".", 6: "、", 9: "\n", 11: "?\n", 14: "<turn>"}


def marked_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with some words replaced by delimiters."""
    vocab = {MARKS.get(i, f"w{i}"): i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="w1", eos_token="w2",
        additional_special_tokens=["<turn>"],
    )  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt_oss", "gpt2"])
def test_masses_equal_their_definition_where_there_are_delimiters(architecture: str) -> None:
    model = headscope.load(tiny_model(architecture), marked_tokenizer())
    for case in definitions.cases(model):
        attended = Attended(case.attention.z(), case.attention)
        found = SinkTypes().measure(attended, case.reading)
        want = definitions.module("sink_types").define(case)
        assert found.keys() == want.keys()
        for name, values in found.items():
            expected = torch.tensor(want[name])
            torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-4)
            assert name == "sink_types" or bool((values > 0).any()), name


def test_kinds_come_from_the_text_of_a_token() -> None:
    kinds = token_kinds(marked_tokenizer(), [1, 4, 6, 9, 11, 14, 5, VOCAB + 7])
    assert kinds == [
        "special", "punctuation", "punctuation", "newline", "newline", "special", "other", "other",
    ]  # fmt: skip


@pytest.mark.model
def test_kinds_of_a_byte_level_vocabulary(smollm2: headscope.HeadModel) -> None:
    text = "He said: (yes).\n\nЭто — «да», 好。$5 <|im_end|>"
    ids = smollm2.tokenizer(text, add_special_tokens=False)["input_ids"]
    kinds = token_kinds(smollm2.tokenizer, ids)
    said = dict(zip((smollm2.tokenizer.decode([i]) for i in ids), kinds, strict=True))
    assert kinds[-1] == "special"
    assert said[":"] == said[" —"] == "punctuation"
    assert said["He"] == said[" said"] == said["$"] == said["5"] == "other"
    assert "newline" in kinds
