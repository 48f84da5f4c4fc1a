"""Directions of head outputs that tell two kinds of prompts apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions.trained import Origin, facts_of, load_trained, save_trained
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.model import HeadModel

_LEAST = 10  # prompts of each kind: fewer leave two to be judged by


class OutputFacts(Origin):
    """What is known of output directions.

    Attributes:
        heads: whose they are, the one that tells the kinds apart best first.
        accuracy: of each head's regression on prompts that it had not seen.
        prompts: of each kind.
    """

    kind: Literal["output_directions"] = "output_directions"
    heads: tuple[Head, ...]
    accuracy: tuple[float, ...]
    prompts: tuple[int, int]


@dataclass(frozen=True, eq=False)
class OutputDirections:
    """For each of some heads, the way from the mean z of one kind of prompts to that of another.

    Attributes:
        theta: unit vectors, [head, d].
        sigma: standard deviation of all prompts' z along them, [head].
        facts: the model, the heads and the training.
    """

    theta: Float[Tensor, "head d"]
    sigma: Float[Tensor, " head"]
    facts: OutputFacts

    @classmethod
    def train(
        cls,
        model: "HeadModel",
        towards: Sequence[Prompt],
        away: Sequence[Prompt],
        count: int = 12,
        seed: int = 0,
    ) -> "OutputDirections":
        """Read both kinds of prompts once, and keep the heads that tell them apart best.

        A head's z in the last row is judged by a logistic regression trained on four fifths of the
        prompts and tested on the rest; the direction is the difference of the means of all. Of
        heads that are right equally often, that with the likelier right answers comes first.

        Args:
            towards, away: prompts of the two kinds, 10 or more of each; none of the test's.
            count: how many heads are kept (48 of 1 024 in the paper).

        Raises:
            HeadscopeError: too few prompts, or a count that the model has not.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import train_test_split
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if min(len(towards), len(away)) < _LEAST:
            raise HeadscopeError(
                f"Directions of outputs need {_LEAST} prompts of each kind, not {len(towards)} and "
                f"{len(away)}."
            )
        if not 0 < count <= len(model.heads):
            raise HeadscopeError(f"Keep 1 to {len(model.heads)} heads, not {count}.")
        z = np.concatenate([last_outputs(model, prompts) for prompts in (towards, away)])
        y = np.repeat([1, 0], [len(towards), len(away)])
        fit, held = train_test_split(
            np.arange(len(y)), test_size=0.2, random_state=seed, stratify=y
        )
        accuracy, surprise = [], []
        for head in range(z.shape[1]):
            judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            judge.fit(z[fit, head], y[fit])
            accuracy.append(float(judge.score(z[held, head], y[held])))
            told = judge.predict_log_proba(z[held, head])
            surprise.append(-float(told[np.arange(len(held)), y[held]].mean()))
        order = np.lexsort((surprise, -np.array(accuracy)))[:count]
        ways = z[y == 1].mean(0) - z[y == 0].mean(0)
        lengths = np.linalg.norm(ways, axis=1, keepdims=True)
        theta = ways / np.maximum(lengths, np.finfo(np.float64).tiny)
        sigma = np.einsum("phd,hd->ph", z, theta).std(0)
        facts = OutputFacts(
            **facts_of(model),
            heads=tuple(model.heads[i] for i in order.tolist()),
            accuracy=tuple(accuracy[i] for i in order.tolist()),
            prompts=(len(towards), len(away)),
        )
        theta, sigma = (torch.from_numpy(x[order]).float() for x in (theta, sigma))
        return cls(theta, sigma, facts)

    def random(self, seed: int = 0) -> "OutputDirections":
        """The same heads and lengths in random directions: a control."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.theta.shape, generator=generator)
        return replace(self, theta=drawn / drawn.norm(dim=1, keepdim=True))

    def save(self, path: str | Path) -> Path:
        """Save them as one safetensors file."""
        arrays = {"theta": self.theta.numpy(), "sigma": self.sigma.numpy()}
        return save_trained(path, arrays, self.facts)

    @classmethod
    def load(cls, path: str | Path) -> "OutputDirections":
        """Read saved directions.

        Raises:
            HeadscopeError: the file is missing, damaged or something else.
        """
        arrays, facts = load_trained(path, OutputFacts, "output directions")
        n = len(facts.heads)
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {"theta": (n, facts.d_head), "sigma": (n,)}:
            raise HeadscopeError(
                f"{path} is damaged: it does not hold {n} vectors of {facts.d_head} numbers; "
                "train the directions again."
            )
        theta, sigma = (torch.from_numpy(arrays[k].copy()).float() for k in ("theta", "sigma"))
        return cls(theta, sigma, facts)


def last_outputs(
    model: "HeadModel", prompts: Sequence[Prompt]
) -> Float[np.ndarray, "prompt head d"]:
    """z of every head in the last row of each prompt, layer by layer."""
    found: list[list[Tensor]] = []

    def keep(attended: Attended) -> None:
        found[-1].append(attended.z[0, :, -1].double().cpu())

    with torch.no_grad(), model.observed(keep):
        for prompt in prompts:
            found.append([])
            model.forward(list(prompt.token_ids), last=1)
    return np.stack([torch.cat(each).numpy() for each in found])
