"""Which weights make a head's q, k, v and output: found by following values, not names."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.backends.base import Backend
    from headscope.engines import Attended


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """Projections of one layer, per head, in TransformerLens' shapes.

    q = hidden @ W_Q[head] + b_Q[head] before rotation and before any norm; W_K and W_V likewise
    per kv_head; the layer adds sum over heads of z @ W_O[head], plus b_O.
    """

    W_Q: Float[Tensor, "head model d"]
    W_K: Float[Tensor, "kv_head model d"]
    W_V: Float[Tensor, "kv_head model dv"]
    W_O: Float[Tensor, "head dv model"]
    b_Q: Float[Tensor, "head d"] | None
    b_K: Float[Tensor, "kv_head d"] | None
    b_V: Float[Tensor, "kv_head dv"] | None
    b_O: Float[Tensor, " model"] | None
    qk_norm: bool  # q and k are normalised after the projection, so they are not linear in hidden
    output_gate: bool  # something stands between z and W_O, so the output is not linear in z

    def require_linear_output(self) -> None:
        """Refuse where z does not reach the residual stream through W_O alone."""
        if self.output_gate:
            raise HeadscopeError(
                "This model gates or normalises z before W_O, so that a head's share of the "
                "residual stream is no linear map of its z; this method does not apply."
            )


@dataclass(eq=False)
class _Linear:
    """A linear map that ran: its input, its output, and its weight as [in, out]."""

    module: nn.Module
    x: Tensor
    y: Tensor

    @property
    def weight(self) -> Float[Tensor, "input output"]:
        raw = getattr(self.module, "weight", None)
        for weight in () if raw is None else (raw, raw.mT if raw.ndim == 2 else raw):
            if self._is_weight(weight):
                return weight.detach()
        # Quantised, or with adapters: what it does to a basis is its weight.
        with torch.no_grad():
            basis = torch.eye(self.x.shape[-1], dtype=self.x.dtype, device=self.x.device)
            return self.module(basis) - self.module(torch.zeros_like(basis[:1]))

    @property
    def bias(self) -> Float[Tensor, " output"] | None:
        bias = getattr(self.module, "bias", None)
        return None if bias is None else bias.detach()

    def _is_weight(self, weight: Tensor | None) -> bool:
        if weight is None or weight.shape != (self.x.shape[-1], self.y.shape[-1]):
            return False
        if weight.dtype != self.x.dtype:
            return False
        y = self.x @ weight
        bias = getattr(self.module, "bias", None)
        return _close(y if bias is None else y + bias, self.y)


def trace_weights(backend: "Backend", index: int) -> HeadWeights:
    """Run a few tokens and see which linear maps made q, k and v, and which one reads z.

    Raises:
        HeadscopeError: no map, or no single one, fits; the message names the layer.
    """
    site = backend.sites[index]
    linears: list[_Linear] = []

    def keep(module: nn.Module, args: tuple, out: object) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
            linears.append(_Linear(module, args[0].detach()[0], out.detach()[0]))

    seen: list[Attended] = []

    def observe(attended: "Attended") -> None:
        if attended.attention.layer == site.layer:
            seen.append(attended)

    leaves = [m for m in site.module.modules() if not list(m.children())]
    handles = [leaf.register_forward_hook(keep) for leaf in leaves]
    generator = torch.Generator().manual_seed(0)
    vocab = backend.hf.config.get_text_config().vocab_size
    ids = torch.randint(vocab, (1, 16), generator=generator).to(backend.hf.device)
    try:
        with torch.no_grad(), backend.observed(observe):
            backend.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    finally:
        for handle in handles:
            handle.remove()
    attention, z = seen[0].attention, seen[0].z.detach()[0]
    where = f"{type(backend.hf).__name__}, layer {site.layer}"
    q, k = _unrotated(attention)
    hidden = attention.hidden
    assert hidden is not None
    inputs = [a for a in linears if a.x.shape == hidden[0].shape and _close(a.x, hidden[0])]
    W_V, b_V, _ = _project(inputs, attention.v[0], f"{where}: W_V")
    W_Q, b_Q, q_norm = _project(inputs, q, f"{where}: W_Q")
    W_K, b_K, k_norm = _project(inputs, k, f"{where}: W_K")
    flat = rearrange(z, "head token d -> token (head d)")
    readers = [a for a in linears if a.x.shape == flat.shape and a not in inputs]
    exact = [a for a in readers if _close(a.x, flat)]
    if not readers:
        raise HeadscopeError(f"{where}: no linear map reads z, so there is no W_O.")
    output = (exact or readers)[-1]
    W_O = rearrange(output.weight, "(head d) model -> head d model", head=z.shape[0])
    return HeadWeights(
        W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, output.bias, q_norm or k_norm, not exact
    )  # fmt: skip


def _unrotated(attention: "Attention") -> tuple[Tensor, Tensor]:
    rope = attention.rope
    if rope is None:
        return attention.q[0], attention.k[0]
    q = rope.unrotate(attention.q, attention.query_positions)
    return q[0], rope.unrotate(attention.k, attention.key_positions)[0]


def _project(
    linears: list[_Linear], target: Float[Tensor, "head token d"], what: str
) -> tuple[Tensor, Tensor | None, bool]:
    """The map whose outputs are the target: (weight per head, bias per head, normalised after)."""
    heads, _, d = target.shape
    for linear in linears:
        found = _columns(linear.y, target)
        if found is not None:
            return (*_per_head(linear, *found, heads), False)
    for linear in linears:
        for start in range(0, linear.y.shape[1] - heads * d + 1, heads * d):
            block = torch.arange(start, start + heads * d)
            if _proportional(linear.y[:, block].unflatten(1, (heads, d)), target):
                return (*_per_head(linear, block, 1.0, heads), True)
    raise HeadscopeError(f"{what} was not found among the linear maps of the layer.")


def _per_head(
    linear: _Linear, outputs: Int[Tensor, " output"], scale: float, heads: int
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of some outputs of a map, per head; views where the layout allows."""
    first, last = int(outputs[0]), int(outputs[-1])
    run = torch.arange(first, first + len(outputs), device=outputs.device)
    chosen = slice(first, last + 1) if torch.equal(outputs, run) else outputs
    weight, bias = linear.weight[:, chosen], linear.bias
    bias = None if bias is None else bias[chosen]
    if scale != 1:
        weight, bias = weight * scale, None if bias is None else bias * scale
    weight = rearrange(weight, "model (head d) -> head model d", head=heads)
    return weight, None if bias is None else rearrange(bias, "(head d) -> head d", head=heads)


