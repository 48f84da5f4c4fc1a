"""One choice for each of many groups, within budgets: the multiple-choice knapsack problem."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, linprog, milp
from scipy.sparse import csr_array, hstack

from headscope.solver_noise import hushed

_ROUNDING = 1e-9  # of a budget: sums of equal weights differ by so much with their order
_SCALE = 1e4  # of a budget, as the solver is given it: its tolerance of 1e-6 is an absolute one


@dataclass(frozen=True, eq=False)
class Picked:
    """One choice for each group.

    Attributes:
        choices: indices of choices, by group.
        loss: theirs, summed.
        bound: no choices within the budgets lose less.
    """

    choices: Int[np.ndarray, " group"]
    loss: float
    bound: float


@dataclass(frozen=True, eq=False)
class Knapsack:
    """Choices, of which each group takes one: least summed loss, summed weights within budgets.

    Attributes:
        loss: of each choice, in any unit.
        group: whose choice it is, 0 to the number of groups less one; every group has some.
        weight: what each choice takes of each budget.
        budget: what all choices together may take.
    """

    loss: Float[np.ndarray, " choice"]
    group: Int[np.ndarray, " choice"]
    weight: Float[np.ndarray, "budget choice"]
    budget: Float[np.ndarray, " budget"]

    @property
    def _groups(self) -> int:
        return int(self.group.max()) + 1

    @property
    def _one(self) -> csr_array:
        """That the choices of each group, taken together, are one: [group, choice]."""
        places = (self.group, np.arange(len(self.group)))
        return csr_array((np.ones(len(self.group)), places))

    def prices(self) -> tuple[Float[np.ndarray, " budget"], Float[np.ndarray, " group"]]:
        """Of the budgets, where fractions of choices may be taken, and what each group's choice
        comes to at these prices."""
        one = self._one
        done = linprog(
            self.loss, A_ub=csr_array(self.weight), b_ub=self.budget, A_eq=one,
            b_eq=np.ones(self._groups), method="highs",
        )  # fmt: skip
        return np.maximum(-done.ineqlin.marginals, 0), done.eqlin.marginals

    def solved(self, gap: float = 1e-4) -> Picked | None:
        """Whole choices, by branch and bound (HiGHS); None where nothing fits into the budgets.

        Args:
            gap: how far the loss may be from its bound, in shares of it.
        """
        one, budget = self._one, self.budget
        # Solvers have absolute tolerances too: a group's largest loss comes to 100 on average.
        largest = np.zeros(self._groups)
        np.maximum.at(largest, self.group, np.abs(self.loss))
        unit = float(largest.mean()) / 100 or 1.0
        bound: float | None = None
        for _ in range(5):
            done = _quietly(
                self.loss / unit, integrality=np.ones(len(self.loss)), bounds=Bounds(0, np.inf),
                constraints=[LinearConstraint(one, 1, 1), _below(self.weight, budget)],
                options={"mip_rel_gap": gap},
            )  # fmt: skip
            if done.x is None:
                return None
            if bound is None:  # later ones are about smaller budgets
                bound = float(done.mip_dual_bound) * unit
            taken = np.flatnonzero(done.x > 0.5)
            choices = taken[self.group[taken].argsort()]
            over = self.weight[:, choices].sum(1) - self.budget
            if (over <= _ROUNDING * np.maximum(np.abs(self.budget), 1)).all():
                loss = float(self.loss[choices].sum())
                return Picked(choices, loss, min(bound, loss))
            # Within the solver's tolerance, and not within the budget: leave it that much less.
            budget = budget - 2 * np.maximum(over, 0)
        return None

    def smallest(self) -> float:
        """The least share of their budgets that choices can take, the fullest budget counting."""
        one, n = self._one, len(self.loss)
        shares = np.c_[self.weight / self.budget[:, None], -np.ones(len(self.budget))]
        done = _quietly(
            np.r_[np.zeros(n), 1.0], integrality=np.r_[np.ones(n), 0], bounds=Bounds(0, np.inf),
            constraints=[LinearConstraint(hstack([one, csr_array((self._groups, 1))]), 1, 1),
                         _below(shares, np.zeros(len(shares)))],
        )  # fmt: skip
        return float(done.fun)


def _below(weight: np.ndarray, most: Any) -> LinearConstraint:
    scale = _SCALE / np.where(most > 0, most, 1)
    most = most * scale
    return LinearConstraint(weight * scale[:, None], -np.inf, most)


def _quietly(loss: np.ndarray, **given: object) -> OptimizeResult:
    with hushed():
        return milp(loss, **given)  # pyright: ignore[reportArgumentType]
