"""Which heads of a map a score speaks for least."""

from typing import TYPE_CHECKING, Literal

from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions.kv_heads import from_the_bottom, ranked_kv_heads

if TYPE_CHECKING:
    from headscope.headmap import HeadMap


def least_spoken_for(
    head_map: "HeadMap", score: str, share: float, by: Literal["kv_head", "head"], seed: int = 0
) -> list[Head]:
    """The query heads that come first when heads are ranked from the bottom.

    Args:
        share: of all heads, rounded to whole ones.
        by: "kv_head" ranks whole groups, "head" query heads one by one.
        seed: of the order among heads that score the same.

    Raises:
        HeadscopeError: the share is none, or the map has no such score.
    """
    if not 0 <= share <= 1:
        raise HeadscopeError(f"A share of heads lies between 0 and 1, not {share}.")
    if by == "kv_head":
        ranked = ranked_kv_heads(head_map, score, seed)
        group = head_map.n_heads // head_map.n_kv_heads
        chosen = ranked[: round(share * len(ranked))]
        heads = [(layer, kv * group + one) for layer, kv in chosen for one in range(group)]
        return sorted(heads)
    values = head_map[head_map.score_of(score)].mean().ravel()
    order = from_the_bottom(head_map, score, values, seed)
    every = head_map.heads()
    return sorted(every[place] for place in order[: round(share * len(every))])
