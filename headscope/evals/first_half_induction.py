from dataclasses import dataclass, field

from headscope.evals.induction import Half, Induction


@dataclass(frozen=True)
class FirstHalfInduction(Induction):
    """Nats of a block of random tokens said for the first time: what `induction` is held against.

    The tokens are those that `induction` scores in the second copy, here in the first, where there
    is nothing to copy from: about the logarithm of the vocabulary's size, whatever heads do. At
    the default lengths the blocks are the same.

    Source: a control of headscope's own for Olsson et al. 2022, arXiv 2209.11895.

    Attributes:
        half: as in `induction`.
    """

    in_prompt = False
    lengths: tuple[int, ...] = field(default=(65,), kw_only=True)
    half: Half = field(default="first", kw_only=True)
