"""A user's turn in the chat template, token for token."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.asking import Draft
from headscope.prompts.base import Prompt
from headscope.prompts.haystack import Haystack


@dataclass(frozen=True)
class Chat(Haystack):
    """A user asks about a fact in a passage, in the chat template, after a system turn if wanted.

    The user's turn is that of `Needle`; what differs is that its edges are tokens' edges, so that
    "user" holds what the user said and nothing of the template. A space that a tokenizer writes
    with the first word belongs to the word.

    Spans: "user" (all that the user says), and within it "needle", "answer", "question" and
    "sentence_0", ... as in `Needle`.

    Attributes:
        kind, lengths, depths, split: as in `Needle`; lengths count the template too.
        system: what the system turn says; empty for none, where a template may put its own.
    """

    system: str = ""

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        if not tokenizer.chat_template:
            raise HeadscopeError(
                "This tokenizer has no chat template, which the prompts of 'chat' need; use "
                "'needle' instead, or a chat model."
            )
        draft = self.hidden(index, tokenizer, True, self.system)
        prompt = draft.encode(tokenizer)
        _refuse_merged_edges(tokenizer, draft)
        return prompt


def _refuse_merged_edges(tokenizer: PreTrainedTokenizerBase, draft: Draft) -> None:
    low, high = draft.spans["user"]
    offsets = tokenizer(draft.text, add_special_tokens=False, return_offsets_mapping=True)
    for start, stop in offsets["offset_mapping"]:
        before, behind = start < low < stop, start < high < stop
        if behind or (before and draft.text[start:low] != " "):
            raise HeadscopeError(
                f"The tokenizer joins the user's turn with its neighbour in the chat template (in "
                f"{draft.text[start:stop]!r}), so no span holds exactly the turn; use 'needle', "
                "which allows that."
            )
