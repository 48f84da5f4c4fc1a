from headscope.bench.baselines.base import Baseline, Runnable
from headscope.bench.baselines.block_masks import block_mask, compiled
from headscope.bench.case import Case


class Flex(Baseline):
    """PyTorch's FlexAttention, compiled, with a block mask of each head's own rule.

    The mask inside of blocks is the alternative of all rules of the layer, each for its heads.

    Source: Dong et al. 2024, "FlexAttention", arXiv 2412.05496.
    """

    name = "flex"
    compiles = True

    def why_not(self, case: Case) -> str | None:
        if case.patterns is None:
            return "some rule chooses keys by content, and block masks are made from positions"
        return None if case.q.device.type == "cuda" else "it is compiled for GPUs"

    def ready(self, case: Case) -> Runnable:
        assert case.patterns is not None
        mask, seconds = block_mask(case.patterns, case.n, case.q.device)
        flex = compiled()

        def call():
            return flex(
                case.q, case.k, case.v, block_mask=mask, scale=case.scale, enable_gqa=case.group > 1
            )

        return Runnable(call, call, seconds)
