import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from headscope.bench.baselines.base import Baseline, Runnable
from headscope.bench.baselines.block_masks import block_mask, compiled
from headscope.bench.baselines.sdpa import attend
from headscope.bench.case import Case
from headscope.patterns.full import Full
from headscope.patterns.streaming import Streaming


class TwoLaunch(Baseline):
    """What stock PyTorch does well: cuDNN on full heads, then FlexAttention on streaming ones.

    Streaming heads share one block mask. Heads of a kind are laid side by side beforehand, as
    DuoAttention (Xiao et al. 2024, arXiv 2410.10819) orders them when a model is loaded, and the
    two outputs stay apart.
    """

    name = "two_launch"
    compiles = True

    def why_not(self, case: Case) -> str | None:
        others = {rule for rule in case.rules if rule != Full()}
        if len(others) != 1 or not all(isinstance(x, Streaming) and not x.growth for x in others):
            return "it is for full heads beside heads of one streaming rule"
        kinds = {
            len({rule == Full() for rule in case.rules[kv : kv + case.group]})
            for kv in range(0, len(case.rules), case.group)
        }
        if kinds != {1}:
            return "full heads are no whole KV groups"
        return None if case.q.device.type == "cuda" else "it runs on GPUs"

    def ready(self, case: Case) -> Runnable:
        full, n = case.full, case.n
        streaming = [head for head in range(len(case.rules)) if head not in set(full)]
        rule = case.rules[streaming[0]]
        assert isinstance(rule, Streaming)
        mask, seconds = block_mask([rule], n, case.q.device)
        flex = compiled()
        dense, sparse = _some(case, full), _some(case, streaming)

        def call() -> tuple[Tensor | None, Tensor]:
            first = attend(SDPBackend.CUDNN_ATTENTION, *dense, True) if full else None
            second = flex(*sparse, block_mask=mask, scale=case.scale, enable_gqa=case.group > 1)
            return first, second

        def joined() -> Tensor:
            first, second = call()
            z = torch.empty_like(case.q)
            if first is not None:
                z[:, full] = first
            z[:, streaming] = second
            return z

        return Runnable(call, joined, seconds)


def _some(case: Case, heads: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of whole KV groups."""
    kv = list(dict.fromkeys(head // case.group for head in heads))
    return _cut(case.q, heads), _cut(case.k, kv), _cut(case.v, kv)


def _cut(x: Tensor, heads: list[int]) -> Tensor:
    if heads and heads[-1] - heads[0] + 1 == len(heads):
        return x[:, heads[0] : heads[-1] + 1]
    return x[:, heads]
