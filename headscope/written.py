"""What heads write into the residual stream, where a norm may stand behind W_O."""

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from headscope.blocks import wide
from headscope.model import HeadModel
from headscope.norms import Linear, Ran, short_pass


@dataclass(frozen=True, eq=False)
class Writes:
    """How a layer's heads write: each adds scale * z @ W, one scale per token.

    Attributes:
        W: W_O; behind it the gain of the norm that outputs go through, as in Gemma 2 and 3.
        norm: that norm, or None; it makes the scale of a token, of all heads' outputs together.
    """

    W: Float[Tensor, "head d model"]
    W_O: Float[Tensor, "head d model"]
    b_O: Float[Tensor, " model"] | None
    norm: nn.Module | None

    def scaled(self, z: Float[Tensor, "n head d"]) -> Float[Tensor, "n head d"]:
        """z times its tokens' scales, so that a head adds scaled(z) @ W."""
        if self.norm is None:
            return z
        written = _output(z, self.W_O, self.b_O)
        linear = Linear.of(self.norm, written)
        out = wide(self.norm(written[None].to(self.W_O.dtype))[0])
        return z * linear.per_scale(wide(written), out)[:, None, None]


@torch.no_grad()
def head_writes(model: HeadModel) -> list[Writes]:
    """Of every layer; norms behind W_O are found by values in one short pass.

    Raises:
        HeadscopeError: W_O cannot be found.
    """
    weights = [model.weights(layer) for layer in model.layers]
    seen, ran = short_pass(model)
    found = []
    for attended, own in zip(seen, weights, strict=True):
        z = attended.z[0].transpose(0, 1).to(own.W_O.device)
        norm = _reader(_output(z, own.W_O, own.b_O), ran)
        W = wide(own.W_O)
        if norm is not None:
            linear = Linear.of(norm, own.W_O)
            W = linear.moved(W) * linear.gain
        found.append(Writes(W, own.W_O, own.b_O, norm))
    return found


def _output(
    z: Float[Tensor, "n head d"], W_O: Float[Tensor, "head d model"], b_O: Tensor | None
) -> Float[Tensor, "n model"]:
    written = einsum(wide(z), wide(W_O), "n head d, head d model -> n model")
    return written if b_O is None else written + b_O


def _reader(y: Tensor, ran: list[Ran]) -> nn.Module | None:
    """The norm that reads what a layer's heads wrote together, by itself."""
    loose = 0.05 if ran[0][1].dtype in (torch.float16, torch.bfloat16) else 1e-4
    for module, x, out in ran:
        if x.ndim != 3 or x.shape[1:] != y.shape or out.shape != x.shape:
            continue
        read, made = wide(x[0]), wide(out[0])
        if float((read.to(y) - y).abs().max()) > loose * float(y.abs().max()):
            continue
        if not torch.equal(read, made) and Linear.of(module, x).explains(read, made):
            return module
    return None
