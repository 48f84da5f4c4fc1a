"""What both of PyTorch's dense kernels share."""

from abc import abstractmethod
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headscope.bench.baselines.base import Baseline, Runnable
from headscope.bench.case import Case


def attend(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention by one backend and no other; grouped heads are not expanded."""
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )


class _Sdpa(Baseline):
    """scaled_dot_product_attention on one backend, every pair of tokens."""

    dense = True
    backend: ClassVar[SDPBackend]

    @abstractmethod
    def takes(self, asked: SDPAParams) -> bool:
        """Whether the backend has a kernel for some tensors."""

    def why_not(self, case: Case) -> str | None:
        return self.why_not_these(case.q, case.k, case.v, causal=True)

    def why_not_these(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> str | None:
        """The same for given tensors."""
        if q.device.type != "cuda":
            return "it runs on GPUs"
        asked = SDPAParams(q, k, v, None, 0.0, causal, q.shape[1] != k.shape[1])
        what = f"{q.shape[1]} on {k.shape[1]} heads of {q.shape[3]}"
        dtype = str(q.dtype).removeprefix("torch.")
        return (
            None
            if self.takes(asked)
            else f"PyTorch {torch.__version__} has none for {what} in {dtype}"
        )

    def ready(self, case: Case) -> Runnable:
        return Runnable(partial(attend, self.backend, case.q, case.k, case.v, True))
