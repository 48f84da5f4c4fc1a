"""Seeded prompts with labelled spans, and the user's own."""

from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.chat import Chat
from headscope.prompts.documents import Documents
from headscope.prompts.jsonl import Jsonl
from headscope.prompts.key_value import KeyValue
from headscope.prompts.needle import Needle
from headscope.prompts.passkeys import Passkeys
from headscope.prompts.repeated import Repeated
from headscope.prompts.text import Text

__all__ = [
    "Chat",
    "Documents",
    "Jsonl",
    "KeyValue",
    "Needle",
    "Passkeys",
    "Prompt",
    "PromptFamily",
    "Repeated",
    "Text",
]
