"""A context and a question about it as a prompt, with the answer's first words given."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.prompts.base import Prompt, Range, encode
from headscope.prompts.turns import in_chat


@dataclass(frozen=True)
class Draft:
    """A prompt as text, before its tokens are known.

    Attributes:
        text: all that stands before the answer.
        spans: named half-open ranges of characters in it.
        answer: the text that is expected to follow, without its leading space.
        templated: whether a chat template wrote the special tokens already.
        facts: what is known of it, for tables.
    """

    text: str
    spans: Mapping[str, Range]
    answer: str
    templated: bool
    facts: Mapping[str, int | float | str]

    def encode(self, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """The prompt."""
        return self._encode(tokenizer, self.spans)

    def size(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Its length in tokens, sooner than with all its spans."""
        return len(self._encode(tokenizer, {}))

    def _encode(self, tokenizer: PreTrainedTokenizerBase, spans: Mapping[str, Range]) -> Prompt:
        return encode(
            tokenizer,
            self.text,
            spans,
            answer=" " + self.answer,
            special_tokens=not self.templated,
            facts=self.facts,
        )


@dataclass(frozen=True)
class Asked:
    """What is asked of a context.

    Attributes:
        task: what to do, before the context.
        question: the question, behind it.
        lead: the first words of the answer, so that a small model goes on instead of around it.
        answer: what is expected to follow the lead.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
        system: a system turn in the chat template; empty for none.
    """

    task: str
    question: str
    lead: str
    answer: str
    chat: bool | None = None
    system: str = ""

    def about(
        self,
        context: str,
        spans: Mapping[str, Range],
        tokenizer: PreTrainedTokenizerBase,
        facts: Mapping[str, int | float | str],
    ) -> Draft:
        """The prompt that asks this of a context.

        Adds the span "question" to those of the context and, in a chat, "user": all that the user
        says.
        """
        before = f"{self.task}\n\n"
        user = f"{before}{context}\n\nQuestion: {self.question}"
        found = {name: (a + len(before), b + len(before)) for name, (a, b) in spans.items()}
        found["question"] = (len(user) - len(self.question), len(user))
        templated = bool(tokenizer.chat_template) if self.chat is None else self.chat
        if templated:
            found["user"] = (0, len(user))
            text, found = in_chat(tokenizer, user, found, self.system)
            text += self.lead
        else:
            text = f"{user}\nAnswer: {self.lead}"
        return Draft(text, found, self.answer, templated, facts)
