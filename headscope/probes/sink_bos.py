from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe
from headscope.probes.own_pass import measured_pass, required_start
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class SinkBos(Probe):
    """Attention parked on the first token, with a start token there and without.

    score = mean over rows i > 0 of A[i, 0]; in [0, 1]. sink_bos is measured behind the tokenizer's
    BOS (EOS where there is none), sink_bare on the same tokens without it. A head high on both
    parks on whatever comes first; one high on sink_bos alone parks on the start token.

    Source: the sink score of Gu et al. 2024, arXiv 2410.10781, over whole prompts and with no
    threshold; the comparison as two scores of a head is headscope's own.
    """

    paper = "after Gu et al. 2024, arXiv 2410.10781"
    scores = {"sink_bare": "attention on the first token where no start token stands"}  # noqa: RUF012
    alters = True
    cost = "own pass"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=8, lengths=(256,)))

    def check_model(self, model: HeadModel) -> None:
        required_start(model, self.name)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) < 3:
            raise HeadscopeError(
                f"the probe 'sink_bos' needs three tokens or more, and there are {len(prompt)}; "
                "use longer prompts."
            )

    def read(self, model: HeadModel, prompt: Prompt) -> Mapping[str, Float[Tensor, "layer head"]]:
        start = required_start(model, self.name)
        bare = prompt.token_ids[prompt.token_ids[0] == start :]
        return {
            **measured_pass(model, (start, *bare), lambda a: {"sink_bos": _on_first(a)}),
            **measured_pass(model, bare, lambda a: {"sink_bare": _on_first(a)}),
        }


def _on_first(attended: Attended) -> Float[Tensor, " head"]:
    later = range(1, attended.attention.n_queries)
    return attended.attention.mass([0], later)[0].mean(-1)
