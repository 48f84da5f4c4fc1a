from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item, Metric
from headscope.prompts.jsonl import Jsonl


@dataclass(frozen=True)
class Own(Eval):
    """The user's own questions, one JSON object a line.

    A line is that of own prompts (text, spans, answer, chat, lead; see the README), with the
    answers that compete in "wrong" and others that are as good in "right", if there are any: the
    file is a choice then, on every line, and an answer that is to be said where there are none.

    Source: the user.

    Attributes:
        path: the file.
        samples: how many lines; all of them if 0.
    """

    source = "the user"
    licence = "the user's"
    in_prompt = False
    samples: int = 0
    path: str = field(default="", kw_only=True)

    @property
    def metric(self) -> Metric:  # pyright: ignore[reportIncompatibleVariableOverride]
        """ "choice" where the first line has wrong answers."""
        lines = self._prompts().lines() if self.path else []
        return "choice" if lines and lines[0][1].wrong else "answer"

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        return self.items(tokenizer)[index]

    def items(self, tokenizer: PreTrainedTokenizerBase) -> list[Item]:
        family, choice = self._prompts(), self.metric == "choice"
        found = []
        for number, line in family.lines():
            where = f"{self.path}, line {number}"
            prompt = family.made(number, line, tokenizer)
            if not line.answer:
                raise HeadscopeError(f"{where}: a question needs its 'answer'.")
            if bool(line.wrong) != choice:
                raise HeadscopeError(
                    f"{where}: all lines have 'wrong' answers, or none; the first decides."
                )
            others = []
            for text in (*line.right, *line.wrong):
                other = family.made(number, line.model_copy(update={"answer": text}), tokenizer)
                if other.token_ids != prompt.token_ids:
                    raise HeadscopeError(
                        f"{where}: the tokenizer joins the end of the text with the answer "
                        f"{text!r}; begin it with its space."
                    )
                others.append(other.answer_ids)
            if len({prompt.answer_ids, *others}) <= len(others):
                raise HeadscopeError(f"{where}: an answer is there twice, or right and wrong.")
            prompt = replace(prompt, facts={"line": number, "length": 0, **prompt.facts})
            good = len(line.right)
            found.append(Item(prompt, right=tuple(others[:good]), wrong=tuple(others[good:])))
        return found

    def _prompts(self) -> Jsonl:
        return Jsonl(path=self.path, samples=self.samples)
