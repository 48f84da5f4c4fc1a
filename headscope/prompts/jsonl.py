"""The user's own prompts, one JSON object a line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError
from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.base import Prompt, PromptFamily, encode
from headscope.prompts.turns import in_chat


class Line(BaseModel):
    """One line: the text, its spans as characters or as the words themselves, and the answer.

    `{"text": "… The code is 417. … The code is", "spans": {"needle": "The code is 417.",
    "answer": "417"}, "answer": " 417"}`
    """

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1)
    spans: dict[str, str | Annotated[list[StrictInt], Field(min_length=2, max_length=2)]] = {}
    answer: str = ""
    chat: bool = False  # put `text` into the chat template as the user's turn
    lead: str = ""  # with `chat`: the first words of the assistant's answer
    wrong: list[str] = []  # for evals: answers that compete with `answer`
    right: list[str] = []  # for evals: answers that are as good

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Spans as ranges of characters of `text`; words are looked up and must stand there once,
        "answer" within "needle" where both are given."""
        found: dict[str, tuple[int, int]] = {}
        for name, span in sorted(self.spans.items(), key=lambda item: item[0] == "answer"):
            if not isinstance(span, str):
                low, high = span
                if not 0 <= low < high <= len(self.text):
                    raise ValueError(f"the span {name!r} lies outside the text")
                found[name] = (low, high)
                continue
            inside = name == "answer" and "needle" in found
            where = found["needle"] if inside else (0, len(self.text))
            place = "the needle" if inside else "the text"
            count = self.text[slice(*where)].count(span) if span else 0
            if count == 0:
                raise ValueError(
                    f"the span {name!r} does not stand in {place}; copy its words from there"
                )
            if count > 1:
                raise ValueError(
                    f"the span {name!r} stands {count} times in {place}; give it as character "
                    "offsets [start, end]"
                )
            at = where[0] + self.text[slice(*where)].index(span)
            found[name] = (at, at + len(span))
        return found


@dataclass(frozen=True)
class Jsonl(PromptFamily):
    """Prompts from a JSONL file; `samples` at most, all of them if 0.

    Attributes:
        path: the file.
    """

    samples: int = 0
    path: str = ""

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise HeadscopeError(f"Ask for at least one prompt, not {self.samples}; 0 is all.")

    def prompts(self, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        return [self.made(number, line, tokenizer) for number, line in self.lines()]

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        number, raw = self._lines()[index]
        return self.made(number, self._parsed(number, raw), tokenizer)

    def lines(self) -> list[tuple[int, Line]]:
        """The lines that are asked for, with their numbers in the file.

        Raises:
            HeadscopeError: the file cannot be read or is empty, or a line is not as it should be.
        """
        lines = self._lines()
        return [(i, self._parsed(i, raw)) for i, raw in lines[: self.samples or len(lines)]]

    def made(self, number: int, line: Line, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """The prompt of one line."""
        try:
            return _encode(tokenizer, line)
        except (ValueError, HeadscopeError) as error:
            raise HeadscopeError(
                f"{self.path}, line {number}: {str(error).rstrip('.')}."
            ) from error

    def _parsed(self, number: int, raw: str) -> Line:
        where = f"{self.path}, line {number}"
        try:
            return Line.model_validate_json(raw)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            if problem["loc"][0:1] == ("spans",) and len(problem["loc"]) > 1:
                raise HeadscopeError(f"{where}: {_no_span(problem)}") from error
            # Every line is the first of its own JSON: only the column says something.
            said = re.sub(r" at line 1 (column \d+)", r" (\1)", problem["msg"].lower())
            raise HeadscopeError(f"{where}: {field} {said}.".replace(":  ", ": ")) from error

    def _lines(self) -> list[tuple[int, str]]:
        try:
            # Other ends of line, such as U+2028, may stand within a JSON string.
            text = Path(self.path).read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise HeadscopeError(f"The prompts in {self.path!r} cannot be read: {why}.") from error
        lines = [(i, raw) for i, raw in enumerate(text.split("\n"), 1) if raw.strip()]
        if not lines:
            raise HeadscopeError(f"{self.path} holds no prompts.")
        return lines


def _no_span(problem: Any) -> str:
    return (
        f"the span {problem['loc'][1]!r} is given as words of the text, which stand in it once, or "
        "as two whole numbers [start, end]: its characters, counted from 0."
    )


def _encode(tokenizer: PreTrainedTokenizerBase, line: Line) -> Prompt:
    ranges, text = line.ranges(), line.text
    if line.lead and not line.chat:
        raise ValueError('"lead" begins an answer in a chat; give it with "chat": true')
    if line.chat:
        text, ranges = in_chat(tokenizer, text, ranges)
        text += line.lead
    return encode(tokenizer, text, ranges, answer=line.answer, special_tokens=not line.chat)
