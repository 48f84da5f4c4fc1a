"""Heads that score alike, found without any rule."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.heads import label

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.viz.chart import Chart

_VARIANCE = 0.95  # that the components in which heads are clustered have to hold
_MOST = 10  # clusters that are tried
_JUDGED = 2000  # heads by which a silhouette is judged; its cost grows with their square
_STRONGEST = 4
_STARTS: Any = 10  # scikit-learn's own annotation says str


@dataclass(frozen=True, eq=False)
class Clusters:
    """Heads grouped by their standardised scores.

    Scores are centred and divided by their deviation over heads, PCA keeps the components that
    hold 95 % of the variance, and k-means groups heads there. A probe that gives several scores
    weighs as much as they do together: a grouping describes the chosen probes too.

    Attributes:
        k: how many clusters; numbered by size, the largest first.
        silhouette: mean over heads, in [-1, 1]; near 0 where clusters run into each other.
        tried: k and silhouette of every number of clusters that was tried.
        table: a row a head: layer, head, kv_head, name, cluster, pc1, pc2.
        described: a row a cluster: cluster, heads (how many), strongest (scores of greatest mean z,
            of either sign, and that mean), examples (the heads nearest its centre).
        z: mean z of every score in every cluster, [cluster, score].
        explained: share of the variance that each component holds.
        constant: scores that are equal on all heads, and were left out.
    """

    model: str
    k: int
    silhouette: float
    tried: pd.DataFrame
    table: pd.DataFrame
    described: pd.DataFrame
    z: pd.DataFrame
    explained: tuple[float, ...]
    constant: tuple[str, ...]

    def __str__(self) -> str:
        from headscope import printed

        return printed.as_text(printed.clusters(self))

    def chart(self) -> "Chart":
        """All heads in the plane of the two main components.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import clusters

        return clusters(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import clusters_repr

        return clusters_repr(self)


def cluster(head_map: "HeadMap", k: int | None = None) -> Clusters:
    """Group the heads of a map, with its own seed.

    Args:
        k: how many clusters; by default that of the best silhouette, from 2 to 10.

    Raises:
        HeadscopeError: fewer than two scores or three heads differ, or k does not fit.
    """
    from sklearn.decomposition import PCA

    names = np.array(list(head_map.scores))
    means = np.stack([score.mean().ravel() for score in head_map.scores.values()], 1)
    varying = np.ptp(means, axis=0) > 0
    z = means[:, varying] - means[:, varying].mean(0)
    z /= z.std(0)
    different = len(np.unique(z, axis=0))
    if varying.sum() < 2 or different < 3:
        raise HeadscopeError(
            f"Clusters need two scores and three heads that differ, and there are {varying.sum()} "
            f"such scores and {different} such heads; scan with more probes."
        )
    seed = head_map.info.seed
    pca = PCA(random_state=seed)
    placed = pca.fit_transform(z)
    placed = placed * _signs(np.asarray(pca.components_))
    kept = int(np.searchsorted(pca.explained_variance_ratio_.cumsum(), _VARIANCE)) + 1
    space = placed[:, : max(2, kept)]
    most = len(np.unique(space.round(9), axis=0)) - 1
    if k is not None and not 2 <= k <= most:
        raise HeadscopeError(f"k is a number of clusters from 2 to {most} here, not {k}.")
    numbers = [k] if k is not None else range(2, min(_MOST, most) + 1)
    tried = {number: _grouped(space, number, seed) for number in numbers}
    best = max(tried, key=lambda number: tried[number][1])
    groups, silhouette = tried[best]
    heads = np.array([label(head) for head in head_map.heads()])
    centres = np.stack([z[groups == number].mean(0) for number in range(best)])
    described = [
        {
            "cluster": number,
            "heads": int((groups == number).sum()),
            "strongest": _strongest(names[varying], centres[number]),
            "examples": ", ".join(_nearest(space, groups == number, heads)),
        }
        for number in range(best)
    ]
    return Clusters(
        model=head_map.info.model.name,
        k=best,
        silhouette=silhouette,
        tried=pd.DataFrame([{"k": n, "silhouette": found[1]} for n, found in tried.items()]),
        table=head_map.places().assign(
            name=heads, cluster=groups, pc1=placed[:, 0], pc2=placed[:, 1]
        ),
        described=pd.DataFrame(described),
        z=pd.DataFrame(centres, columns=names[varying]).rename_axis("cluster"),
        explained=tuple(pca.explained_variance_ratio_.tolist()),
        constant=tuple(names[~varying].tolist()),
    )


def _signs(components: np.ndarray) -> np.ndarray:
    """Signs that make every component's greatest loading positive: PCA leaves them open."""
    greatest = np.abs(components).argmax(1)
    return np.sign(components[np.arange(len(components)), greatest])


def _grouped(space: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, float]:
    """Clusters of [head, component], numbered by size, and their silhouette."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # a pass is short: on a busy machine threads wait ten times as long
        found = KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(space)
    order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    groups = np.argsort(order)[found]
    sampled = min(_JUDGED, len(space))
    judged = silhouette_score(space, groups, sample_size=sampled, random_state=seed)
    return groups, float(judged)


def _strongest(names: np.ndarray, z: np.ndarray) -> str:
    order = np.argsort(-np.abs(z), kind="stable")[:_STRONGEST]
    return ", ".join(f"{names[i]} {z[i]:+.1f}" for i in order)


def _nearest(space: np.ndarray, members: np.ndarray, names: np.ndarray) -> list[str]:
    distance = np.linalg.norm(space[members] - space[members].mean(0), axis=1)
    return names[members][np.argsort(distance, kind="stable")[:3]].tolist()
