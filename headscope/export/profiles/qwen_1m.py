from dataclasses import dataclass

from headscope.export.profiles.templates import _Templates
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.sparsity.profile import SparseProfile

_ODD, _READ_AS = 30, 130  # columns, as they are written and as the engines take them


@dataclass(frozen=True)
class Qwen_1m(_Templates):  # so that its name is qwen_1m
    """sparse_attention_config.json beside the checkpoints of Qwen2.5-1M: a legacy of two engines.

    As MInference's file, but only vertical_and_slash: the engines stop at any other template.

    Read in the code of SGLang 0.5.10.post1: 30 columns are taken as 130, and 30 is therefore
    refused here and read as 130; the first 30 columns and the nearest 100 diagonals are there for
    sure, by the last 64 queries; prompts of up to 32 768 tokens (`sparse_attention_threshold`) are
    dense; heads are cut by rank, so that every head has to be in the file. vLLM's copy of the code
    was not read.

    Source: dual_chunk_flashattention_backend.py of SGLang 0.5.10.post1; Qwen2.5-1M (Yang et al.
    2025, arXiv 2501.15383); MInference (Jiang et al. 2024, arXiv 2407.02490).
    """

    paper = "Jiang et al. 2024, arXiv 2407.02490; Yang et al. 2025, arXiv 2501.15383"
    expresses = (
        "full heads up to a length, and vertical_slash with last_q=64, sink=30, window=100, "
        "block=64, but not with vertical=30"
    )
    loads = "vLLM up to 0.10 (V0 engine) and SGLang up to 0.5.10.post1; newer ones do not"
    loses = (
        "Only prompts above 32,768 tokens are sparse, full heads beyond `length` tokens are not "
        "full, and the dual chunks of the engine part diagonals."
    )
    streams = False

    def told(self, profile: SparseProfile) -> str:
        return (
            "name the file sparse_attention_config.json, beside the checkpoint; the engine needs "
            "dual_chunk_attention_config in config.json"
        )

    def _check_lines(self, head: tuple[int, int], rule: VerticalSlash) -> None:
        super()._check_lines(head, rule)
        if rule.vertical == _ODD:
            do = f"the engines take {_ODD} columns as {_READ_AS}; give it {_ODD + 1} or more."
            raise self._refusal(head, rule, do)

    def columns(self, vertical: int) -> int:
        return _READ_AS if vertical == _ODD else max(vertical, _ODD)
