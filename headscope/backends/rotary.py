"""Finding a layer's rotary tables by watching who makes them, not by name."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headscope.errors import HeadscopeError
from headscope.rope import Pairing, Rope

# How a model's own tables hold each angle: once, twice as (a b a b), or twice as (a a b b).
_FOLDS: dict[str, Callable[[Tensor], Tensor]] = {
    "once": lambda table: table,
    "halves": lambda table: table[..., : table.shape[-1] // 2],
    "pairs": lambda table: table[..., ::2],
}


@dataclass(eq=False)
class Rotary:
    """One way in which a model calls a module for cos and sin tables."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    fold: str = "halves"
    pairing: Pairing = "half"
    _others: dict[float, nn.Module] = field(default_factory=dict)

    def tables(
        self, positions: Int[Tensor, "batch n"], base: float | None = None
    ) -> tuple[Float[Tensor, "batch n angle"], Float[Tensor, "batch n angle"]]:
        """cos and sin at any rotary positions, each angle once."""
        module = self.module if base is None else self._with_base(base)

        def swap(value: Any) -> Any:
            is_positions = isinstance(value, Tensor) and not value.is_floating_point()
            return positions if is_positions else value

        args = [swap(value) for value in self.args]
        cos, sin = module(*args, **{name: swap(value) for name, value in self.kwargs.items()})
        fold = _FOLDS[self.fold]
        return fold(cos), fold(sin)

    @property
    def base(self) -> float | None:
        """The model's own base (theta) in this call; None where its config does not say one."""
        parameters = getattr(getattr(self.module, "config", None), "rope_parameters", None) or {}
        if "rope_theta" not in parameters:  # one for each kind of layer, which the call names
            kinds = [x for x in (*self.args, *self.kwargs.values()) if isinstance(x, str)]
            parameters = next((parameters[kind] for kind in kinds if kind in parameters), {})
        return parameters.get("rope_theta")

    def _with_base(self, base: float) -> nn.Module:
        if base not in self._others:
            config = copy.deepcopy(getattr(self.module, "config", None))
            if config is None or not getattr(config, "rope_parameters", None):
                raise HeadscopeError(
                    f"{type(self.module).__name__} does not say what its base is made from; it "
                    "cannot be rotated with another one."
                )
            parameters = config.rope_parameters
            for rope in [parameters] if "rope_theta" in parameters else parameters.values():
                rope["rope_theta"] = base
            device = next((b.device for b in self.module.buffers()), None)
            self._others[base] = type(self.module)(config=config).to(device)
        return self._others[base]


@dataclass(eq=False)
class Watched:
    """A call of some module that returned a pair of tables."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, module: nn.Module, args: Any, kwargs: Any, output: Any) -> "Watched | None":
        """The call, if it looks like one for tables: two floating tensors of one shape, made from
        integer positions."""
        pair = isinstance(output, tuple) and len(output) == 2
        if not pair or not all(isinstance(x, Tensor) and x.is_floating_point() for x in output):
            return None
        made_from = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if output[0].shape != output[1].shape or all(x.is_floating_point() for x in made_from):
            return None
        shrink = {id(x): x[..., :0].detach() for x in made_from if x.is_floating_point()}
        return cls(
            module,
            tuple(shrink.get(id(x), x) for x in args),
            {name: shrink.get(id(x), x) for name, x in kwargs.items()},
            output,
        )


def find_rotary(
    watched: Sequence[Watched],
    given: Any,
    k: Float[Tensor, "batch kv_head key d"],
    positions: Int[Tensor, "batch key"],
) -> Rotary | str | None:
    """The rotation of a layer, from keys that differ in nothing but their position.

    Args:
        watched: every call in this pass that returned a pair of tables.
        given: what the layer was given as its position embeddings.
        k: the layer's keys for equal inputs, so that taking the right rotation off makes them
            all alike.
        positions: the rotary positions of those keys.

    Returns:
        The rotation, None where keys carry none, or a sentence if it is of no known kind.
    """
    scale = float(k.float().abs().amax())
    tolerance = (2e-3 if k.dtype in (torch.float32, torch.float64) else 0.1) * max(scale, 1e-6)

    def spread(keys: Tensor) -> float:
        return float((keys.float() - keys[:, :, :1].float()).abs().amax())

    if spread(k) < tolerance / 10:
        return None
    calls = [w for w in watched if isinstance(given, tuple) and w.output[0] is given[0]]
    found: list[tuple[float, Rotary]] = []
    pairings: tuple[Pairing, ...] = ("half", "interleaved")
    for call, fold, pairing in product(calls, _FOLDS, pairings):
        rotary = Rotary(call.module, call.args, call.kwargs, fold, pairing)
        if 2 * rotary.tables(positions)[0].shape[-1] <= k.shape[-1]:
            plain = Rope(rotary.tables, pairing).unrotate(k, positions)
            found.append((spread(plain), rotary))
    residual, rotary = min(found, key=lambda pair: pair[0], default=(torch.inf, None))
    if rotary is None or residual > tolerance:
        return "its keys are rotated in a way that headscope does not know"
    return rotary
