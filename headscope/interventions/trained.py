"""What a method learned on one model, kept in one safetensors file, and refused on another."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from headscope import storage
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.model import HeadModel


class Origin(BaseModel):
    """The model that something was trained on; a subclass says what else is known of it.

    Attributes:
        model_name, fingerprint: which model.
        layers: its attention layers.
        n_heads, d_head: query heads of a layer, and dimensions of a head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_name: str
    fingerprint: str
    layers: tuple[int, ...]
    n_heads: int
    d_head: int

    def check(self, model: "HeadModel", what: str) -> None:
        """Refuse another model.

        Args:
            what: was trained, for the message, e.g. "The directions were".

        Raises:
            HeadscopeError: it names both models.
        """
        if model.fingerprint != self.fingerprint:
            raise HeadscopeError(
                f"{what} trained on {self.model_name} ({len(self.layers)} layers × {self.n_heads} "
                f"heads of {self.d_head}), and this is {model.name} ({model.n_layers} × "
                f"{model.n_heads} of {model.d_head}) with other weights or in another dtype; "
                "train them on it."
            )


_Facts = TypeVar("_Facts", bound=Origin)


def facts_of(model: "HeadModel") -> dict[str, Any]:
    """The fields of an `Origin` for a model."""
    return {
        "model_name": model.name,
        "fingerprint": model.fingerprint,
        "layers": tuple(model.layers),
        "n_heads": model.n_heads,
        "d_head": model.d_head,
    }


def save_trained(path: str | Path, arrays: Mapping[str, np.ndarray], facts: Origin) -> Path:
    """Save arrays and what is known of them as one safetensors file."""
    path = Path(path)
    storage.write_arrays(path, arrays, {"headscope": facts.model_dump_json()})
    return path


def load_trained(
    path: str | Path, kind: type[_Facts], what: str
) -> tuple[dict[str, np.ndarray], _Facts]:
    """Read such a file.

    Raises:
        HeadscopeError: it is missing, damaged, holds something else, or values that are no numbers.
    """
    path = Path(path)
    arrays, known = storage.read_described(path)
    try:
        facts = kind.model_validate_json(known["headscope"])
    except (KeyError, ValidationError) as error:
        raise HeadscopeError(f"{path} holds no {what} of this headscope; train them.") from error
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise HeadscopeError(f"{path} holds values that are not finite numbers; train them again.")
    return arrays, facts
