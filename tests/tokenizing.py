"""Tokenizers that tests of prompts share, and what a span says with them."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from headscope.prompts import Prompt

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}<assistant>"


@cache
def _bytes() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1} | {c: i + 2 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_tokenizer(chat: bool | str = False) -> PreTrainedTokenizerFast:
    """One token a byte: lengths and offsets at their hardest.

    Args:
        chat: a chat template, or whether to have one.
    """
    made = PreTrainedTokenizerFast(tokenizer_object=_bytes(), bos_token="<s>", eos_token="</s>")
    made.chat_template = CHAT if chat is True else chat or None
    return made


def text_of(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, span: str) -> str:
    """What a span says, without the space that some tokenizers write with a word."""
    return str(tokenizer.decode(prompt.token_ids[slice(*prompt.span(span))])).removeprefix(" ")


def within(prompt: Prompt, inner: str, outer: str) -> bool:
    """Whether one span lies in another."""
    (a, b), (low, high) = prompt.span(inner), prompt.span(outer)
    return low <= a < b <= high
