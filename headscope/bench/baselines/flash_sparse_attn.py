import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from headscope.bench.baselines.base import Baseline, Runnable
from headscope.bench.case import Case
from headscope.patterns.full import Full
from headscope.patterns.streaming import Streaming

# What its projections import from a package that is on no registry; attention needs none of it.
_ABSENT = {
    "triton_kernels": (),
    "triton_kernels.matmul_ogs": ("matmul_ogs", "PrecisionConfig", "FlexCtx"),
    "triton_kernels.numerics": ("InFlexData", "OutFlexData"),
}


class FlashSparseAttn(Baseline):
    """flash-sparse-attn 2: one launch, a sink and a window for each KV head.

    Its exact kernel (`flash_dense_attn_func` with `window_sizes`), not the one that skips small
    weights. Of its four numbers for a KV head the sink and the near window are used.

    Source: the package flash-sparse-attn (BSD), version 2.0.6.
    """

    name = "flash_sparse_attn"

    def why_not(self, case: Case) -> str | None:
        if find_spec("flash_sparse_attn") is None:
            return "the package flash-sparse-attn is not installed"
        if case.q.device.type != "cuda":
            return "it runs on GPUs"
        if not all(rule == Full() or _plain(rule) for rule in case.rules):
            return "it knows full and streaming heads only"
        if any(len(set(group)) > 1 for group in _groups(case)):
            return "its windows are those of whole KV groups"
        try:
            _function()
        except Exception as error:  # whatever a package raises while it is imported
            return f"it cannot be imported ({type(error).__name__}: {error})"
        return None

    def ready(self, case: Case) -> Runnable:
        attend = _function()
        q, k, v = (x.transpose(1, 2).contiguous() for x in (case.q, case.k, case.v))
        sizes = [
            [0, 0, 0, case.n] if rule == Full() else [rule.sink, 0, 0, rule.window]
            for rule, *_ in _groups(case)
        ]
        windows = torch.tensor(sizes, dtype=torch.int32, device=q.device)

        def call() -> Tensor:
            return attend(q, k, v, is_causal=True, softmax_scale=case.scale, window_sizes=windows)

        return Runnable(call, lambda: call().transpose(1, 2))


def _plain(rule: Any) -> bool:
    return isinstance(rule, Streaming) and not rule.growth


def _groups(case: Case) -> list[tuple[Any, ...]]:
    """The rules of the query heads of each KV head."""
    step = case.group
    return [case.rules[kv : kv + step] for kv in range(0, len(case.rules), step)]


def _function() -> Callable[..., Tensor]:
    with _stand_ins():
        return import_module("flash_sparse_attn").flash_dense_attn_func


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Empty modules in the place of those that are not there, while it is imported."""
    missing = {} if find_spec("triton_kernels") else _ABSENT
    for name, contents in missing.items():
        module: Any = ModuleType(name)
        for content in contents:
            setattr(module, content, None)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)
