"""A profile in force on a transformers model as it is, for as long as the model lives."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from headscope.backends.hf import NAME, HFBackend, attention_for_transformers
from headscope.errors import HeadscopeError
from headscope.geometry import geometry_mask
from headscope.interventions.sparse_attention import SparseAttention
from headscope.loading import check_layers
from headscope.model import short_name
from headscope.run import Part
from headscope.selftest import self_test
from headscope.sparsity.profile import ProfiledModel, SparseProfile

# So that from_pretrained(..., attn_implementation="headscope") knows the name.
AttentionInterface.register(NAME, attention_for_transformers)
AttentionMaskInterface.register(NAME, geometry_mask)

_PLACE = "_headscope_profile"  # where a model keeps what is in force on it


def use_profile(hf: Any, profile: SparseProfile | str | Path, part: Part = "all") -> SparseProfile:
    """Let a transformers model attend by a profile from now on, in `forward` and `generate`.

    The model may have been opened with `attn_implementation="headscope"` or any other; no
    tokenizer and no scope are needed. `drop_profile` gives the model back.

    Args:
        hf: a causal language model.
        profile: a profile, or the path of one.
        part: rows in which it holds, "all", "prefill" or "decode", as in `Ablate`.

    Raises:
        HeadscopeError: the profile is for another model or damaged, headscope cannot see all of
            the model's attention, or a profile is in force on it already.
    """
    if not isinstance(hf, PreTrainedModel):
        raise HeadscopeError(
            f"use_profile() takes a transformers model, not a {type(hf).__name__}; on a model that "
            "headscope opened use SparseAttention(profile) as a scope."
        )
    if _PLACE in vars(hf):
        raise HeadscopeError(
            f"A profile is in force on this {type(hf).__name__} already; call drop_profile() first."
        )
    if part == "answer":
        raise HeadscopeError(
            "Where an answer starts is known on models that headscope opened; use part='all' or "
            "'decode' here."
        )
    profile = SparseProfile.given(profile)
    method = SparseAttention(profile, part)
    backend = HFBackend(hf)
    check_layers(backend)
    self_test(backend)
    name = short_name(hf.config._name_or_path or type(hf).__name__)
    profile.check(ProfiledModel.behind(backend, name))
    with ExitStack() as scope:
        scope.enter_context(backend.attached())
        scope.enter_context(backend.stack.computed_by(method.engine()))
        vars(hf)[_PLACE] = scope.pop_all()
    return profile


def drop_profile(hf: Any) -> None:
    """Let the model attend as it did before `use_profile`.

    One that was opened with `attn_implementation="headscope"` runs again with another profile, or
    after `hf.set_attn_implementation("sdpa")`.

    Raises:
        HeadscopeError: no profile is in force on it.
    """
    if _PLACE not in vars(hf):
        raise HeadscopeError(f"No profile is in force on this {type(hf).__name__}.")
    vars(hf).pop(_PLACE).close()


@contextmanager
def using_profile(
    hf: PreTrainedModel, profile: SparseProfile | str | Path, part: Part = "all"
) -> Iterator[PreTrainedModel]:
    """The same for the length of a scope."""
    use_profile(hf, profile, part)
    try:
        yield hf
    finally:
        drop_profile(hf)
