"""A small sparse autoencoder, and codes of vectors by the feature that says most about them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn.functional import mse_loss, normalize

SILENT = -1  # the code of a vector on which no feature is active
_PART = 4096  # vectors whose features are held at a time
_WEAKEST = 1e-6  # squared length of the vectors that features start from, beside a mean of 1

Check = Callable[[list[float]], None]


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """f(x) = relu((x - center) W_enc + b), and x is read back as f(x) W_dec + center.

    Rows of W_dec have length 1.
    """

    encoder: Float[Tensor, "d feature"]
    bias: Float[Tensor, " feature"]
    decoder: Float[Tensor, "feature d"]
    center: Float[Tensor, " d"]

    def features(self, x: Float[Tensor, "*example d"]) -> Float[Tensor, "*example feature"]:
        """How active each feature is; at least 0."""
        return ((x - self.center) @ self.encoder + self.bias).relu()

    def codes(self, x: Float[Tensor, "*example d"]) -> Int[Tensor, "*example"]:
        """The most active feature of each vector, the first of equals, or SILENT."""
        strength, code = self.features(x).max(-1)
        return code.masked_fill(strength == 0, SILENT)

    def alive(self, x: Float[Tensor, "example d"]) -> Bool[Tensor, " feature"]:
        """Which features are active on any of some vectors."""
        return torch.stack([(self.features(part) > 0).any(0) for part in x.split(_PART)]).any(0)


@dataclass(frozen=True)
class Training:
    """How an autoencoder is trained.

    loss = mean over vectors of |x - x'|^2 + sparsity * sum of f(x), by Adam.

    Attributes:
        features: how many.
        sparsity: weight of the L1 term; vectors should be about 1 long.
        steps, batch, lr: steps of so many vectors each; the learning rate.
    """

    features: int
    sparsity: float
    steps: int
    batch: int
    lr: float

    def run(self, x: Float[Tensor, "example d"], seed: int, check: Check) -> SparseAutoencoder:
        """Train on vectors, in float64 where they are, so that codes do not hang on rounding.

        Features start as the directions of some vectors, drawn by squared length, all of the one
        strength at which they read back best. Half way, those that were active on no vector start
        again as what was left of other vectors, drawn by its squared length.

        Args:
            check: told all losses so far, at every step.
        """
        x, generator = x.double(), Generator().manual_seed(seed)
        center = x.mean(0)
        start = self._drawn(x - center, generator)
        some = x[torch.randperm(len(x), generator=generator)[:_PART].to(x.device)] - center
        read = (some @ start.T).relu() @ start
        # Features overlap: as strong as all that, they would read back much more than there was.
        scale = (some * read).sum() / read.square().sum().clamp(min=_WEAKEST)
        parts = [scale * start.T, torch.zeros(self.features).to(x), start, center]
        losses: list[float] = []
        with torch.enable_grad():
            parts = [part.requires_grad_(True) for part in parts]
            optimizer = torch.optim.Adam(parts, lr=self.lr)
            order = torch.empty(0, dtype=torch.long)
            for step in range(self.steps):
                if len(order) < min(self.batch, len(x)):
                    order = torch.cat((order, torch.randperm(len(x), generator=generator)))
                some, order = order[: self.batch], order[self.batch :]
                loss = self._loss(SparseAutoencoder(*parts), x[some.to(x.device)])
                losses.append(float(loss.detach()))
                check(losses)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    parts[2].copy_(normalize(parts[2], dim=-1))
                    if step == self.steps // 2:
                        self._revive(SparseAutoencoder(*parts), x, generator)
        return SparseAutoencoder(*(part.detach() for part in parts))

    def _loss(self, model: SparseAutoencoder, x: Float[Tensor, "some d"]) -> Float[Tensor, ""]:
        found = model.features(x)
        error = mse_loss(found @ model.decoder + model.center, x, reduction="none").sum(-1)
        return (error + self.sparsity * found.sum(-1)).mean()

    def _drawn(self, x: Float[Tensor, "example d"], generator: Generator) -> Tensor:
        """Directions of some vectors, long ones sooner; random ones where there are too few."""
        weights = x.square().sum(-1)
        real = weights > _WEAKEST * weights.mean()
        count = min(self.features, int(real.sum()))
        random = torch.randn(self.features, x.shape[1], generator=generator).to(x)
        if count:
            # Drawn on the CPU: a generator of another device would draw others.
            some = torch.multinomial((weights * real).cpu(), count, generator=generator)
            random[:count] = x[some.to(x.device)]
        return normalize(random, dim=-1)

    def _revive(
        self, model: SparseAutoencoder, x: Float[Tensor, "example d"], generator: Generator
    ) -> None:
        dead = ~model.alive(x)
        left = x - model.center - model.features(x) @ model.decoder
        again = self._drawn(left, generator)[: int(dead.sum())]
        model.decoder[dead], model.bias[dead] = again, 0.0
        model.encoder[:, dead] = again.T
