"""Engines: what finally computes z. A middleware may call one any number of times."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from headscope.attention import Attention
from headscope.blocks import blocks, columns, inside, recomputed
from headscope.edits import Restriction
from headscope.errors import HeadscopeError
from headscope.kernels import dense as whole
from headscope.kernels.attending import by_one_pattern
from headscope.merge import merge, with_sink
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

# cuDNN takes 65 ms for its plan of a length that it meets for the first time, on an H100, and then
# half of the flash kernel's time: 12 ms of a layer less at this length, 0.8 at a quarter of it.
_LONG = 32768


@dataclass(frozen=True, eq=False)
class Attended:
    """A finished attention: z per head, and the `Attention` that was really run."""

    z: Float[Tensor, "batch head query dv"]
    attention: Attention
    merged_lse: Float[Tensor, "batch head query"] | None = None  # where z joins several calls

    @property
    def lse(self) -> Float[Tensor, "batch head query"]:
        """Log-sum-exp of each row: free where the engine had it, streamed where it had not."""
        return self.attention.lse() if self.merged_lse is None else self.merged_lse

    def with_z(self, z: Float[Tensor, "batch head query dv"]) -> "Attended":
        """The same attention with an edited output."""
        if z.shape != self.z.shape:
            raise HeadscopeError(
                f"Layer {self.attention.layer}: z has the shape {tuple(self.z.shape)}; a tensor "
                f"of shape {tuple(z.shape)} cannot take its place."
            )
        return replace(self, z=z.to(self.z.dtype))


Engine = Callable[[Attention], Attended]


def attend_apart(
    attend: Callable[[Attention], Attended], attention: Attention, *parts: Attention
) -> Attended:
    """Attend to disjoint sets of keys in separate calls, and join the results.

    Args:
        attend: what a middleware was given.
        attention: the whole, which the result stands for.
        parts: changed copies of it; no key may be visible in two of them.
    """
    # The learned sink would otherwise take its share in every part.
    done = [attend(replace(part, sink_logits=None)) for part in parts]
    joined = merge(*((part.z, part.lse) for part in done))
    z, lse = with_sink(*joined, attention.sink_logits)
    return Attended(z, attention, lse)


def dense(attention: Attention) -> Attended:
    """Exact attention on the fastest kernel that PyTorch has for the case.

    Plain causal, chunked and single-query attention run without any mask; what all heads see by one
    pattern runs on headscope's kernels where there is a GPU; padding, windows and other edits run
    in blocks of rows; soft-capping and gradients into an edit run on the definition.
    """
    if attention.softcap is not None or any(_trained(edit.amount) for edit in attention.edits):
        z, lse = attention.z_and_lse()
        return Attended(z, replace(attention, known_lse=lse))
    z, lse = _unmasked(attention) or by_one_pattern(attention) or _masked(attention)
    if attention.sink_logits is not None:
        if lse is None:
            z, lse = attention.z_and_lse()
        else:
            z, lse = with_sink(z, lse, attention.sink_logits)
    return Attended(z, replace(attention, known_lse=lse))


def _unmasked(attention: Attention) -> tuple[Tensor, Tensor | None] | None:
    """(z, lse) where no mask is needed, None where one is; lse is None if the kernel hides it."""
    slots = attention.slots
    plain = not attention.edits and attention.mask is None and attention.chunk is None
    if slots is None or slots.padded or not plain or attention.n_queries == 0:
        return None
    q, k, v = attention.q, attention.k, attention.v
    ahead = slots.first_query - slots.first_key
    stop = ahead + attention.n_queries
    if ahead < 0 or stop > attention.n_keys:
        return None
    if attention.window is not None and stop > attention.window:
        return None
    k, v = k[:, :, :stop], v[:, :, :stop]
    if ahead == 0:
        return _kernel(q, k, v, attention.scale, causal=True)
    if attention.n_queries == 1:
        return _kernel(q, k, v, attention.scale)
    past = _kernel(q, k[:, :, :ahead], v[:, :, :ahead], attention.scale)
    present = _kernel(q, k[:, :, ahead:], v[:, :, ahead:], attention.scale, causal=True)
    if past[1] is None or present[1] is None:
        return None
    return merge((past[0], past[1]), (present[0], present[1]))


def _masked(attention: Attention) -> tuple[Tensor, Tensor | None]:
    """(z, lse) in blocks of rows, each with a mask that holds visibility and edits.

    Masks are made again in a backward pass: kept, they would add up to a square of tokens.
    """
    if attention.n_queries == 0:
        return attention.z_and_lse()
    zs, lses = [], []
    pattern = _pattern_of_all(attention)
    for rows, keys in blocks(attention, local=pattern is not None):
        if keys.start == keys.stop:  # the CPU kernel does not survive an empty set of keys
            keys = slice(0, 1)
        seen = keys if pattern is None else _keys_inside(attention, pattern, rows, keys)
        z, lse = recomputed(attention, lambda r, k: _block(attention, r, k), rows, seen)
        zs.append(z)
        lses.append(lse)
    return torch.cat(zs, 2), None if lses[0] is None else torch.cat(lses, 2)


def _pattern_of_all(attention: Attention) -> Pattern | Selection | None:
    """A pattern outside of which no head sees anything."""
    for edit in attention.edits:
        if isinstance(edit, Restriction) and edit.everywhere:
            return edit.pattern
    return None


def _keys_inside(
    attention: Attention, pattern: Pattern | Selection, rows: Tensor, keys: slice
) -> slice | Tensor:
    """The keys of a slice that a pattern lets some of the rows see."""
    parts = inside(attention, pattern, rows, keys) or [slice(keys.start, keys.start + 1)]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([columns(part, rows) for part in parts])


def _block(
    attention: Attention, rows: Tensor, keys: slice | Tensor
) -> tuple[Tensor, Tensor | None]:
    index = columns(keys, rows)
    seen = attention.visible_at(rows[:, None], index[None, :])
    bias = torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, -torch.inf)
    for edit in attention.edits:
        bias = bias + edit.logits(attention, rows[:, None], index[None, :])
    blind = (bias == -torch.inf).all(-1)
    # A row of -inf would be NaN on some kernels and silent on others.
    bias = bias.masked_fill(blind[..., None], 0)
    z, lse = _kernel(
        attention.q[:, :, rows],
        attention.k[:, :, keys],
        attention.v[:, :, keys],
        attention.scale,
        bias=bias,
    )
    z = z.masked_fill(blind[..., None], 0)
    return z, None if lse is None else lse.masked_fill(blind, -torch.inf)


def _kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: bool = False,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    same_width = q.shape[-1] == v.shape[-1]
    if q.device.type == "cpu" and same_width:
        z, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=None if bias is None else bias.to(q.dtype), scale=scale
        )
        # Its backward pass differentiates z alone.
        return z, None if _differentiated(q, k) else lse
    if q.device.type == "cuda" and same_width and q.dtype != torch.float64:
        odd = q.shape[-1] % 8
        if odd:  # these kernels take widths that are multiples of 8; zeros change no product
            q, k, wider = (pad(x, (0, 8 - odd)) for x in (q, k, v))
            z, lse = _kernel(q, k, wider, scale, causal, bias)
            return z[..., : v.shape[-1]], lse
        half = q.dtype in (torch.float16, torch.bfloat16)
        if half and bias is None and q.shape[-1] <= 256:
            if causal and q.shape[2] >= _LONG and not _differentiated(q, k, v):
                return whole.causal(whole.fastest(q, k, v), q, k, v, scale)
            z, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
                q, k, v, 0.0, causal, scale=scale
            )
        else:
            z, lse = _efficient(q, k, v, scale, causal, bias)
        return z, None if _differentiated(q, k) else lse
    mask = None if bias is None else bias.to(q.dtype)
    z = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True
    )
    return z, None


def _efficient(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The memory-efficient kernel, which takes float32 and biases but knows no grouped heads.

    Groups become batch rows, over which keys and values are expanded without a copy.
    """
    group = q.shape[1] // k.shape[1]
    grouped = rearrange(q, "b (k g) q d -> (b k) g q d", g=group)
    k, v = (rearrange(x, "b k j d -> (b k) 1 j d").expand(-1, group, -1, -1) for x in (k, v))
    if bias is not None:
        if bias.shape[:2] != (1, 1):
            bias = bias.expand(len(q), q.shape[1], *bias.shape[2:])
            bias = rearrange(bias, "b (k g) q j -> (b k) g q j", g=group)
        # The kernel reads rows of a bias from addresses that are multiples of 16 bytes. Expanded
        # last, so that what all rows and heads share stays small and nothing is copied unpadded.
        bias = pad(bias.to(q.dtype), (0, -bias.shape[-1] % 16))[..., : bias.shape[-1]]
        bias = bias.expand(len(grouped), group, *bias.shape[2:])
    z, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        grouped, k, v, bias, True, 0.0, causal, scale=scale
    )
    z = rearrange(z, "(b k) g q d -> b (k g) q d", b=len(q))
    return z, rearrange(lse[..., : q.shape[2]], "(b k) g q -> b (k g) q", b=len(q))


def _differentiated(*tensors: Tensor) -> bool:
    """Whether a gradient will be asked for: of a log-sum-exp these kernels give none."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _trained(amount: Tensor | None) -> bool:
    return amount is not None and amount.requires_grad and torch.is_grad_enabled()
