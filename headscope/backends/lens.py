"""TransformerLens 4: the same chain, reached through a bridge's own hook points.

A bridge computes attention itself, n × n, so the registered function is never called. Rotated
queries come from `hook_rot_q`, keys and values from what the cache's `update` returned, and z is
written at `hook_z`. Bridges that hand attention back to transformers go through its seam.
"""

import weakref
from collections.abc import Iterator
from typing import Any, cast

from einops import rearrange
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from headscope.backends import discover
from headscope.backends.base import Call, Pass, Site
from headscope.backends.hf import HFBackend, attention_function
from headscope.engines import dense
from headscope.errors import HeadscopeError
from headscope.geometry import geometry_mask, geometry_of
from headscope.head_cache import HeadCache

NAME = "headscope_lens"


class LensBackend(HFBackend):
    """A TransformerBridge, its own hooks and everything else about it left as they are."""

    name = "lens"
    attention_name = NAME

    def __init__(self, bridge: TransformerBridge) -> None:
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)
        self.bridge = bridge
        super().__init__(cast(PreTrainedModel, bridge.original_model))

    def discover(self) -> list[discover.Found]:
        rebuilt = [module for module in self.hf.modules() if _rebuilt(module)]
        taps = [_Tap(module) for module in rebuilt]
        try:
            return super().discover()
        finally:
            for tap in taps:
                tap.remove()

    def attach_site(self, site: Site) -> list[Any]:
        if _rebuilt(site.module):
            return [_Tap(site.module, weakref.ref(self), site)]
        return super().attach_site(site)

    def parameters(self) -> Iterator[Tensor]:
        # A bridge around a joint projection holds it again, cut into q, k and v.
        joint = [f"{n}." for n, m in self.hf.named_modules() if _rebuilt(m) and hasattr(m, "qkv")]
        copies = tuple(prefix + part for prefix in joint for part in ("q.", "k.", "v."))
        return (p for name, p in self.hf.named_parameters() if not name.startswith(copies or "."))

    def begin(self, tokens: Tensor | None, rows: int, length: int, cache: Any) -> Pass:
        if isinstance(cache, HeadCache):
            raise HeadscopeError(
                "TransformerLens attends to what a cache hands back, and the heads of a HeadCache "
                "hold different keys; open this model with backend='hf'."
            )
        return super().begin(tokens, rows, length, cache)

    def native(self, inputs: dict[str, Any]) -> Tensor:
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        return self.bridge(inputs["input_ids"], **rest)

    def forward(self, inputs: dict[str, Any]) -> Tensor:
        with self.attached():
            return self.native(inputs)


def _rebuilt(module: nn.Module) -> bool:
    """Whether a module is a bridge that computes attention itself."""
    return (
        isinstance(module, AttentionBridge) and type(module).forward is not AttentionBridge.forward
    )


class _Tap:
    """The hooks in one attention bridge, for the length of a scope."""

    def __init__(self, module: Any, backend: Any = None, site: Site | None = None) -> None:
        for part in ("hook_q_gate", "hook_gate"):
            if hasattr(module, part):
                raise HeadscopeError(
                    f"{module.name} gates its output, which TransformerLens applies where "
                    "headscope cannot see it; open this model with backend='hf'."
                )
        if not all(hasattr(module, part) for part in "qo"):
            raise HeadscopeError(
                f"{type(module).__name__} has no hook_q and hook_z of the usual kind; open this "
                "model with backend='hf'."
            )
        self._module, self._backend, self._site = module, backend, site
        self._q = self._kv = self._mask = None
        self._rotated = False
        rotated = getattr(module, "hook_rot_q", None)
        self._handles = [
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.q.hook_out.register_forward_hook(self._take_q),
            # In front of the user's own hooks, which then see the z that is really used.
            module.o.hook_in.register_forward_hook(self._put_z, prepend=True),
        ]
        if rotated is not None:
            self._handles.append(rotated.register_forward_hook(self._take_rotated))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._site is not None:
            self._site.enter(module, args, kwargs)
        self._mask, self._rotated = kwargs.get("attention_mask"), False
        name = "layer_past" if "layer_past" in kwargs else "past_key_values"
        self._kv = _Recall(kwargs.get(name))
        return args, {**kwargs, name: self._kv}

    def _take_q(self, point: nn.Module, args: Any, q: Tensor) -> None:
        heads = self._module.config.n_heads
        flat = q if q.ndim == 3 else q.flatten(2)
        self._q = rearrange(flat, "b q (h d) -> b h q d", h=heads)

    def _take_rotated(self, point: nn.Module, args: Any, q: Tensor) -> None:
        self._q, self._rotated = q, True

    def _put_z(self, point: nn.Module, args: Any, own: Tensor) -> Tensor | None:
        q, kv, mask = self._q, self._kv, self._mask
        self._q = self._kv = self._mask = None
        assert q is not None
        assert kv is not None  # both fired before z is written
        k, v = kv.returned
        discovery = discover.current.get()
        if discovery is not None:
            discovery.record(self._module, q, k)
            return own.new_zeros(own.shape)
        site, backend = self._site, self._backend()
        assert site is not None  # only a discovery has none
        geometry = geometry_of(mask)
        if geometry is None:
            raise HeadscopeError(
                f"Layer {site.layer} of the bridge got a mask of the caller's own; headscope "
                "follows TransformerLens on its own masks only."
            )
        if not self._rotated and site.rotary is not None:
            rope = site.rope(geometry.positions()[0])
            assert rope is not None
            q = rope.rotate(q, geometry.positions()[0])
        hf = self._module.original_component
        call = Call(
            q, k, v, getattr(hf, "scaling", q.shape[-1] ** -0.5), geometry,
            getattr(hf, "attn_logit_softcapping", None), getattr(hf, "sinks", None),
        )  # fmt: skip
        try:
            attended = backend.attend(site, call)
            chain = geometry.pass_.chain
        finally:
            site.forget()
        if not chain.entered and chain.engine is dense:
            return None  # nothing was changed: what the user's hooks did to the pattern stands
        return rearrange(attended.z, "b h q d -> b q (h d)").reshape(own.shape)


class _Recall:
    """Stands in for a cache: remembers the keys and values that a layer really attends to."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.returned: tuple[Tensor, Tensor]

    def update(self, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        own = self._cache is not None
        self.returned = self._cache.update(k, v, *args, **kwargs) if own else (k, v)
        return self.returned


def _mask(*args: Any, **kwargs: Any) -> Tensor:
    """The eager mask that a bridge adds to its scores, with the geometry attached to it."""
    mask = eager_mask(*args, **kwargs)
    token = geometry_mask(*args, **kwargs)
    mask.geometry = geometry_of(token)  # pyright: ignore[reportAttributeAccessIssue]
    return mask


def _attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """For bridges that delegate: as plain transformers, with the pattern for `hook_pattern`."""
    z, attended = attention_function(module, *args, **kwargs)
    return z, None if attended is None else attended.attention.dense()
