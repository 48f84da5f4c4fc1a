"""Chat: the user's turn token for token, and templates that cannot be used."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import VOCAB, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizing import CHAT, byte_tokenizer, text_of, within
from transformers import PreTrainedTokenizerFast

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.prompts import Chat, Needle
from headscope.prompts.base import SPLITS
from headscope.prompts.facts import FACTS

REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
DROPS = CHAT.replace("messages %}", "messages if m['role'] != 'system' %}")


def word_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """The tiny word tokenizer with a chat template."""
    vocab = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    made.chat_template = template
    return made


@pytest.mark.model
@settings(deadline=None, max_examples=30)
@given(
    real=st.booleans(),
    kind=st.sampled_from(sorted(FACTS)),
    length=st.integers(200, 700),
    depth=st.floats(0, 1),
    split=st.sampled_from(SPLITS),
    system=st.sampled_from(["", "Be brief.", "Read the text."]),
    seed=st.integers(0, 10**6),
)
def test_the_user_s_turn_is_all_that_the_user_says(
    smollm2: HeadModel, real: bool, kind: Any, length: int, depth: float, split: Any, system: str,
    seed: int,
) -> None:  # fmt: skip
    tokenizer: Any = smollm2.tokenizer if real else byte_tokenizer(True)
    length *= 1 if real else 5
    family = Chat(
        seed=seed, kind=kind, lengths=(length,), depths=(depth,), split=split, system=system
    )
    prompt = family.prompt(0, tokenizer)
    assert 0.99 * length <= len(prompt) <= length
    user = text_of(tokenizer, prompt, "user")
    assert user.startswith("Read the text. One sentence")
    assert user.endswith("\n\nQuestion: " + text_of(tokenizer, prompt, "question"))
    assert text_of(tokenizer, prompt, "answer") == prompt.answer
    for inner, outer in (("needle", "user"), ("answer", "needle"), ("question", "user")):
        assert within(prompt, inner, outer)
    start, stop = prompt.span("user")
    before = tokenizer.decode(prompt.token_ids[:start])
    assert before.endswith("<|im_start|>user\n" if real else "<user>")
    assert system in before
    assert tokenizer.decode(prompt.token_ids[stop:]).startswith("<|im_end|>" if real else "</s>")


def test_a_turn_joined_with_the_template_is_refused() -> None:
    family = Chat(lengths=(200,))
    apart = "user: {{ messages[0]['content'] }} end. assistant:"
    assert family.prompt(0, word_tokenizer(apart)).span("user")[0] == 1
    for joined in (apart.replace(": {{", ":{{"), apart.replace("}} end", "}}end")):
        with pytest.raises(HeadscopeError, match="joins the user's turn with its neighbour"):
            family.prompt(0, word_tokenizer(joined))
        # Where only the needle counts, a joined edge does no harm.
        assert Needle(lengths=(200,)).prompt(0, word_tokenizer(joined)).span("user")[0] < 2


def test_templates_that_cannot_be_used_are_named() -> None:
    with pytest.raises(HeadscopeError, match="no chat template, which the prompts of 'chat' need"):
        Chat().prompt(0, tiny_tokenizer())
    with pytest.raises(HeadscopeError, match=r"refuses a system turn \(no system\); use system"):
        Chat(system="Be brief.").prompt(0, byte_tokenizer(REFUSES + CHAT))
    with pytest.raises(HeadscopeError, match="drops the system turn"):
        Chat(system="Be brief.").prompt(0, byte_tokenizer(DROPS))
    with pytest.raises(HeadscopeError, match="refuses a user's turn"):
        Chat().prompt(0, byte_tokenizer("{{ raise_exception('never') }}"))
    for template in (REFUSES + CHAT, DROPS):
        assert Chat(lengths=(1200,)).prompt(0, byte_tokenizer(template)).span("user")


@pytest.mark.model
def test_more_samples_only_add(smollm2: HeadModel) -> None:
    few = Chat(samples=2, lengths=(256,)).prompts(smollm2.tokenizer)
    assert Chat(samples=4, lengths=(256,)).prompts(smollm2.tokenizer)[:2] == few
    assert few[0] != few[1]
