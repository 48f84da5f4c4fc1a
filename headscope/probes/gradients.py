"""What probes share that differentiate a model: whether it can be, and weights that stay still."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
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
    outputs: list[torch.Tensor] = []

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
    except (RuntimeError, NotImplementedError) as error:
        reason = f"its backward pass fails ({str(error).splitlines()[0][:80]})"
    raise HeadscopeError(
        f"the probe {probe!r} differentiates the model, and {model.spec} cannot be: {reason}. Open "
        "it without quantisation, on a backend that carries gradients, or leave the probe out."
    )
