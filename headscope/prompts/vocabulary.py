"""Common short words, in thirds that share none."""

from headscope.prompts.base import SPLITS, Split

_COMMON = tuple(
    """
    apple river stone window garden music paper silver winter summer bread cloud forest mountain
    island bridge castle village letter dinner doctor farmer teacher soldier captain sister brother
    dragon tiger rabbit monkey horse chicken spider fish eagle lion wolf bear mouse camera
    table chair bottle glass knife spoon plate carpet curtain ladder engine wheel train ship plane
    rocket planet star moon desert ocean beach valley storm thunder rain snow fire smoke gold iron
    copper diamond cotton leather plastic sugar coffee butter cheese lemon orange banana cherry
    potato carrot onion pepper honey chocolate milk flower tree grass leaf root seed branch hat
    shirt jacket shoe button pocket mirror clock bell drum guitar piano violin pencil book
    """.split()
)


def common_words(split: Split) -> tuple[str, ...]:
    """A third of the words; no two splits share one."""
    return _COMMON[SPLITS.index(split) :: len(SPLITS)]
