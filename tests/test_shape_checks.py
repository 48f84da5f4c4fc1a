"""Shapes are checked where they are named, and nothing else is wrapped."""

import dataclasses

import pytest
import torch
from jaxtyping import TypeCheckError

from headscope.attention import Attention
from headscope.heads import label
from headscope.merge import merge
from headscope.model import HeadModel


def test_a_function_refuses_other_shapes() -> None:
    part = (torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3))
    merge(part, part)
    with pytest.raises(TypeCheckError, match="merge"):
        merge(part, (part[0], torch.zeros(1, 2)))


def test_a_dataclass_refuses_other_shapes(llama: HeadModel) -> None:
    seen = []
    with llama.observed(lambda attended: seen.append(attended.attention)):
        llama(torch.tensor([[3, 4, 5]]))
    attention = seen[0]
    with pytest.raises(TypeCheckError, match="Attention"):
        dataclasses.replace(attention, k=attention.k[0])


def test_what_names_no_shape_is_left_alone() -> None:
    assert not hasattr(label, "__wrapped__")
    assert not hasattr(Attention.n_heads.fget, "__wrapped__")
