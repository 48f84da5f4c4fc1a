"""The fastest dense kernel that PyTorch has for heads that see everything."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

from headscope.kernels.choice import gpu

Dense = Literal["cudnn", "flash"]


def fastest(
    q: Float[Tensor, "batch head query d"],
    k: Float[Tensor, "batch kv_head key d"],
    v: Float[Tensor, "batch kv_head key d"],
) -> Dense:
    """cuDNN's kernel where it takes these tensors on a Hopper GPU or a later one, else flash.

    On an H100 cuDNN was 1.9 times as fast as PyTorch's flash kernel at 8 192 and 32 768 tokens
    (benchmarks/results/kernels_prefill.txt).
    """
    if gpu(q.device).major >= 9:
        asked = SDPAParams(q, k, v, None, 0.0, True, q.shape[1] != k.shape[1])
        if can_use_cudnn_attention(asked, False):
            return "cudnn"
    return "flash"


def causal(
    which: Dense,
    q: Float[Tensor, "batch head query d"],
    k: Float[Tensor, "batch kv_head query d"],
    v: Float[Tensor, "batch kv_head query d"],
    scale: float,
    with_lse: bool = True,
) -> tuple[Float[Tensor, "batch head query d"], Float[Tensor, "batch head query"] | None]:
    """(z, lse) of whole causal attention, as many queries as keys; None for an unwanted lse."""
    if which == "cudnn":
        z, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, with_lse, 0.0, True, False, scale=scale
        )
    else:
        z, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, True, scale=scale
        )
    return z, lse.reshape(q.shape[:3]) if with_lse else None
