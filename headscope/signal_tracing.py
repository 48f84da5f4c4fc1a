"""Who wrote what a head's query and key were matched by: one pass, taken apart."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from headscope.attention import Attention
from headscope.blocks import wide, wide_dtype
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.norms import LayerInput, layer_inputs
from headscope.qk_maps import QKTerms, need_bilinear, qk_factors

_ELEMENTS = 2**24  # of what heads wrote that is held at once: 64 MiB of float32


@dataclass(frozen=True, eq=False)
class Firings:
    """Where the heads of one layer fired, and which vectors of the residual stream made it.

    Attributes:
        head: who fired.
        place: indices of the query and of the key.
        signal: logits by the terms of the signal, of the whole stream; more than 0.
        terms: how many these are.
        vector: for each side, what a vector that was written to the stream there gives to these
            logits by its product with it, the other side as it was.
    """

    head: Int[Tensor, " firing"]
    place: Int[Tensor, "side firing"]
    signal: Float[Tensor, " firing"]
    terms: Float[Tensor, " firing"]
    vector: Float[Tensor, "side firing model"]


@dataclass(frozen=True, eq=False)
class Traced:
    """Sums over the firings of one or more prompts; sides are query and key.

    Attributes:
        given: logits that each head wrote into the signals of each later head, by side.
        signal: logits of the signals of each head.
        terms: terms of the signals of each head.
        firings: how often each head fired.
    """

    given: Float[Tensor, "side layer head layer head"]
    signal: Float[Tensor, "layer head"]
    terms: Float[Tensor, "layer head"]
    firings: Float[Tensor, "layer head"]


def check_settings(who: str, share: float, attention: float) -> None:
    """Refuse a share or an attention that no signal is defined for."""
    if not (0 < share <= 1 and 0.5 <= attention < 1):
        raise HeadscopeError(
            f"{who} needs a share above 0 and up to 1 and an attention from 0.5 up and below 1, "
            f"not share={share}, attention={attention}."
        )


def need_signals(who: str, model: HeadModel) -> list[LayerInput]:
    """How every layer reads the residual stream; refuses a model whose signals cannot be traced.

    Args:
        who: asks, such as "the probe 'x'".

    Raises:
        HeadscopeError: positions are rotary, q and k or z are normalised or gated, or a layer
            reads or writes the residual stream otherwise than through one norm.
    """
    for found in model.backend.layers:
        if found.rotary is not None:
            raise HeadscopeError(
                f"{who} traces logits that are the same at every distance of query and key, and "
                f"layer {found.layer} of {model.name} has rotary positions (RoPE); use a model "
                "with learned positions, such as GPT-2 or OPT."
            )
    need_bilinear(who, model)
    for layer in model.layers:
        if model.weights(layer).output_gate:
            raise HeadscopeError(
                f"{who} traces what heads write, and layer {layer} of {model.name} gates or "
                "normalises z before W_O; use a model that does not."
            )
    inputs = layer_inputs(model, outputs=True)
    for at in inputs:
        if at.norm is None or not at.direct:
            raise HeadscopeError(
                f"{who} follows what heads write straight to the one norm before later heads, and "
                f"layer {at.attention.layer} of {model.name} has another norm or none in between; "
                "use a model that normalises inputs of layers alone, as GPT-2 does."
            )
    return inputs


@dataclass(frozen=True, eq=False)
class Tracer:
    """What is the same for all prompts: norms and QK maps of a model.

    Attributes:
        share: of a firing's logit, that its signal has to reach.
        attention: above which a key counts as attended to.
    """

    model: HeadModel
    inputs: list[LayerInput]
    share: float
    attention: float
    terms: list[QKTerms] = field(init=False)

    def __post_init__(self) -> None:
        dtype = wide_dtype(self.inputs[0].x)
        weights = [self.model.weights(at.attention.layer) for at in self.inputs]
        maps = [qk_factors(at, own) for at, own in zip(self.inputs, weights, strict=True)]
        object.__setattr__(self, "terms", [QKTerms.of(each, dtype) for each in maps])

    @torch.no_grad()
    def trace(self, token_ids: list[int]) -> Traced:
        """The firings of one prompt, and what earlier heads gave to each."""
        firings: list[Firings] = []
        outputs: list[Tensor] = []
        with _given([at.norm for at in self.inputs]) as given:

            def observe(attended: Attended) -> None:
                index = len(firings)
                firings.append(self._firings(index, attended.attention, wide(given[index][0])))
                outputs.append(attended.z[0])

            with self.model.observed(observe):
                self.model.forward(token_ids, last=1)
        return self._summed(firings, outputs)

    def _firings(self, index: int, attention: Attention, x: Float[Tensor, "n model"]) -> Firings:
        linear, terms = self.inputs[index].linear, self.terms[index]
        assert attention.hidden is not None
        inverse = linear.per_scale(x, wide(attention.hidden[0]))
        normal = linear.moved(x) * inverse[:, None]
        along = [terms.coordinates(normal, side) for side in (terms.u, terms.v)]
        head, query, key = _attended(attention, self.attention)
        each = along[0][head, query] * terms.sigma[head] * along[1][head, key]
        fires = each.sum(-1) > 0
        head, query, key, each = head[fires], query[fires], key[fires], each[fires]
        chosen = signal_terms(each, self.share)
        weighed = chosen * terms.sigma[head]
        rows = x.shape[-1]  # without that of the biases
        vectors = []
        for own, other, at, there in ((0, 1, query, key), (1, 0, key, query)):
            basis = (terms.u, terms.v)[own][:, :rows]
            factor = weighed * along[other][head, there] * inverse[at][:, None]
            vectors.append(_by_head(factor, basis, head))
        return Firings(
            head, torch.stack((query, key)), (each * chosen).sum(-1), chosen.sum(-1),
            torch.stack(vectors),
        )  # fmt: skip

    def _summed(self, firings: list[Firings], outputs: list[Tensor]) -> Traced:
        layers, heads = len(firings), self.model.n_heads
        device, dtype = firings[0].signal.device, firings[0].signal.dtype
        given = torch.zeros(2, layers, heads, layers, heads, device=device, dtype=dtype)
        for sender, z in enumerate(outputs[:-1]):
            own = wide(self.model.weights(self.model.layers[sender]).W_O)
            step = max(1, _ELEMENTS // (heads * own.shape[-1]))
            for start in range(0, z.shape[1], step):
                some = wide(z[:, start : start + step])
                written = einsum(some, own, "head n d, head d model -> head n model")
                for receiver in range(sender + 1, layers):
                    for side in range(2):
                        found = _received(written, start, firings[receiver], side, step)
                        given[side, sender, :, receiver] += found.to(given)

        def summed(of: Callable[[Firings], Tensor]) -> Tensor:
            by_layer = [_sums(of(each), each.head, heads).to(given) for each in firings]
            return torch.stack(by_layer)

        return Traced(
            given,
            summed(lambda each: each.signal),
            summed(lambda each: each.terms),
            summed(lambda each: torch.ones_like(each.signal)),
        )


def signal_terms(each: Float[Tensor, "firing rank"], share: float) -> Float[Tensor, "firing rank"]:
    """1 for the terms of the smallest set that reaches a share of each sum, 0 for others."""
    largest, order = each.sort(dim=-1, descending=True, stable=True)
    before = largest.cumsum(-1) - largest
    # Rounding must not ask for one more term where all are just enough.
    needed = before < share * each.sum(-1, keepdim=True) * (1 - torch.finfo(each.dtype).eps)
    # Behind the last positive term the sum falls, maybe below what it had reached.
    needed = needed.to(each.dtype).cumprod(-1) * (largest > 0)
    return torch.zeros_like(each).scatter(-1, order, needed)


def _attended(attention: Attention, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """(head, query, key) of all pairs above a weight, the first key left out."""
    found = []
    for part in attention.tiles():
        head, row, key = (part.probabilities[0] > least).nonzero(as_tuple=True)
        found.append(torch.stack((head, part.queries[row], key + part.keys.start)))
    head, query, key = torch.cat(found, 1)
    behind = key > 0
    return head[behind], query[behind], key[behind]


def _by_head(
    factor: Float[Tensor, "firing rank"],
    basis: Float[Tensor, "head model rank"],
    head: Int[Tensor, " firing"],
) -> Float[Tensor, "firing model"]:
    """Each firing's combination of the singular vectors of its own head."""
    made = factor.new_empty(len(factor), basis.shape[1])
    for own in head.unique().tolist():
        mine = head == own
        made[mine] = factor[mine] @ basis[own].T
    return made


def _received(
    written: Float[Tensor, "sender n model"], start: int, firings: Firings, side: int, step: int
) -> Float[Tensor, "sender head"]:
    """Logits that the heads of one layer gave at some places, to one side of a later layer."""
    heads = len(written)
    at = firings.place[side].to(written.device) - start
    here = ((at >= 0) & (at < written.shape[1])).nonzero()[:, 0]
    found = written.new_zeros(heads, heads)
    for some in here.split(step):
        vector = firings.vector[side][some.to(firings.vector.device)].to(written)
        logits = einsum(written[:, at[some]], vector, "s firing m, firing m -> s firing")
        found.index_add_(1, firings.head.to(written.device)[some], logits)
    return found


def _sums(values: Tensor, head: Int[Tensor, " firing"], heads: int) -> Tensor:
    return values.new_zeros(heads).index_add(0, head, values)


@contextmanager
def _given(norms: list[nn.Module | None]) -> Iterator[dict[int, Tensor]]:
    """What the norms are given in a pass that is made within, by their place in the list."""
    found: dict[int, Tensor] = {}

    def keep(index: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[index] = args[0].detach()

    handles = [
        norm.register_forward_pre_hook(partial(keep, index))
        for index, norm in enumerate(norms)
        if norm is not None
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
