"""A layer's rotary pairs, written down once more: their angles, and where they stand."""

import math

from torch import Tensor

from headscope.attention import Attention
from headscope.model import HeadModel


def rotates(model: HeadModel) -> bool:
    return model.hf.config.model_type not in ("gpt2", "opt")


def angles(attention: Attention, model: HeadModel) -> list[float]:
    """theta_t, from the config: every tiny model has unscaled tables."""
    config = model.hf.config
    rope, part = config.rope_parameters, 1.0
    if "rope_theta" not in rope:  # one rotation for each kind of layer
        rope = rope[config.layer_types[attention.layer]]
    part = rope.get("partial_rotary_factor", 1.0)
    d = int(attention.q.shape[-1] * part)
    return [rope["rope_theta"] ** (-2 * t / d) for t in range(d // 2)]


def pair(x: Tensor, t: int, n_angles: int) -> tuple[float, float]:
    """Pair t of one query or key: all tiny models pair dimension t with t + n_angles."""
    return float(x[t]), float(x[t + n_angles])


def product(q: Tensor, k: Tensor, t: int, n_angles: int) -> float:
    (a, b), (c, d) = pair(q, t, n_angles), pair(k, t, n_angles)
    return a * c + b * d


def length(x: Tensor, t: int, n_angles: int) -> float:
    return math.hypot(*pair(x, t, n_angles))
