from torch.backends.cuda import SDPAParams, can_use_cudnn_attention
from torch.nn.attention import SDPBackend

from headscope.bench.baselines.sdpa import _Sdpa


class Cudnn(_Sdpa):
    """cuDNN's kernel behind PyTorch's scaled_dot_product_attention."""

    name = "cudnn"
    backend = SDPBackend.CUDNN_ATTENTION

    def takes(self, asked: SDPAParams) -> bool:
        return can_use_cudnn_attention(asked, False)
