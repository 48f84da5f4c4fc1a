"""Which keys of a prompt are sinks, found once when the prompt is read."""

from collections.abc import Hashable

from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.errors import HeadscopeError


def sinks_in(attention: Attention, threshold: float) -> Bool[Tensor, "batch head key"]:
    """The keys of one pass whose mean attention, over the rows that see them, is above this."""
    return attention.column_means() > threshold


def hidden(found: Bool[Tensor, "batch head key"]) -> Bool[Tensor, "batch head key"]:
    """All sinks of a head but the first."""
    return found & (found.cumsum(-1) > 1)


def sinks_of(
    attention: Attention, threshold: float, owner: Hashable
) -> Bool[Tensor, "batch head key"]:
    """The keys whose mean attention from the rows of the first pass is above a threshold.

    The mean is over the rows that may see the key. Keys of later passes are no sinks; what was
    found is kept in the run's state, under its owner and layer. Of a prompt in chunks the first one
    decides.

    Raises:
        HeadscopeError: the sequence began before the owner's scope.

    Source: ACT (Yu et al. 2024, arXiv 2406.15765); Gu et al. 2024, arXiv 2410.10781.
    """
    assert attention.run is not None
    state = attention.run.state.setdefault(owner, {})
    found = state.get(attention.layer)
    if found is None:
        if attention.run.step > 0:
            raise HeadscopeError(
                f"{type(owner).__name__} finds sinks while the prompt is read, and this sequence "
                "began before its scope; open the scope first."
            )
        found = state[attention.layer] = sinks_in(attention, threshold)
    return pad(found, (0, attention.n_keys - found.shape[-1]))
