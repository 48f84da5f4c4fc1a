from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headscope.edits import Keys
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.probes.base import Probe
from headscope.probes.own_pass import measured_pass, required_start
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.chat import Chat
from headscope.prompts.turns import chat_turn

_MARK = "headscopemark"


@dataclass(frozen=True)
class ContextAwareness(Probe):
    """Attention on what the user said, with the chat template and without it.

    With U the user's tokens, mean over the last `window` rows i:
    context_awareness = sum_{j in U} A[i, j] in the chat;
    context_awareness_share = the same over the attention on U, the first token and the answer's
    first words, so that the template's own tokens are left out; 0 where those get nothing;
    context_awareness_bare = sum_{j in U} A[i, j] in a second pass, over a start token (BOS, or EOS
    where there is none), U and the answer's first words. All in [0, 1]. What the template takes
    from the user is context_awareness_bare - context_awareness_share.

    Source: the attention allocation of Wang et al. 2024, arXiv 2411.02688, section 2.2: the row
    that generates the first token of the answer (window = 1), renormalised over user, assistant
    and BOS. It is reported there for one head of a middle layer, and for models whose BOS stands
    before the template; where a template writes none, its first token stands for it here.

    Attributes:
        window: rows at the end of the prompt.
    """

    paper = "Wang et al. 2024, arXiv 2411.02688"
    scores = {  # noqa: RUF012
        "context_awareness_share": "the same, the template's own tokens left out",
        "context_awareness_bare": "attention on the user's tokens without the template",
    }
    alters = True
    cost = "own pass"
    spans = ("user",)
    prompts: PromptFamily = field(default_factory=Chat)
    window: int = 1

    def check_model(self, model: HeadModel) -> None:
        required_start(model, self.name)

    def read(self, model: HeadModel, prompt: Prompt) -> Mapping[str, Float[Tensor, "layer head"]]:
        low, high = prompt.span("user")
        user, behind = prompt.token_ids[low:high], prompt.token_ids[high:]
        lead = behind[_template_tail(model.tokenizer, behind) :]
        kept = torch.zeros(len(prompt), dtype=torch.bool, device=model.device)
        kept[0] = kept[low:high] = kept[len(prompt) - len(lead) :] = True

        def in_chat(attended: Attended) -> dict[str, Tensor]:
            on_user, on_kept = self._mass(attended, slice(low, high)), self._mass(attended, kept)
            share = torch.where(on_kept > 0, on_user / on_kept, 0.0)
            return {"context_awareness": on_user, "context_awareness_share": share}

        def bare(attended: Attended) -> dict[str, Tensor]:
            return {"context_awareness_bare": self._mass(attended, slice(1, 1 + len(user)))}

        plain = (required_start(model, self.name), *user, *lead)
        return measured_pass(model, prompt.token_ids, in_chat) | measured_pass(model, plain, bare)

    def _mass(self, attended: Attended, keys: Keys) -> Float[Tensor, " head"]:
        n = attended.attention.n_queries
        return attended.attention.mass(keys, range(max(0, n - self.window), n))[0].mean(-1)


def _template_tail(tokenizer: PreTrainedTokenizerBase, behind: Sequence[int]) -> int:
    """How many of the tokens behind the user's turn the chat template wrote."""
    if not tokenizer.chat_template:
        return 0
    text = chat_turn(tokenizer, _MARK)
    end = text.index(_MARK) + len(_MARK)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    tail = [token for token, (start, _) in pairs if start >= end]
    return len(tail) if list(behind[: len(tail)]) == tail else 0
