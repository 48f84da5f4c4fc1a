from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError
from headscope.interventions.rewriting import _Rewriting, single_token
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class AddSink(_Rewriting):
    """Put neutral tokens before the prompt, for heads to park their attention on.

    Source: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv
    2309.17453, section 3.2, whose linebreaks serve as sinks as well as the first words do.

    Attributes:
        count: how many; 0 changes nothing.
        token: the token, as text that is one token, or its id.
    """

    paper = "Xiao et al. 2023, arXiv 2309.17453"
    count: int = 4
    token: str | int = "\n"

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 0:
            raise HeadscopeError(
                f"AddSink cannot put {self.count!r} tokens before a prompt; use a whole number."
            )

    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        token = single_token(model, self.token, "AddSink")
        spans = {
            name: (start + self.count, stop + self.count)
            for name, (start, stop) in prompt.spans.items()
        }
        return replace(prompt, token_ids=(token,) * self.count + prompt.token_ids, spans=spans)
