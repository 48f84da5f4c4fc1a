"""What methods that live with fewer keys say of their memory, against keys counted in a pass."""

from importlib import import_module
from typing import Any

import pytest
import torch
from conftest import opened
from torch import Tensor

from headscope.attention import Attention
from headscope.catalog import interventions
from headscope.engines import Attended
from headscope.interventions.caching import _Cache
from headscope.model import HeadModel

NAMES = sorted(name for name, kind in interventions().items() if kind.site == "cache")
TOKENS = torch.randint(3, 97, (1, 40), generator=torch.Generator().manual_seed(23))


def last_step(model: HeadModel, method: _Cache, tokens: int, new: int) -> tuple[Tensor, int]:
    """Keys that any query head of a group sees while the last token is read: [layer, kv_head]; and
    how long the cache then is."""
    seen = torch.zeros(model.n_layers, model.n_kv_heads, dtype=torch.long)
    cache = model.new_cache()

    def count(attended: Attended) -> None:
        attention: Attention = attended.attention
        for tile in attention.tiles([attention.n_queries - 1]):
            by_head = (tile.logits[0, :, 0] > -torch.inf).unflatten(0, (-1, attention.group))
            seen[attention.layer] += by_head.any(1).sum(-1)

    with method(model):
        options: dict[str, Any] = {"cache": cache, "prompt_length": tokens}
        model(TOKENS[:, :tokens], **options)
        for at in range(tokens, tokens + new):
            seen.zero_()
            with model.observed(count):
                model(TOKENS[:, [at]], **options)
    return seen, cache.get_seq_length()


@pytest.mark.parametrize(("tokens", "new"), [(18, 6), (18, 1), (4, 2), (30, 9)])
@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_the_keys_that_are_seen(name: str, tokens: int, new: int) -> None:
    model, module = opened("llama"), import_module(f"altered.{name}")
    for method in module.methods(model):
        seen, held = last_step(model, method, tokens, new)
        kept, read = method.kept_keys(model, tokens, new), method.read_keys(model, tokens, new)
        if getattr(module, "PROMPT_DECIDES", False):  # which of a layer's KV heads have how many
            read, kept, seen = (x.sort(-1).values for x in (read, kept, seen))
        if getattr(method, "read_exact", True):
            assert torch.equal(read, seen), method
        else:
            # Which keys the heads of a group share is for the text to say.
            assert bool((read >= seen).all()), method
        if type(method).read_keys is not _Cache.read_keys:
            # It selects among keys that it all keeps.
            assert torch.equal(kept, torch.full_like(kept, held)), method
        else:
            assert torch.equal(kept, read)
        assert method.kv_bytes(model, tokens, new) == int(kept.sum()) * 2 * model.d_head * 4


@pytest.mark.parametrize("name", NAMES)
def test_fewer_bytes_than_the_whole_cache(name: str) -> None:
    """Every recipe saves something: keys that are kept, or keys that are read."""
    model = opened("llama")
    for method in import_module(f"altered.{name}").methods(model):
        everything = model.n_layers * model.n_kv_heads * 24
        if getattr(method, "part", "all") == "prefill":
            assert int(method.kept_keys(model, 18, 6).sum()) == everything
            continue
        assert int(method.read_keys(model, 18, 6).sum()) < everything, method
