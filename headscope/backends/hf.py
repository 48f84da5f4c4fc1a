"""Plain transformers: a registered attention function, a mask function, and one hook a layer."""

import weakref
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedModel,
)
from transformers.cache_utils import Cache

from headscope.backends import discover
from headscope.backends.base import Backend, Call, Site
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.geometry import Geometry, bool_mask, geometry_mask, geometry_of
from headscope.head_cache import HeadCache

NAME = "headscope"
_owners: "weakref.WeakKeyDictionary[nn.Module, tuple[Any, Site]]" = weakref.WeakKeyDictionary()


class HFBackend(Backend):
    """A transformers model on any architecture that uses its attention interface."""

    name = "hf"
    attention_name = NAME

    def __init__(self, hf: PreTrainedModel) -> None:
        AttentionInterface.register(NAME, attention_for_transformers)
        AttentionMaskInterface.register(NAME, geometry_mask)
        self._outermost: nn.Module | None = None
        self._given: tuple[Any, dict[str, Any]] = ((), {})  # what its pass was called with
        super().__init__(hf)

    def discover(self) -> list[discover.Found]:
        configs = _route(self.hf, self.attention_name)
        try:
            return discover.discover(self.hf)
        finally:
            _restore(configs)

    def attach(self) -> list[Any]:
        handles: list[Any] = []
        for module in dict.fromkeys((self.hf, discover.decoder_of(self.hf))):
            handles.append(module.register_forward_pre_hook(self._begin, with_kwargs=True))
            # In front of other hooks (nnsight's are some), which then see what is really said.
            end = module.register_forward_hook(self._end, prepend=True, always_call=True)
            handles.append(end)
        for site in self.sites:
            handles += self.attach_site(site)
        return [*handles, _route(self.hf, self.attention_name)]

    def attach_site(self, site: Site) -> list[Any]:
        """Hook one layer; returns the handles."""
        _owners[site.module] = weakref.ref(self), site
        return [site.module.register_forward_pre_hook(site.enter, with_kwargs=True)]

    def detach(self, handles: list[Any]) -> None:
        _restore(handles.pop())
        for handle in handles:
            handle.remove()
        for site in self.sites:
            _owners.pop(site.module, None)
            site.forget()

    def native(self, inputs: dict[str, Any]) -> Tensor:
        return self.hf(**inputs).logits

    def defined(self, inputs: dict[str, Any]) -> Tensor:
        before = _route(self.hf, "eager")
        try:
            return self.native(inputs)
        finally:
            _restore(before)

    def forward(self, inputs: dict[str, Any]) -> Tensor:
        with self.attached():
            return self.native(inputs)

    def generate(self, inputs: dict[str, Any]) -> Tensor:
        with self.attached():
            return self.hf.generate(**inputs)  # pyright: ignore[reportCallIssue]

    def _begin(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        # The decoder begins within the model's pass; a model that begins again lost its last one.
        if self.current is not None and module is not self._outermost:
            return
        tokens = kwargs.get("input_ids", args[0] if args else None)
        given = tokens if tokens is not None else kwargs["inputs_embeds"]
        rows, length = given.shape[:2]
        self.current = self.begin(tokens, rows, length, kwargs.get("past_key_values"))
        self._outermost, self._given = module, (args, kwargs)

    def _end(self, module: nn.Module, args: Any, output: Any) -> Any:
        if module is not self._outermost:
            return None
        here, self.current = self.current, None
        (args, kwargs), self._given = self._given, ((), {})
        logits = getattr(output, "logits", None)  # an interrupted pass has no output
        if here is None or logits is None:
            return None
        if not here.reached:
            raise HeadscopeError(
                f"The attention of this {type(self.hf).__name__} no longer goes through headscope: "
                "its attn_implementation was changed while a scope was open or a profile in force; "
                "close it, or drop the profile, before you change it."
            )
        changed = here.chain.said(here.run, logits, partial(self._again, module, args, kwargs))
        if changed is logits:
            return None
        output.logits = changed
        return output

    def _again(
        self,
        module: nn.Module,
        args: Any,
        kwargs: dict[str, Any],
        cache: Cache,
        state: Mapping[Hashable, Any],
    ) -> Tensor:
        """Logits of a pass that is over, made once more; see `stack.Again`."""
        if isinstance(kwargs.get("past_key_values"), HeadCache):
            raise HeadscopeError(
                "A method in force reads each pass again with a cache of its own, which would hold "
                "more than the HeadCache does; pass a DynamicCache."
            )
        if kwargs.get("past_key_values") is not None:
            kwargs = {**kwargs, "past_key_values": cache}
        self._begin(module, args, kwargs)
        assert self.current is not None
        self.current.run.state.update(state)
        try:
            # Hooks on the module itself are for the pass that the caller made.
            return module.forward(*args, **kwargs).logits
        finally:
            self.current, self._given = None, ((), {})


def attention_for_transformers(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """The function behind `attn_implementation="headscope"`: z, and no weights."""
    return attention_function(module, *args, **kwargs)[0], None


def attention_function(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **_: Any,  # transformers hands every layer whatever its caller was given
) -> tuple[Tensor, Attended | None]:
    """What a layer calls: [batch, head, query, d] in, z as [batch, query, head, d] out."""
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if position_bias is not None or not causal:
        odd = "attention in both directions" if not causal else "a position bias"
        raise HeadscopeError(
            f"{type(module).__name__} uses {odd}, which headscope cannot reproduce."
        )
    discovery = discover.current.get()
    if discovery is not None:
        discovery.record(module, query, key)
        shape = (query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        return query.new_zeros(shape), None
    owner, site = _owners.get(module, (lambda: None, None))
    backend = owner()
    if backend is None or site is None:
        raise HeadscopeError(
            f"This {type(module).__name__} belongs to no model that headscope opened; open the "
            "whole model with headscope.load(), or give it a profile with "
            "headscope.sparsity.use_profile()."
        )
    where = f"{type(backend.hf).__name__}, layer {site.layer}"
    if dropout:
        raise HeadscopeError(
            f"{where} uses dropout, which headscope cannot reproduce; call model.eval() first."
        )
    geometry = geometry_of(attention_mask)
    if geometry is None:
        geometry = _from_mask(attention_mask, query, key, site, where)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = Call(query, key, value, scale, geometry, softcap, s_aux)
    try:
        attended = backend.attend(site, call)
    finally:
        site.forget()  # a site that kept its input would keep every layer's
    return attended.z.transpose(1, 2).contiguous(), attended


def _from_mask(mask: Tensor | None, query: Tensor, key: Tensor, site: Site, where: str) -> Geometry:
    """The geometry of a caller's own four-dimensional mask, which says nothing of offsets."""
    if mask is None or mask.ndim != 4:
        raise HeadscopeError(f"{where} got no mask from transformers, so its geometry is unknown.")
    seen = bool_mask(mask)[..., : key.shape[2]]
    first = key.shape[2] - query.shape[2]
    if site.position_ids is not None:
        first = int(site.position_ids[0, 0])
    return Geometry(
        query.shape[0], query.shape[2], key.shape[2], first, 0, None, None, None, seen,
        query.device,
    )  # fmt: skip


def _route(hf: PreTrainedModel, name: str) -> list[tuple[Any, Any]]:
    """Send a decoder's attention to another implementation; returns what was set before."""
    decoder = discover.decoder_of(hf)
    configs = [
        hf.config.get_text_config(),
        *(getattr(m, "config", None) for m in decoder.modules()),
    ]
    unique = {id(config): config for config in configs if hasattr(config, "_attn_implementation")}
    before = [(config, config._attn_implementation_internal) for config in unique.values()]
    for config in unique.values():
        config._attn_implementation_internal = name
    return before


def _restore(configs: list[tuple[Any, Any]]) -> None:
    for config, implementation in configs:
        config._attn_implementation_internal = implementation
