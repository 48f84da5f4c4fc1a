"""What probes share that differentiate a model: whether it can be, and weights that stay still."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.stack import Attend


@contextmanager
def frozen(model: HeadModel) -> Iterator[None]:
    """Gradients are on and no weight collects any, for the length of a scope."""
    trained = [p for p in model.backend.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def need_gradients(probe: str, model: HeadModel) -> None:
    """Refuse a model through which no gradient flows, as through some quantised ones.

    Raises:
        HeadscopeError: it names the probe and the model.
    """
    outputs: list[Tensor] = []

    def around(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        if attention.layer != model.layers[0]:
            return attended
        outputs.append(attended.z.detach().requires_grad_(True))
        return attended.with_z(outputs[0])

    reason = "no gradient reaches its heads"
    try:
        with frozen(model), model.entered(around):
            ids = torch.arange(3)[None]
            logits = model.forward(ids, attention_mask=torch.ones_like(ids))
            (slope,) = torch.autograd.grad(logits.float().square().sum(), outputs)
        if bool(slope.isfinite().all()):
            return
        reason = "its gradients are no numbers"
    except RuntimeError as error:  # how torch says that there is no gradient or kernel
        reason = f"its backward pass fails ({str(error).splitlines()[0][:80]})"
    raise HeadscopeError(
        f"the probe {probe!r} differentiates the model, and {model.spec} cannot be: {reason}. Open "
        "it without quantisation, on a backend that carries gradients, or leave the probe out."
    )


@dataclass(frozen=True, eq=False)
class Differentiated:
    """One layer's attention on one prompt and its answer, and how the loss depends on its output.

    Attributes:
        slope: dL / dz, for L the negative log-likelihood of the answer's tokens, summed, in nats.
    """

    attention: Attention
    z: Float[Tensor, "1 head query dv"]
    slope: Float[Tensor, "1 head query dv"]


def differentiated(model: HeadModel, prompt: Prompt) -> list[Differentiated]:
    """All layers of one pass over a prompt and its answer, each token behind those before it.

    Memory is that of one forward and one backward pass; nothing is squared in tokens.
    """
    seen: list[Attended] = []

    def around(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        if not attended.z.requires_grad:  # weights are frozen: nothing before the first layer does
            attended = attended.with_z(attended.z.detach().requires_grad_(True))
        seen.append(attended)
        return attended

    answer = prompt.answer_ids
    with frozen(model), model.entered(around):
        logits = model.forward(
            [*prompt.token_ids, *answer[:-1]], prompt_length=len(prompt), last=len(answer)
        )
        want = torch.tensor(answer, device=logits.device)
        said = wide(logits[0]).log_softmax(-1).gather(1, want[:, None])
        slopes = torch.autograd.grad(-said.sum(), [attended.z for attended in seen])
    return [
        Differentiated(_still(attended.attention), attended.z.detach(), slope)
        for attended, slope in zip(seen, slopes, strict=True)
    ]


def _still(attention: Attention) -> Attention:
    """The same attention, cut from the graph that made it."""
    lse = attention.known_lse
    return replace(
        attention, q=attention.q.detach(), k=attention.k.detach(), v=attention.v.detach(),
        hidden=None, known_lse=None if lse is None else lse.detach(),
    )  # fmt: skip
