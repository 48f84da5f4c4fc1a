from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from headscope.errors import HeadscopeError
from headscope.interventions.checks import check_choice
from headscope.interventions.rewriting import _Rewriting, single_token
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel

Place = Literal["before_answer", "end_of_question", "end_of_prompt"]
_ASKED = "Answer:"  # what stands before the answer where there is no chat template
_SEEN = 32  # tokens; more than any template writes between two turns


@dataclass(frozen=True)
class PauseTokens(_Rewriting):
    """Copies of one token before the answer, which give the model more rows to compute in.

    The model is not trained for them. Positions count on: what stands behind moves by `count`.

    Source: Goyal et al. 2023, "Think before you speak: Training Language Models With Pause Tokens",
    arXiv 2310.02226. They append a learned token to what is read, before the answer, and report a
    gain only where a model was pretrained and tuned with it; without training no gain is expected.
    The tokens and places here are headscope's own.

    Attributes:
        count: how many; 0 leaves the prompt as it is.
        token: a text that is one token, or a token's id.
        place: "before_answer": where the answer begins, in front of the first words of it that a
            prompt may give: behind the last start of an answer that the chat template writes, or
            else behind the last "Answer:"; at the end of a prompt that has neither.
            "end_of_question": directly behind the span "question". "end_of_prompt": behind the last
            token, so that the first words of an answer are parted from the rest of it.
    """

    paper = "Goyal et al. 2023, arXiv 2310.02226"
    count: int
    token: str | int = " ..."
    place: Place = "before_answer"

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 0:
            raise HeadscopeError(
                f"PauseTokens needs a whole count of 0 or more, not {self.count!r}."
            )
        check_choice(self, "place", Place)

    def check(self, model: "HeadModel") -> None:
        single_token(model, self.token, "PauseTokens")

    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        token = single_token(model, self.token, "PauseTokens")
        at = self.position(model, prompt)
        if self.count == 0:
            return prompt
        ids = prompt.token_ids
        # What ends here ends before the pauses, what begins here begins behind them.
        spans: dict[str, Range] = {
            name: (start + self.count * (start >= at), stop + self.count * (stop > at))
            for name, (start, stop) in prompt.spans.items()
        }
        return replace(prompt, token_ids=(*ids[:at], *[token] * self.count, *ids[at:]), spans=spans)

    def position(self, model: "HeadModel", prompt: Prompt) -> int:
        """The position of the first pause.

        Raises:
            HeadscopeError: the prompt has no span "question", and it is asked for.
        """
        if self.place == "end_of_question":
            return prompt.span("question")[1]
        if self.place == "before_answer":
            for mark in (_generation_prompt(model), _ASKED):
                if mark and (at := _behind(model, prompt, mark)) is not None:
                    return at
        return len(prompt)


def _generation_prompt(model: "HeadModel") -> str:
    """What the chat template writes for an answer to begin; empty if there is none."""
    if not model.tokenizer.chat_template:
        return ""
    turn = [{"role": "user", "content": "."}]
    without = str(model.tokenizer.apply_chat_template(turn, tokenize=False))
    whole = model.chat(".")
    return whole[len(without) :] if whole.startswith(without) else ""


def _behind(model: "HeadModel", prompt: Prompt, mark: str) -> int | None:
    """The last place in a prompt whose text up to there ends in a mark."""
    first = prompt.spans.get("question", (0, 0))[1]
    for at in range(len(prompt), first, -1):
        text = str(model.tokenizer.decode(list(prompt.token_ids[max(0, at - _SEEN) : at])))
        if text.rstrip(" ").endswith(mark.rstrip(" ")):
            return at
    return None
