"""Seeded prompts with labelled spans, and the user's own."""

from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.jsonl import Jsonl
from headscope.prompts.needle import Needle
from headscope.prompts.repeated import Repeated
from headscope.prompts.text import Text

__all__ = ["Jsonl", "Needle", "Prompt", "PromptFamily", "Repeated", "Text"]
