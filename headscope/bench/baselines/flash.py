from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.attention import SDPBackend

from headscope.bench.baselines.sdpa import _Sdpa


class Flash(_Sdpa):
    """The flash kernel that PyTorch brings along, behind scaled_dot_product_attention."""

    name = "flash"
    backend = SDPBackend.FLASH_ATTENTION

    def takes(self, asked: SDPAParams) -> bool:
        return can_use_flash_attention(asked, False)
