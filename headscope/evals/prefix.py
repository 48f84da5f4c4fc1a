"""One prefill for many continuations: a cache whose prompt all rows of a batch share."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from headscope.model import HeadModel
from headscope.prompts.base import Prompt


class _SharedLayer(DynamicLayer):
    """Keys of a prompt, held once, before those of each row's own tokens.

    They are joined for the length of one layer's attention, and not kept joined.
    """

    def __init__(self, prompt: DynamicLayer) -> None:
        super().__init__()
        self.prompt = prompt

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        own = super().update(key_states, value_states, *args, **kwargs)
        held = cast(Any, (self.prompt.keys, self.prompt.values))
        rows = len(key_states)
        return tuple(
            torch.cat((before.expand(rows, -1, -1, -1), new), dim=-2)
            for before, new in zip(held, own, strict=True)
        )

    def get_seq_length(self) -> int:
        return self.prompt.get_seq_length() + super().get_seq_length()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


class Prefix:
    """The cache of a prompt without its last token, to continue from as often as one likes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    @classmethod
    @torch.no_grad()
    def of(cls, model: HeadModel, prompt: Prompt) -> "Prefix | None":
        """Read a prompt once; None where it is one token, which leaves nothing to share."""
        if len(prompt) == 1:
            return None
        cache = model.new_cache()
        model.forward(list(prompt.token_ids[:-1]), cache=cache, prompt_length=len(prompt), last=1)
        return cls(cache)

    def fork(self) -> Cache:
        """A cache that begins with the prompt, for a batch of any size; the prompt stays whole."""
        cache = DynamicCache()
        layers = [_SharedLayer(cast(DynamicLayer, layer)) for layer in self._cache.layers]
        cache.layers = cast(Any, layers)
        return cache