def _columns(
    y: Float[Tensor, "token output"], target: Float[Tensor, "head token d"]
) -> tuple[Int[Tensor, " head_d"], float] | None:
    """Which output holds each entry of each head, and the one factor between the two."""
    tolerance = _tolerance(y)
    y, target = y.float(), target.float()
    # Outputs that stand one after the other are taken so: equal ones, or empty ones of a head that
    # was taken out, cannot be told apart by what they hold.
    flat = rearrange(target, "head token d -> token (head d)")
    for start in range(0, y.shape[1] - flat.shape[1] + 1, target.shape[2]):
        run = y[:, start : start + flat.shape[1]]
        scale = float((run * flat).sum() / run.square().sum().clamp(min=1e-30))
        if _close(run * scale, flat, tolerance):
            columns = torch.arange(start, start + flat.shape[1], device=y.device)
            return columns, 1.0 if abs(scale - 1) < tolerance else scale
    unit = torch.nn.functional.normalize(y, dim=0)
    best = [(torch.nn.functional.normalize(head, dim=0).T @ unit).max(1) for head in target]
    columns = torch.cat([match.indices for match in best])
    if len(columns.unique()) < len(columns):
        return None
    found = rearrange(y[:, columns], "token (head d) -> head token d", head=len(target))
    scale = float((found * target).sum() / found.square().sum())
    scale = 1.0 if abs(scale - 1) < tolerance else scale
    return (columns, scale) if _close(found * scale, target, tolerance) else None


def _proportional(y: Float[Tensor, "token head d"], target: Float[Tensor, "head token d"]) -> bool:
    """Whether the target is y times one factor per token and head, times one per entry."""
    tolerance = _tolerance(y)
    ratio = target.float() / rearrange(y.float(), "token head d -> head token d")
    # A rank-one matrix is known from one row and one column; start where rounding matters least.
    pivot = y.float().abs().amin(0).argmax(-1)
    column = ratio.gather(2, pivot[:, None, None].expand(-1, ratio.shape[1], 1))
    outer = column * (ratio / column).median(1, keepdim=True).values
    return _close(ratio / outer, torch.ones_like(ratio), 100 * tolerance)


def _tolerance(x: Tensor) -> float:
    return 1e-4 if x.dtype in (torch.float32, torch.float64) else 0.05


def _close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    if a.shape != b.shape:
        return False
    tolerance = _tolerance(b) if tolerance is None else tolerance
    a, b = a.float(), b.float()
    return bool((a - b).abs().amax() <= tolerance * b.abs().amax().clamp(min=1e-6))
