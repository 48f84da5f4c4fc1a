"""What stands between the residual stream and a layer's q, k and v, and its linear part."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headscope.attention import Attention
from headscope.backends.discover import decoder_of
from headscope.blocks import wide
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.weights import HeadWeights

_LARGE = 64.0  # next to its square the epsilon of a norm is nothing
_TOKENS = 16

Ran = tuple[nn.Module, Tensor, Tensor]  # a module, what it was given first, and what it made


@dataclass(frozen=True, eq=False)
class Linear:
    """A norm's linear part: hidden = gain * X + bias, X = (x - mean(x) if centred else x) / s(x).

    X has entries of mean square 1. Without a norm hidden is x, gain is 1 and s is 1.
    """

    gain: Float[Tensor, " model"]
    bias: Float[Tensor, " model"] | None
    centred: bool

    @classmethod
    def none(cls, like: Float[Tensor, "... model"]) -> "Linear":
        return cls(torch.ones_like(like.reshape(-1, like.shape[-1])[0]), None, False)

    @classmethod
    def of(cls, norm: nn.Module, like: Float[Tensor, "... model"]) -> "Linear":
        """What a norm does to vectors of this width, read off by what it makes of three of them.

        No name of a weight has to be known, nor whether it is stored as g or as g - 1.
        """
        signs = torch.ones_like(like.reshape(-1, like.shape[-1])[0])
        signs[1::2] = -1
        some = _LARGE * torch.stack((signs, torch.ones_like(signs), torch.zeros_like(signs)))
        alternating, constant, bias = wide(norm(some[None])[0].detach())
        made, even, ways = alternating - bias, constant - bias, wide(signs)
        centred = bool(even.abs().amax() < 0.01 * made.abs().amax())
        if centred:  # an odd number of signs has a mean
            ways = ways - ways.mean()
        gain = made / (ways / ways.square().mean().sqrt())
        return cls(gain, bias if bool(bias.any()) else None, centred)

    def moved(self, x: Float[Tensor, "... model"]) -> Float[Tensor, "... model"]:
        """X times s(x): x as it is, or without its mean."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def per_scale(
        self, x: Float[Tensor, "*n model"], hidden: Float[Tensor, "*n model"]
    ) -> Float[Tensor, "*n"]:
        """1 / s(x), from what came out."""
        made = self.gain * self.moved(x)
        out = hidden if self.bias is None else hidden - self.bias
        return (made * out).sum(-1) / made.square().sum(-1).clamp(min=torch.finfo(x.dtype).tiny)

    def explains(self, x: Float[Tensor, "*n model"], hidden: Float[Tensor, "*n model"]) -> bool:
        """Whether hidden, in the model's own dtype, is what this norm makes of x."""
        x, out = wide(x), wide(hidden)
        made = self.gain * self.moved(x) * self.per_scale(x, out)[..., None]
        return _close(made if self.bias is None else made + self.bias, out, out, hidden.dtype)


@dataclass(frozen=True, eq=False)
class LayerInput:
    """How one layer of heads reads the residual stream, and what it read in a short pass.

    Attributes:
        attention: of that pass.
        norm: the module before q, k and v; None where there is none, or none that is linear up to
            one scale per token.
        linear: its linear part.
        x: what the norm was given.
        direct: whether the outputs of heads, and all else that is written before the next layer
            of heads, are added to x as they are; nothing is said of the last layer.
    """

    attention: Attention
    norm: nn.Module | None
    linear: Linear
    x: Float[Tensor, "token model"]
    direct: bool = True


@torch.no_grad()
def short_pass(model: HeadModel) -> tuple[list[Attended], list[Ran]]:
    """A pass over a few tokens: every layer of heads, and what every module made of what."""
    ran: list[Ran] = []
    seen: list[Attended] = []

    def keep(module: nn.Module, args: tuple[object, ...], out: object) -> None:
        first = args[0] if args else None
        if isinstance(first, Tensor) and isinstance(out, Tensor) and out is not first:
            ran.append((module, first.detach(), out.detach()))

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (1, _TOKENS), generator=generator)
    handles = [m.register_forward_hook(keep) for m in decoder_of(model.hf).modules()]
    try:
        with model.observed(seen.append):
            model.forward(ids.to(model.device))
    finally:
        for handle in handles:
            handle.remove()
    return seen, ran


@torch.no_grad()
def layer_inputs(model: HeadModel, outputs: bool = False) -> list[LayerInput]:
    """What every layer of heads reads, found in one short pass by values and not by names.

    Args:
        outputs: whether to find out too if outputs are added as they are; takes W_O.

    Raises:
        HeadscopeError: W_O is asked for and cannot be found.
    """
    weights = [model.weights(layer) for layer in model.layers] if outputs else []
    seen, ran = short_pass(model)
    found = [_input(attended.attention, ran) for attended in seen]
    if not outputs:
        return found
    return [
        LayerInput(at.attention, at.norm, at.linear, at.x, direct)
        for at, direct in zip(found, _direct(found, seen, weights, ran), strict=True)
    ]


def _input(attention: Attention, ran: list[Ran]) -> LayerInput:
    assert attention.hidden is not None
    hidden = attention.hidden.detach()
    for module, x, out in ran:
        if out.shape != hidden.shape or x.shape != hidden.shape or x.dtype != out.dtype:
            continue
        if torch.equal(out.to(hidden.device), hidden) and not torch.equal(x, out):
            linear = Linear.of(module, x)
            if linear.explains(x, out):
                return LayerInput(attention, module, linear, wide(x[0]))
    return LayerInput(attention, None, Linear.none(wide(hidden)), wide(hidden[0]))


def _direct(
    found: list[LayerInput],
    seen: list[Attended],
    weights: list[HeadWeights],
    ran: list[Ran],
) -> Iterator[bool]:
    """For each layer: is the rest of what came to x what a single module, such as an MLP, made?"""
    for at, after, attended, own in zip(found, found[1:], seen, weights, strict=False):
        written = torch.einsum("hnd,hdm->nm", wide(attended.z[0]), wide(own.W_O))
        written = written if own.b_O is None else written + own.b_O
        rest = after.x.to(at.x.device) - at.x - written
        made = (wide(out).reshape(-1, out.shape[-1]) for _, _, out in ran if out.ndim > 1)
        dtype = attended.z.dtype
        yield any(x.shape == rest.shape and _close(x.to(rest), rest, after.x, dtype) for x in made)
    yield True


def _close(a: Tensor, b: Tensor, size: Tensor, dtype: torch.dtype) -> bool:
    """Whether two agree token by token, as far as vectors of some size are rounded in a dtype."""
    most = 0.05 if dtype in (torch.float16, torch.bfloat16) else 1e-4
    allowed = most * size.abs().amax(-1).clamp(min=1e-6).to(b.device)
    return bool(((a - b).abs().amax(-1) <= allowed).all())
