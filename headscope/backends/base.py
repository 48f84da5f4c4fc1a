"""What every backend shares: passes, runs, and the one place where attention goes through."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import RLock
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, StaticLayer

from headscope.attention import Attention
from headscope.backends.discover import Found, hidden_of
from headscope.backends.rotary import Rotary
from headscope.cache import HeldLayer, LayerCache
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.geometry import Geometry
from headscope.head_cache import HeadCache
from headscope.head_layer import HeadLayer
from headscope.rope import Rope
from headscope.run import Phase, Run
from headscope.stack import Chain, Life, Middleware, Observer, Stack


@dataclass(eq=False)
class Pass:
    """One forward pass: the run it continues, and the chain as it stood at its start."""

    run: Run
    chain: Chain
    reached: int = 0  # layers whose attention came through here


@dataclass(eq=False)
class Site:
    """One attention layer, and what its last call was given beside q, k and v."""

    layer: int
    module: nn.Module
    rotary: Rotary | str | None
    hidden: Tensor | None = None
    cache: Any = None
    sizes: tuple[int, int] | None = None  # keys that the cache will hand over, and where they start
    position_ids: Tensor | None = None

    def enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """A forward pre-hook: transformers hands none of this to an attention function."""
        self.hidden = hidden_of(args, kwargs)
        self.position_ids = kwargs.get("position_ids")
        cache = kwargs.get("past_key_values", kwargs.get("layer_past"))
        self.cache = cache if isinstance(cache, Cache) else None
        self.sizes = None
        if self.cache is not None and self.hidden is not None:
            self.sizes = self.cache.get_mask_sizes(self.hidden.shape[1], self.layer)

    def forget(self) -> None:
        self.hidden = self.cache = self.sizes = self.position_ids = None

    def rope(self, positions: Int[Tensor, "batch query"]) -> Rope | None:
        """The layer's rotation for a call with these query positions."""
        if self.rotary is None:
            return None
        if isinstance(self.rotary, str):
            return Rope(partial(_refuse, self.layer, self.rotary))
        own = self.rotary
        return Rope(own.tables, own.pairing, positions, self.position_ids, own.base)


def _refuse(layer: int, why: str, *_: Any) -> Any:
    raise HeadscopeError(f"The rotation of layer {layer} cannot be changed: {why}.")


_holders: "weakref.WeakKeyDictionary[nn.Module, weakref.ref[Backend]]" = weakref.WeakKeyDictionary()


