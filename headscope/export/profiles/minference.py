from dataclasses import dataclass

from headscope.export.profiles.templates import _Templates


@dataclass(frozen=True)
class Minference(_Templates):
    """MODEL_best_pattern.json of MInference.

    Streaming is `stream_llm`, vertical_slash is `vertical_and_slash`, and full is the latter with
    all columns and diagonals of `length` tokens. The fourth number of a head is a recall that its
    loader passes over; it is 0.0, as none was measured. Blocks have no size in these files: the
    loader takes 100 blocks of 64 whatever they say, so that rules of blocks are refused.

    Read in its code: n_local of stream_llm counts the query's own key, and the rule is exact.
    vertical_and_slash takes 30 columns and 50 diagonals at least, never more than there are tokens,
    the first 30 and the nearest 100 for sure, by the last 64 queries; each diagonal becomes a
    block of 64 keys for 64 queries. A missing head or layer has 1 000 columns and 6 096 diagonals.

    Source: MInference (Jiang et al. 2024, arXiv 2407.02490); minference/modules and csrc of
    microsoft/MInference at fb56c91.
    """

    expresses = (
        "streaming heads, full heads up to a length, and vertical_slash with last_q=64, sink=30, "
        "window=100, block=64"
    )
    loads = "MInference 0.1.6 (fb56c91, config_path=), transformers 4.46 and near it"
    loses = (
        "Only prompts are sparse, full heads beyond `length` tokens are not full, and the blocks "
        "of diagonals begin where the diagonal does instead of on a grid."
    )
    streams = True

    def columns(self, vertical: int) -> int:
        return max(vertical, 30)
