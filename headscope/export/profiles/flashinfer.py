from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.export.profiles.base import each
from headscope.export.profiles.blocks import check_blocks, covered
from headscope.export.profiles.tensors import Opened, _Tensors
from headscope.patterns.base import Pattern
from headscope.sparsity.kv_view import kv_rules
from headscope.sparsity.profile import SparseProfile


@dataclass(frozen=True)
class Flashinfer(_Tensors):
    """Block masks of FlashInfer's VariableBlockSparseAttentionWrapper, per KV head, for one length.

    Of each different rule `block_mask_map` [row block, column block]: every block of which some
    pair is seen. `block_sizes` are the tokens of the row blocks and of the column blocks.
    `plan_arguments(path, layer)` gives what `plan` takes.

    Read in its code (fb28d72): a row block attends to the tokens of its chosen column blocks, put
    one behind the other, and causal=True hides from each row what lies beyond it counted from the
    end of that list. This is causal in the text only if the last chosen block is the row block's
    own and as long as it: both partitions are the same here, and a rule that hides the row block's
    own tokens is refused. causal=False would show a row later tokens of its own block.

    Source: FlashInfer (Ye et al. 2025, arXiv 2501.01005); flashinfer/sparse.py.
    """

    paper = "Ye et al. 2025, arXiv 2501.01005"
    granularity = "KV head"
    loads = (
        "FlashInfer (fb28d72, 2026-08) VariableBlockSparseAttentionWrapper.plan(..., causal=True)"
    )
    loses = (
        "Whole blocks are seen, so that windows and sinks widen to their borders; one length, no "
        "decoding, and token indices of 4 bytes for every pair of a row block and a key."
    )

    entry = 1

    def check(self, profile: SparseProfile) -> None:
        super().check(profile)
        kv_rules(profile, self.name)
        length = check_blocks(self.name, self.length, self.block)
        for head, rule in {rule: (head, rule) for head, rule in each(profile)}.values():
            assert isinstance(rule, Pattern)
            if not bool(covered(rule, length, self.block)[0].diagonal().all()):
                do = "in some block of rows it hides their own block, which causal=True needs last."
                raise self._refusal(head, rule, do)

    def blocks(self, rule: Pattern, length: int) -> Mapping[str, Tensor]:
        count = -(-length // self.block)
        sizes = torch.full((count,), self.block, dtype=torch.int32)
        sizes[-1] = length - (count - 1) * self.block
        return {
            "block_mask_map": covered(rule, length, self.block)[0].clone(),
            "block_sizes": sizes,
        }

    def told(self, profile: SparseProfile) -> str:
        length = check_blocks(self.name, self.length, self.block)
        causal = length * (length + 1) / 2
        pairs = [_pairs(rule, length, self.block) / causal for _, rule in each(profile)]
        return (
            f"for texts of {length} tokens, with causal=True; blocks of {self.block} see "
            f"{sum(pairs) / len(pairs):.1%} of the pairs, the rules {profile.density(length):.1%}"
        )


def _pairs(rule: Any, length: int, block: int) -> int:
    """Pairs of tokens that the kernel computes and causality leaves."""
    touched = covered(rule, length, block)[0]
    count = len(touched)
    size = torch.full((count,), block)
    size[-1] = length - (count - 1) * block
    own = (size * (size + 1) // 2).sum()
    return int((touched.tril(-1) * size[:, None] * size[None]).sum() + own)


def plan_arguments(file: str | Path | Opened, layer: int, n_kv_heads: int) -> dict[str, Any]:
    """What `VariableBlockSparseAttentionWrapper.plan` takes for one layer, but for head_dim.

    Args:
        file: what `flashinfer` wrote, or `Flashinfer().open(path)` for several layers.
        n_kv_heads: of the model.

    Returns:
        block_mask_map [kv_head, row, column], block_row_sz and block_col_sz [kv_head, block],
        num_qo_heads, num_kv_heads and causal, on the CPU.

    Raises:
        HeadscopeError: the file is damaged or another's, has no such layer, or its heads do not
            divide into the KV heads.
    """
    opened = file if isinstance(file, Opened) else Flashinfer().open(file)
    numbers = opened.of_layer(layer)
    group, rest = divmod(len(numbers), n_kv_heads)
    if rest or any(len(set(numbers[i : i + group])) > 1 for i in range(0, len(numbers), group)):
        raise HeadscopeError(
            f"The {len(numbers)} query heads of the file are not {n_kv_heads} groups of one rule "
            "each; give the KV heads of its model."
        )
    sizes = opened.stacked(numbers[::group], "block_sizes")
    return {
        "block_mask_map": opened.stacked(numbers[::group], "block_mask_map"),
        "block_row_sz": sizes,
        "block_col_sz": sizes,
        "num_qo_heads": len(numbers),
        "num_kv_heads": n_kv_heads,
        "causal": True,
    }