@dataclass(eq=False)
class Call:
    """What a layer hands over, in headscope's order of axes."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    geometry: Geometry
    softcap: float | None = None
    sink_logits: Tensor | None = None

    def cast(self, dtype: torch.dtype) -> "Call":
        """The same with q, k and v in one dtype, as autocast would have it: float64 stays."""
        if torch.float64 in (self.q.dtype, self.k.dtype, self.v.dtype):
            dtype = torch.float64
        return replace(self, q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))


class _Beams:
    """What a cache calls when beams change places; a copy of the cache is followed by nobody."""

    def __init__(self, told: Callable[[Any, Tensor], None], cache: Any) -> None:
        self._told, self._cache = weakref.WeakMethod(told), weakref.ref(cache)

    def __call__(self, beam_idx: Tensor) -> None:
        cache: Any = self._cache()
        told = self._told()
        if told is None:
            type(cache).reorder_cache(cache, beam_idx)
        else:
            told(cache, beam_idx)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo[id(self._cache())]  # this stands in the cache, which is copied first
        return partial(type(copied).reorder_cache, copied)


class Backend(ABC):
    """Stands between a model and its attention; the model is untouched while none is attached."""

    name: ClassVar[str]

    def __init__(self, hf: PreTrainedModel) -> None:
        self.hf = hf
        self.stack = Stack()
        self.layers = self.discover()
        self.sites = [Site(found.layer, found.module, found.rotary) for found in self.layers]
        # How far back layers see that do not see everything, in tokens; the self-test notes it.
        self.reach: dict[int, int] = {}
        self.current: Pass | None = None
        self.drafting = False  # several queries at once are a draft to be verified, not a chunk
        self.prompt_length: Tensor | None = None
        self.lock = RLock()  # what a pass is told stands here: one pass at a time
        self._runs: weakref.WeakKeyDictionary[Any, Run] = weakref.WeakKeyDictionary()
        self._depth = 0
        self._handles: list[Any] | None = None
        self._recomputable: weakref.WeakSet[Geometry] = weakref.WeakSet()

    # ---- for subclasses --------------------------------------------------------------------

    @abstractmethod
    def discover(self) -> list[Found]:
        """The attention layers of the model, in order."""

    @abstractmethod
    def attach(self) -> list[Any]:
        """Put the hooks in; returns what `detach` needs to take them out."""

    @abstractmethod
    def detach(self, handles: list[Any]) -> None:
        """Leave the model exactly as it was."""

    @abstractmethod
    def native(self, inputs: dict[str, Any]) -> Tensor:
        """Logits for transformers' own keyword arguments, the model left to itself."""

    @abstractmethod
    def defined(self, inputs: dict[str, Any]) -> Tensor:
        """The same by the model's eager attention, which leaves out nothing.

        Some versions of transformers run models on kernels that skip a soft-cap.
        """

    @abstractmethod
    def forward(self, inputs: dict[str, Any]) -> Tensor:
        """Logits with the attention going through the stack."""

    @abstractmethod
    def generate(self, inputs: dict[str, Any]) -> Tensor:
        """Run transformers' `generate`; returns the sequences, prompt included."""

    def parameters(self) -> Iterator[Tensor]:
        """The model's own parameters, without copies that a backend made of them."""
        return self.hf.parameters()

    # ---- attaching -------------------------------------------------------------------------

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within this context the model's attention goes through the stack; it nests."""
        if self._handles is None:
            self._claim()
            self._handles = self.attach()
        self._depth += 1
        before = self.current
        try:
            yield
        finally:
            self._depth -= 1
            self.current = before  # an interrupted pass ends without its hook being called
            self._release()

    def _claim(self) -> None:
        """One opening of a model at a time: a second would take over its attention."""
        holder = _holders.get(self.hf, lambda: None)()
        if holder is not None and holder is not self and holder._handles is not None:
            raise HeadscopeError(
                f"This {type(self.hf).__name__} was opened twice, and a scope is open on the other "
                "HeadModel; use one of them for both."
            )
        _holders[self.hf] = weakref.ref(self)

    def _release(self) -> None:
        # A checkpointed graph keeps the mask of its pass alive, and will run layers again.
        if self._depth == 0 and self._handles is not None and not self._recomputable:
            handles, self._handles = self._handles, None
            self.detach(handles)

    def _hold(self, geometry: Geometry) -> None:
        """Stay attached until no graph can recompute this pass any more."""
        if geometry not in self._recomputable:
            # References die in reverse order: the set must have forgotten it when _release asks.
            weakref.finalize(geometry, self._release)
            self._recomputable.add(geometry)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Show every finished attention to a function, for the length of a scope."""
        with self.attached(), self.stack.observed(observer):
            yield

    @contextmanager
    def entered(self, around: Middleware, life: Life | None = None) -> Iterator[None]:
        """Put a middleware inside those entered before it, for the length of a scope."""
        with self.attached(), self.stack.entered(around, life):
            yield

    @contextmanager
    def answering(self, prompt_length: Tensor | None, drafting: bool = False) -> Iterator[None]:
        """Passes begun within know where their answer starts, and whether they verify drafts."""
        before = self.prompt_length, self.drafting
        self.prompt_length, self.drafting = prompt_length, drafting
        try:
            yield
        finally:
            self.prompt_length, self.drafting = before

    # ---- passes ----------------------------------------------------------------------------

    def begin(self, tokens: Tensor | None, rows: int, length: int, cache: Any) -> Pass:
        """A forward pass over [rows, length] starts: find the run it continues, or begin one."""
        if isinstance(cache, HeadCache):
            cache.fit(self.hf.config, self.layers)
        held = int(cache.get_seq_length()) if cache is not None else 0
        chain = self.stack.chain
        run = self._runs.get(cache) if held else None
        if run is None:
            run = Run()
            if held:
                run.extend(None, held)
            self.stack.runs.add(run)
        elif held < run.seen:
            for life in chain.lives():
                life.crop(run, held)
            run.crop(held)
            run.step += 1
        else:
            run.step += 1
        if cache is not None:
            self._follow(cache, run)
        if self.prompt_length is not None:
            run.prompt_length = self._of_batch(self.prompt_length, rows)
        run.phase = self._phase(held, length)
        run.extend(tokens, length)
        chain.begin(run)
        return Pass(run, chain)

    @staticmethod
    def _of_batch(lengths: Tensor, rows: int) -> Tensor:
        """Prompt lengths for a batch in which `generate` says each prompt several times."""
        if rows % len(lengths):
            raise HeadscopeError(
                f"There are {len(lengths)} prompt lengths and {rows} sequences; give one for each."
            )
        return lengths.repeat_interleave(rows // len(lengths))

    def _phase(self, held: int, length: int) -> Phase:
        if held == 0:
            return "prefill"
        if length == 1:
            return "decode"
        return "verify" if self.drafting else "chunk"

    def _follow(self, cache: Any, run: Run) -> None:
        """Tie a run to its cache, and hear when beams change places."""
        self._runs[cache] = run
        if not isinstance(vars(cache).get("reorder_cache"), _Beams):
            cache.reorder_cache = _Beams(self._reorder, cache)

    def _reorder(self, cache: Any, beam_idx: Tensor) -> None:
        run = self._runs[cache]
        for life in self.stack.chain.lives():
            life.reorder(run, beam_idx)
        run.reorder(beam_idx)
        type(cache).reorder_cache(cache, beam_idx)

    # ---- the seam --------------------------------------------------------------------------

    def attend(self, site: Site, call: Call) -> Attended:
        """Send one layer's attention through the chain of the pass it belongs to."""
        geometry = call.geometry
        if self.current is not None:
            geometry.pass_ = self.current
            if self.hf.training:
                self._hold(geometry)
        if geometry.pass_ is None:
            raise HeadscopeError(
                f"Layer {site.layer} ran outside a forward pass of the model that was opened; call "
                "the whole model, not one of its layers."
            )
        here: Pass = geometry.pass_
        here.reached += 1
        device = call.q.device.type
        if not torch.is_autocast_enabled(device):
            return self._attended(site, call, here)
        # Rotated queries and keys leave autocast wider than values; a kernel wants them alike, and
        # gets them so from autocast's own rules. What headscope computes of them stays wide.
        call = call.cast(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            return self._attended(site, call, here)

    def _attended(self, site: Site, call: Call, here: Pass) -> Attended:
        attention = self._attention(site, call, here)
        held = None if site.cache is None else site.cache.layers[site.layer]
        if isinstance(held, HeadLayer):
            return held.attend(attention, call.geometry, here.chain)
        return here.chain(attention)

    def _attention(self, site: Site, call: Call, here: Pass) -> Attention:
        geometry, cache = call.geometry, site.cache
        if cache is not None:
            self._follow(cache, here.run)
        query, key = geometry.positions()
        slots, mask = geometry.slots, geometry.mask
        held = None if cache is None else cache.layers[site.layer]
        if isinstance(held, HeldLayer) and held.positions is not None:
            new = query[:, None].expand(-1, held.positions.shape[1], -1)
            held.positions = torch.cat((held.positions, new), dim=2)
            key, slots = held.positions, None
        elif isinstance(held, StaticLayer):
            call = replace(
                call, k=call.k[:, :, : geometry.n_keys], v=call.v[:, :, : geometry.n_keys]
            )
        elif isinstance(held, HeadLayer):
            # Of the new tokens among themselves; the layer joins what it holds.
            key, slots = query, slots and replace(slots, first_key=slots.first_query)
            mask = None if mask is None else mask[..., -call.k.shape[2] :]
        elif call.k.shape[2] != geometry.n_keys:
            # The mask was made for another layer's cache: this one holds a different number.
            if site.sizes is None or site.sizes[0] != call.k.shape[2]:
                raise HeadscopeError(
                    f"Layer {site.layer} attends to {call.k.shape[2]} keys where its mask speaks "
                    f"of {geometry.n_keys}; this cache is of a kind that headscope cannot follow."
                )
            own = replace(geometry, n_keys=site.sizes[0], first_key=site.sizes[1])
            key, slots = own.positions()[1], own.slots
        return Attention(
            layer=site.layer,
            q=call.q,
            k=call.k,
            v=call.v,
            scale=call.scale,
            query_positions=query,
            key_positions=key,
            softcap=call.softcap,
            window=geometry.window,
            chunk=geometry.chunk,
            sink_logits=call.sink_logits,
            mask=mask,
            slots=slots,
            rope=site.rope(query),
            hidden=site.hidden,
            cache=None if cache is None else LayerCache(cache, site.layer, call.k.shape[1], key),
            run=here.run,
        )
