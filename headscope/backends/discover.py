"""What a model is made of, learned from one tiny forward pass instead of from names."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from headscope.backends.rotary import Rotary, Watched, find_rotary
from headscope.errors import HeadscopeError

# Where a layer that belongs to no opened model reports itself while one is being opened.
current: ContextVar["Discovery | None"] = ContextVar("discovery", default=None)


@dataclass(eq=False)
class Found:
    """One attention layer, as seen in the discovery pass."""

    layer: int
    module: nn.Module
    n_heads: int
    n_kv_heads: int
    d_head: int
    rotary: Rotary | str | None


@dataclass(eq=False)
class Discovery:
    """Watches a forward pass on one repeated token, with every head silenced.

    Equal tokens and silent heads keep the hidden states alike at all positions, so that whatever
    still tells the keys of a layer apart is its position encoding.
    """

    found: list[Found] = field(default_factory=list)
    _inputs: dict[int, dict[str, Any]] = field(default_factory=dict)
    _watched: list[Watched] = field(default_factory=list)

    @contextmanager
    def watching(self, hf: PreTrainedModel) -> Iterator[None]:
        handles = []
        for module in hf.modules():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        token = current.set(self)
        try:
            yield
        finally:
            current.reset(token)
            for handle in handles:
                handle.remove()

    def record(self, module: nn.Module, q: Tensor, k: Tensor) -> None:
        """A layer ran: q is [batch, head, query, d], k is [batch, kv_head, key, d]."""
        inputs = self._inputs.get(id(module), {})
        layer = getattr(module, "layer_idx", None)
        hidden = hidden_of((), inputs)
        rotary: Rotary | str | None = None
        if hidden is not None and not k.is_meta and torch.allclose(hidden, hidden[:, :1]):
            positions = torch.arange(k.shape[2], device=k.device)[None]
            given = inputs.get("position_embeddings")
            rotary = find_rotary(self._watched, given, k, positions)
        self.found.append(
            Found(
                len(self.found) if layer is None else int(layer),
                module,
                q.shape[1],
                k.shape[1],
                q.shape[3],
                rotary,
            )
        )

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = dict(kwargs)
        if args and isinstance(args[0], Tensor):
            inputs.setdefault("hidden_states", args[0])
        self._inputs[id(module)] = inputs

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = Watched.of(module, args, kwargs, output)
        if call is not None:
            self._watched.append(call)


def hidden_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The layer's input among the arguments of an attention module."""
    hidden = kwargs.get("hidden_states", args[0] if args else None)
    return hidden if isinstance(hidden, Tensor) else None


def decoder_of(hf: PreTrainedModel) -> nn.Module:
    """The text decoder inside a model: the whole base model unless it has several parts."""
    decoder = getattr(hf, "get_decoder", lambda: None)()
    return decoder if isinstance(decoder, nn.Module) else hf.base_model


def expected_layers(config: PreTrainedConfig) -> list[int]:
    """Indices of the layers that should run a softmax attention, from the config alone."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return list(range(text.num_hidden_layers))
    return [i for i, kind in enumerate(kinds) if "attention" in kind and "linear" not in kind]


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A pass in the model's own dtype, whatever stands around it."""
    there = torch.amp.is_autocast_available(device.type)  # not on meta, where nothing is computed
    return torch.autocast(device.type, enabled=False) if there else nullcontext()


def check_decoder(hf: PreTrainedModel) -> None:
    """Refuse a model that is no causal language model.

    Raises:
        HeadscopeError: it has an encoder, or no map to logits of tokens.
    """
    name = type(hf).__name__
    if getattr(hf.config, "is_encoder_decoder", False):
        raise HeadscopeError(
            f"{name} is an encoder with a decoder; headscope reads causal language models only."
        )
    if not isinstance(hf.get_output_embeddings(), nn.Module):
        raise HeadscopeError(
            f"{name} has no language-model head, so that it gives no logits of tokens; open the "
            "model as transformers' AutoModelForCausalLM does."
        )


def discover(hf: PreTrainedModel) -> list[Found]:
    """The attention layers of a model whose attention is already routed to headscope.

    Raises:
        HeadscopeError: a layer computes its attention elsewhere; it names model and layer.
    """
    name = type(hf).__name__
    check_decoder(hf)
    discovery = Discovery()
    token = hf.config.get_text_config().vocab_size // 2
    ids = torch.full((1, 4), token, device=hf.device)
    try:
        with discovery.watching(hf), torch.no_grad(), without_autocast(hf.device):
            hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except HeadscopeError:
        raise
    except Exception as error:
        if hf.device.type == "meta" and not isinstance(error, ValueError):
            raise  # perhaps it only asked for a number, which shapes have not
        # A layer that computes its own attention meets a mask that it cannot read.
        raise HeadscopeError(
            f"{name} cannot be opened: it does not run on transformers' attention interface, "
            f"without which headscope would not see its heads ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:80]})."
        ) from error
    found = sorted(discovery.found, key=lambda layer: layer.layer)
    missing = sorted(set(expected_layers(hf.config)) - {layer.layer for layer in found})
    if missing:
        raise HeadscopeError(
            f"{name} cannot be opened: layer {missing[0]} computes its attention without "
            "transformers' attention interface, so that headscope would not see its heads"
            + (f" ({len(missing)} layers in all)." if len(missing) > 1 else ".")
        )
    shapes = {(layer.n_heads, layer.n_kv_heads, layer.d_head) for layer in found}
    if len(shapes) > 1 or len({layer.layer for layer in found}) < len(found):
        raise HeadscopeError(
            f"{name} cannot be opened: its layers differ in their number of heads, or share an "
            "index, and a head map needs one shape for all."
        )
    return found
