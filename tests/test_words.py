"""Named concepts, and which of their words are single tokens."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import VOCAB, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizing import byte_tokenizer
from transformers import PreTrainedTokenizerFast

import headscope
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.head_pursuit import HeadPursuit
from headscope.prompts import Prompt, Repeated
from headscope.prompts.concept_questions import ConceptQuestions
from headscope.words import alike, concept, concepts, tokens_of_concept

FEW = Repeated(samples=4, block=6, times=2)


def test_named_concepts_are_asked_for_without_their_words() -> None:
    assert {"colours", "numbers", "countries", "animals", "names", "months"} <= {*concepts()}
    for name, one in concepts().items():
        words = {word.lower() for word in one.words}
        assert len(words) == len(one.words) >= 10, name
        asked = " ".join((*one.about, *one.asks)).lower().replace(",", " ").split()
        assert not words & {*asked}, name
        assert len({*one.about}) == len(one.about)
        assert all("{}" in ask for ask in one.asks)


@pytest.mark.model
def test_named_concepts_have_words_of_one_token(smollm2: HeadModel) -> None:
    for name, one in concepts().items():
        assert len(tokens_of_concept(smollm2, name)) > 0.8 * len(one.words), name
        family = ConceptQuestions(concept=name)
        texts = [smollm2.decode(prompt.token_ids) for prompt in family.prompts(smollm2.tokenizer)]
        assert len({*texts}) == len(texts) == 44
        other = replace(family, split="test")
        assert not {*texts} & {
            smollm2.decode(p.token_ids) for p in other.prompts(smollm2.tokenizer)
        }
        with pytest.raises(HeadscopeError, match="44 questions about"):
            replace(family, samples=45).prompts(smollm2.tokenizer)


def coloured(count: int) -> HeadModel:
    """A tiny model that knows some colours, which stand at the end of its vocabulary."""
    words = [*(f"w{i}" for i in range(VOCAB - count)), *concept("colours").words[:count]]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0")
    tokenizer = Tokenizer(level)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    return headscope.load(tiny_model("llama"), wrapped)


def test_words_that_a_tokenizer_splits_or_lacks_are_left_out() -> None:
    model = coloured(6)
    assert tokens_of_concept(model, "colours") == tuple(range(91, 97))
    named = HeadPursuit(concept="colours", prompts=FEW)
    assert "6 words of 'colours'" in str(named.bill(model, [Prompt((3,))]))
    ids = replace(named, words=tuple(range(91, 97)))
    maps = [headscope.scan(model, [probe]) for probe in (named, ids)]
    np.testing.assert_array_equal(maps[0]["head_pursuit"].values, maps[1]["head_pursuit"].values)
    assert {*alike(model, range(91, 97))} == {*range(1, 91)}  # no other word is of letters alone
    with pytest.raises(
        HeadscopeError, match=r"'colours', 4 are one token .* at least 5 are needed"
    ):
        headscope.scan(coloured(4), ["head_pursuit"])
    bytes_only = headscope.load(tiny_model("llama"), byte_tokenizer(False))
    with pytest.raises(HeadscopeError, match="'colours', 0 are one token"):
        headscope.scan(bytes_only, ["head_pursuit"])
