"""An opened model: its shape, its tokens, and a forward pass whose attention can be seen."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from headscope.backends.base import Backend
from headscope.backends.discover import decoder_of
from headscope.errors import HeadscopeError
from headscope.fingerprint import fingerprint
from headscope.heads import Head
from headscope.prompts.base import Prompt
from headscope.stack import Life, Middleware, Observer, Stack
from headscope.weights import HeadWeights, trace_weights

TokenIds = Int[Tensor, "batch token"] | Sequence[int]
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def short_name(spec: str) -> str:
    """The last part of a model's spec; "." and ".." have the name of the folder they stand for."""
    last = spec.rstrip("/").rsplit("/", 1)[-1]
    return Path(spec).expanduser().resolve().name if last in ("", ".", "..", "~") else last


def check_opened(model: Any) -> None:
    """Refuse what is no opened model, such as the name of one.

    Raises:
        HeadscopeError: it says how to open it.
    """
    if not isinstance(model, HeadModel):
        what = repr(model) if isinstance(model, str | Path) else f"a {type(model).__name__}"
        arguments = what if isinstance(model, str) else "model, tokenizer"
        raise HeadscopeError(
            f"Pass a model that headscope opened, headscope.load({arguments}), instead of {what}."
        )


class HeadModel:
    """A causal language model behind headscope's seam; made by `headscope.load`.

    The model itself is changed in nothing: hooks are in place only while a forward pass of this
    object runs or a scope is open on it.

    Attributes:
        hf: the transformers model.
        tokenizer: its tokenizer.
        spec: what it was opened from, for provenance.
        n_layers, n_heads, n_kv_heads, d_head, d_model, vocab_size: its shape; `layers` are the
            indices of the layers with softmax attention.
        context_length: how many tokens it was made for.
    """

    def __init__(
        self, backend: Backend, tokenizer: PreTrainedTokenizerBase, spec: str, revision: str | None
    ) -> None:
        first = backend.layers[0]
        config = backend.hf.config.get_text_config()
        self.backend, self.tokenizer = backend, tokenizer
        self.spec, self.revision = spec, revision
        self.layers = [found.layer for found in backend.layers]
        self.n_heads, self.n_kv_heads, self.d_head = first.n_heads, first.n_kv_heads, first.d_head
        self.d_model, self.vocab_size = config.hidden_size, config.vocab_size
        self.context_length: int = getattr(config, "max_position_embeddings", None) or 2**31

    def __repr__(self) -> str:
        return (
            f"HeadModel({self.spec!r}, backend={self.backend.name!r}, layers={self.n_layers}, "
            f"heads={self.n_heads}, kv_heads={self.n_kv_heads}, d_head={self.d_head}, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device})"
        )

    # ---- facts -----------------------------------------------------------------------------

    @property
    def hf(self) -> PreTrainedModel:
        return self.backend.hf

    @property
    def name(self) -> str:
        """A short name for titles."""
        return short_name(self.spec)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def heads(self) -> list[Head]:
        """All query heads as (layer, head), layer by layer."""
        return [(layer, head) for layer in self.layers for head in range(self.n_heads)]

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights; see `fingerprint`."""
        return fingerprint(self.backend.parameters())

    # ---- weights ---------------------------------------------------------------------------

    def weights(self, layer: int) -> HeadWeights:
        """Per-head views of W_Q, W_K, W_V and W_O of one layer, found by tracing.

        Raises:
            HeadscopeError: there is no such attention layer, or its projections cannot be found.
        """
        if layer not in self.layers:
            raise HeadscopeError(f"{self.spec} has no attention layer {layer}.")
        if layer not in self._weights:
            self._weights[layer] = trace_weights(self.backend, self.layers.index(layer))
        return self._weights[layer]

    @cached_property
    def _weights(self) -> dict[int, HeadWeights]:
        return {}

    @property
    def embed(self) -> Float[Tensor, "vocab model"]:
        """The token embedding, as a view."""
        return cast(nn.Embedding, self.hf.get_input_embeddings()).weight

    @property
    def unembed(self) -> Float[Tensor, "model vocab"]:
        """The map from the normalised residual stream to logits, as a view."""
        return cast(Tensor, self._unembedding.weight).T

    @property
    def _unembedding(self) -> nn.Module:
        return cast(nn.Module, self.hf.get_output_embeddings())  # a bridge has one of its own

    @cached_property
    def final_norm(self) -> nn.Module:
        """The module whose output the unembedding reads."""
        outputs: list[tuple[nn.Module, Tensor]] = []

        def keep(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            # Hook points and dropout pass on what they are given; they are not what made it.
            if isinstance(out, Tensor) and not (args and out is args[0]):
                outputs.append((module, out))

        read: list[Tensor] = []
        handles = [m.register_forward_hook(keep) for m in decoder_of(self.hf).modules()]
        handles.append(
            self._unembedding.register_forward_pre_hook(lambda _, args: read.append(args[0]))
        )
        try:
            ids = torch.arange(3)[None]
            self.forward(ids, attention_mask=torch.ones_like(ids))  # one may be padding elsewhere
        finally:
            for handle in handles:
                handle.remove()
        for module, out in reversed(outputs):
            if out.shape == read[0].shape and torch.equal(out, read[0]):
                return module
        raise HeadscopeError(f"{self.spec} has no single module in front of its unembedding.")

    # ---- tokens ----------------------------------------------------------------------------

    def tokens(self, text: str, chat: bool = False) -> Int[Tensor, "1 token"]:
        """Token ids of a text, with the tokenizer's own special tokens.

        Args:
            text: plain text, or the user's turn if `chat`.
            chat: wrap the text in the model's chat template, up to the start of its answer.
        """
        if chat:
            text = self.chat(text)
        ids = self.tokenizer(text, add_special_tokens=not chat)["input_ids"]
        return torch.tensor([ids], device=self.device)

    def chat(self, text: str) -> str:
        """A user's turn in the model's chat template, up to the start of its answer.

        Raises:
            HeadscopeError: the tokenizer has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise HeadscopeError(f"{self.spec} has no chat template; use plain prompts.")
        turn = [{"role": "user", "content": text}]
        return str(
            self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        )

    def decode(self, token_ids: TokenIds) -> str:
        """Text of one sequence of token ids, special tokens left out."""
        ids = token_ids.flatten().tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer, by the model's own account."""
        config = getattr(self.hf, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        ids = ends if isinstance(ends, list) else [ends, self.tokenizer.eos_token_id]
        return frozenset(int(i) for i in ids if i is not None)

    # ---- passes ----------------------------------------------------------------------------

    @property
    def stack(self) -> Stack:
        return self.backend.stack

    def observed(self, observer: Observer) -> AbstractContextManager[None]:
        """Show every finished attention of this model to a function, for the length of a scope."""
        return self.backend.observed(observer)

    def entered(self, around: Middleware, life: Life | None = None) -> AbstractContextManager[None]:
        """Put a function around the attention of every layer, for the length of a scope."""
        return self.backend.entered(around, life)

    def new_cache(self) -> DynamicCache:
        """An empty KV cache that holds every key of every layer, so that it can be cropped."""
        return DynamicCache()

    def forward(
        self,
        token_ids: TokenIds,
        *,
        attention_mask: Int[Tensor, "batch seen"] | None = None,
        cache: Cache | None = None,
        prompt_length: int | Int[Tensor, " batch"] | None = None,
        last: int = 0,
    ) -> Float[Tensor, "batch kept vocab"]:
        """Logits of a batch of token ids.

        Args:
            token_ids: [batch, token], or one sequence as a list.
            attention_mask: 1 for real tokens and 0 for padding, over the cached tokens too.
            cache: a cache to continue and extend.
            prompt_length: positions from here on are the answer, for what acts on answers only.
            last: how many of the last tokens' logits are wanted; all of them if 0.

        Raises:
            HeadscopeError: no tokens, more than the context holds, or a mask of another shape.
        """
        ids = self._ids(token_ids)
        if last < 0:
            raise HeadscopeError(f"last= counts tokens from the end, 0 for all, and is not {last}.")
        held = 0 if cache is None else int(cache.get_seq_length())
        self._fits(held + ids.shape[1])
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": cache is not None}
        if attention_mask is not None:
            mask = self._mask(attention_mask, len(ids), held + ids.shape[1])
            # Left to itself transformers counts padding as positions.
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            inputs |= {"attention_mask": mask, "position_ids": positions}
        if cache is not None:
            inputs["past_key_values"] = cache
        inputs["logits_to_keep"] = last
        lengths = self._lengths(prompt_length, len(ids))
        with self.backend.lock, self.backend.answering(lengths):
            return self.backend.forward(inputs)

    __call__ = forward

    def generate(
        self,
        token_ids: TokenIds,
        *,
        max_new_tokens: int = 32,
        attention_mask: Int[Tensor, "batch token"] | None = None,
        **options: Any,
    ) -> Int[Tensor, "sequence new"]:
        """Generate through the same seam, with a KV cache; greedy unless asked otherwise.

        Args:
            token_ids: prompts, [batch, token]; shorter ones padded on the left.
            max_new_tokens: how many tokens at most.
            attention_mask: 1 for real tokens and 0 for padding.
            options: transformers' own generation options, handed on as they are.

        Returns:
            The new tokens alone.
        """
        if options.get("return_dict_in_generate"):
            raise HeadscopeError(
                "generate() gives the new tokens alone; leave return_dict_in_generate out, or call "
                "model.hf.generate() within a scope."
            )
        if max_new_tokens < 1:
            raise HeadscopeError(f"Ask for at least one new token, not {max_new_tokens}.")
        ids = self._ids(token_ids)
        mask = torch.ones_like(ids)
        if attention_mask is not None:
            mask = self._mask(attention_mask, *ids.shape)
        self._fits(ids.shape[1] + max_new_tokens)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "max_new_tokens": max_new_tokens,
            "do_sample": False,
            "pad_token_id": self._pad_token(),
        } | options
        drafting = "assistant_model" in options or "prompt_lookup_num_tokens" in options
        with self.backend.lock, self.backend.answering(mask.sum(1), drafting):
            return self.backend.generate(inputs)[:, ids.shape[1] :]

    def _pad_token(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(cast(int, token))
        return 0

    def _ids(self, token_ids: Any) -> Int[Tensor, "batch token"]:
        if isinstance(token_ids, str):
            raise HeadscopeError("Pass token ids, e.g. model(model.tokens(text)), not a text.")
        try:
            ids = torch.as_tensor(token_ids, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise HeadscopeError(
                "Token ids are whole numbers, as many in every row of a batch; pad shorter rows "
                "on the left, and pass attention_mask= with 0 for the padding."
            ) from error
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.ndim != 2 or ids.numel() == 0:
            raise HeadscopeError(
                f"Token ids need the shape [batch, token] with at least one token, not "
                f"{tuple(ids.shape)}."
            )
        if ids.dtype not in _INTEGERS:
            raise HeadscopeError(
                f"Token ids are whole numbers, not {str(ids.dtype).removeprefix('torch.')}."
            )
        if int(ids.min()) < 0 or int(ids.max()) >= self.vocab_size:
            raise HeadscopeError(f"Token ids of {self.spec} run from 0 to {self.vocab_size - 1}.")
        return ids.long()

    def _mask(self, mask: Any, batch: int, length: int) -> Int[Tensor, "batch seen"]:
        try:
            real = torch.as_tensor(mask, device=self.device).long()
        except (TypeError, ValueError, RuntimeError):
            real = torch.empty(0)
        if real.shape != (batch, length):
            raise HeadscopeError(
                f"attention_mask has a 1 or 0 for each token that is read, the cached ones among "
                f"them: here its shape is [{batch}, {length}]."
            )
        return real

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuse a prompt that the model could not read to the end of its answer.

        Raises:
            HeadscopeError: it is too long, or has tokens that the model does not know.
        """
        if not prompt.token_ids:
            raise HeadscopeError("A prompt without any token cannot be read; leave it out.")
        highest = max((*prompt.token_ids, *prompt.answer_ids))
        if highest >= self.vocab_size:
            raise HeadscopeError(
                f"The tokenizer gives token {highest} where {self.spec} knows those below "
                f"{self.vocab_size}; load the model with its own tokenizer."
            )
        if len(prompt) + len(prompt.answer_ids) > self.context_length:
            raise HeadscopeError(
                f"A prompt of {len(prompt)} tokens and its answer do not fit into the "
                f"{self.context_length} that {self.spec} was made for; use shorter prompts."
            )

    def _fits(self, length: int) -> None:
        if length > self.context_length:
            raise HeadscopeError(
                f"{length} tokens do not fit into the {self.context_length} that {self.spec} was "
                "made for; use a shorter prompt."
            )

    def _lengths(self, length: int | Tensor | None, batch: int) -> Tensor | None:
        if isinstance(length, int):
            return torch.full((batch,), length, device=self.device)
        return length
