from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Item
from headscope.evals.drawing import check_count
from headscope.evals.perplexity import Perplexity


@dataclass(frozen=True)
class StreamingPerplexity(Perplexity):
    """How well a model foretells long running text that it reads in chunks behind its cache.

    As `perplexity`, on the same texts, but with what a cache does to later tokens in it, and as a
    curve: the counted tokens are cut into `buckets` runs of equal length by position. A cache that
    drops what the model leans on shows as a curve that falls where it begins to drop.

    Source: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks" (arXiv
    2309.17453), who read PG-19 token by token; text, chunks and buckets are headscope's own choice.

    Attributes:
        given: tokens at the start that are not counted.
        chunk: tokens that go through the model at a time.
        buckets: runs of the curve.
    """

    source = "StreamingLLM, Xiao et al. 2023, arXiv 2309.17453"
    licence = "MIT; the text is the public-domain Jargon File"
    lengths: tuple[int, ...] = field(default=(1024,), kw_only=True)
    chunk: int = field(default=64, kw_only=True)
    buckets: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "tokens of a chunk", self.chunk, 1, 10**6)
        shortest = min(self.lengths, default=0) - self.given
        check_count(self, "buckets", self.buckets, 1, max(1, shortest))

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        return replace(super().item(index, tokenizer), chunk=self.chunk, buckets=self.buckets)
