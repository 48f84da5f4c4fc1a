"""When a prompt has been read, for methods that compress a cache then."""

from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention


def ends_prompt(attention: Attention) -> Bool[Tensor, " batch"]:
    """Which sequences have the last token of their prompt in this pass.

    Where nobody said how long the prompt is, it is the first pass.
    """
    run, at = attention.run, attention.query_positions
    assert run is not None
    if run.prompt_length is None:
        return (at >= 0).any(1) & (run.phase == "prefill")
    return (at == run.prompt_length.to(at.device)[:, None] - 1).any(1)
