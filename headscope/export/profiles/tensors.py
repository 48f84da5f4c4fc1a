"""What formats share that hold blocks as tensors: one safetensors file with the rules beside."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int, Shaped
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.export.base import MEGABYTE, content_of
from headscope.export.profiles.base import Grid, ProfileFormat, each
from headscope.export.profiles.blocks import check_blocks
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule, rule_of
from headscope.runinfo import first_problem
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_SCHEMA = 1


@dataclass(frozen=True)
class _Tensors(ProfileFormat):
    """Blocks of every different rule, `rule.INDEX.NAME`, and `heads`, which rule each head has.

    The rules themselves are in the header, so that the file reads back as what it was made of and
    blocks that are not theirs are found out.

    Attributes:
        length: tokens of the text that the blocks are for.
        block: tokens of a block, of queries and keys alike.
    """

    expresses = "every rule by position, at one length"
    limit: ClassVar[int] = 1024 * MEGABYTE
    names: ClassVar[int | None] = None
    gaps: ClassVar[bool] = True
    entry: ClassVar[int]  # bytes of a pair of blocks of one rule
    length: int | None = None
    block: int = 128

    @abstractmethod
    def blocks(self, rule: Pattern, length: int) -> Mapping[str, Tensor]:
        """The tensors of one rule by name."""

    def check(self, profile: SparseProfile) -> None:
        length = check_blocks(self.name, self.length, self.block)
        for head, rule in each(profile):
            if not isinstance(rule, Pattern):
                do = "what it sees the text decides; give the head a rule by position."
                raise self._refusal(head, rule, do)
        size = len({rule for _, rule in each(profile)}) * (-(-length // self.block)) ** 2
        if size * self.entry >= self.limit:
            raise HeadscopeError(
                f"{self.name} would take {size * self.entry / 2**30:,.1f} GiB at {length:,} "
                "tokens; take larger blocks, or fewer different rules."
            )

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        length = check_blocks(self.name, self.length, self.block)
        table = [profile.of_layer(layer) for layer in profile.model.layers]
        rules = list(dict.fromkeys(rule for row in table for rule in row))
        index = np.array([[rules.index(rule) for rule in row] for row in table], dtype=np.int32)
        arrays = {"heads": index}
        for number, rule in enumerate(rules):
            assert isinstance(rule, Pattern)
            for name, tensor in self.blocks(rule, length).items():
                arrays[f"rule.{number}.{name}"] = np.ascontiguousarray(tensor.numpy())
        header = {
            "schema_version": _SCHEMA,
            "kind": self.name,
            "length": length,
            "block": self.block,
            "layers": list(profile.model.layers),
            "rules": [rule.to_dict() for rule in rules],
        }
        return [save(arrays, {"headscope": json.dumps(header)})]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        found = self.opened(contents[0])
        if found.layers != model.layers or found.heads.shape[1] != model.n_heads:
            raise ValueError(
                f"it is about {len(found.layers)} layers of {found.heads.shape[1]} query heads, "
                f"not the model's {len(model.layers)} of {model.n_heads}"
            )
        return [[found.rules[number] for number in row] for row in found.heads.tolist()]

    def opened(self, content: bytes) -> "Opened":
        """What a file holds, with its blocks checked against its rules.

        Raises:
            ValueError: in a few words, what is wrong with it.
        """
        try:
            arrays = load(content)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"it is no safetensors file, or a damaged one ({error})") from error
        header = _header(content)
        if header.get("kind") != self.name or header.get("schema_version") != _SCHEMA:
            raise ValueError(f"it holds no {self.name} of this headscope")
        length, block, layers = (header.get(name) for name in ("length", "block", "layers"))
        if type(length) is not int or type(block) is not int:
            raise ValueError("its header gives no length and block")
        rules, heads = _rules(header.get("rules")), arrays.get("heads")
        if heads is None or heads.dtype != np.int32 or heads.ndim != 2 or not heads.size:
            raise ValueError("it does not say which head has which rule")
        if not isinstance(layers, list) or len(layers) != len(heads):
            raise ValueError("its header names other layers than it holds")
        if heads.min() < 0 or heads.max() >= len(rules):
            raise ValueError("a head has a rule that is not listed")
        check_blocks(self.name, length, block)
        own = type(self)(length=length, block=block)
        for number, rule in enumerate(rules):
            for name, tensor in own.blocks(rule, length).items():
                found, wanted = arrays.get(f"rule.{number}.{name}"), tensor.numpy()
                if (
                    found is None
                    or found.dtype != wanted.dtype
                    or not (np.array_equal(found, wanted))
                ):
                    raise ValueError(f"its {name} of the rule {number} are not those of {rule}")
        return Opened(tuple(layers), length, block, tuple(rules), heads, arrays)

    def open(self, path: str | Path) -> "Opened":
        """The file at a path, ready to be used.

        Raises:
            HeadscopeError: it is missing, too large, damaged or another's.
        """
        try:
            return self.opened(content_of(Path(path), self.limit, self.names))
        except ValueError as error:
            raise HeadscopeError(
                f"{path} cannot be read as {self.name}: {first_problem(error).rstrip('.')}. Export "
                "the profile again."
            ) from error

    def told(self, profile: SparseProfile) -> str:
        return f"for texts of {self.length} tokens"


@dataclass(frozen=True, eq=False)
class Opened:
    """A file of blocks.

    Attributes:
        layers: of the model.
        length, block: in tokens.
        rules: the different ones.
        heads: index of the rule of each query head.
        arrays: everything by name.
    """

    layers: tuple[int, ...]
    length: int
    block: int
    rules: tuple[Pattern, ...]
    heads: Int[np.ndarray, "layer head"]
    arrays: Mapping[str, np.ndarray]

    def of_layer(self, layer: int) -> Int[np.ndarray, " head"]:
        """The index of the rule of each query head of a layer."""
        if layer not in self.layers:
            raise HeadscopeError(f"The file has no layer {layer}; it has {list(self.layers)}.")
        return self.heads[self.layers.index(layer)]

    def stacked(self, numbers: Int[np.ndarray, " head"], name: str) -> Shaped[Tensor, "head ..."]:
        """One tensor of each of some rules, in their order."""
        return torch.stack([torch.from_numpy(self.arrays[f"rule.{i}.{name}"]) for i in numbers])


def _header(content: bytes) -> dict[str, Any]:
    told = storage.described(content).get("headscope")
    header = json.loads(told) if isinstance(told, str) else None
    if not isinstance(header, dict):
        raise ValueError("it has no header of headscope")
    return header


def _rules(told: Any) -> list[Pattern]:
    if not isinstance(told, list) or not 1 <= len(told) <= 4096:
        raise ValueError("its header lists no rules")
    rules: list[Rule] = [rule_of(one if isinstance(one, dict) else {}) for one in told]
    patterns = [rule for rule in rules if isinstance(rule, Pattern)]
    if len(patterns) < len(rules):
        raise ValueError("one of its rules is none by position")
    return patterns
