from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.caching import _Cache, hiding
from headscope.interventions.checks import check_sizes
from headscope.interventions.following import _Following
from headscope.interventions.sinks_and_window import all_layers
from headscope.run import Run
from headscope.stack import Again, Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel

_LOGITS = 2**24  # computed at a time
_LEAST = 1e-30  # nats; what is certain ranks last and stays comparable


@dataclass(frozen=True)
class SirLLM(_Following, _Cache):
    """All heads keep the first tokens, the last ones, and those that surprised the model most.

    e_j = -log p(token j | what the model read before it), in nats, under the model with this cache.
    After every pass the cache keeps j < sink, the `recent` last tokens, and of the others that are
    still held the `top` tokens of the largest e_j decay^(i - j), i being the last token read.
    Rows of one pass see all that was held when it began, and each other; a prompt is such a pass.
    Positions stay those of the text.

    A forward pass may give the logits of its last rows alone, as `generate` does. e_j is therefore
    computed from the output of the final norm, which has every row, and the unembedding; other
    methods' changes to logits do not reach it.

    Source: Yao et al. 2024, "SirLLM: Streaming Infinite Retentive LLM", arXiv 2405.12528, section
    3 (token entropy and its decay; read second-hand). Headscope's own: a decay by token where the
    paper's is by turn of a dialogue, recent tokens as a number of their own, positions.

    Attributes:
        sink: first tokens that are kept.
        recent: last tokens that are kept.
        top: further tokens that are kept for their entropy.
        decay: what entropy is multiplied by for every token read later; 1 forgets nothing.
    """

    paper = "Yao et al. 2024, arXiv 2405.12528"
    stateful: ClassVar[bool] = True
    sink: int = 4
    recent: int = 64
    top: int = 192
    decay: float = 1.0

    def __post_init__(self) -> None:
        check_sizes("SirLLM", sink=(self.sink, 0), recent=(self.recent, 1), top=(self.top, 0))
        if not 0 < self.decay <= 1:
            raise HeadscopeError(f"SirLLM needs a decay above 0 and up to 1, not {self.decay}.")

    def check(self, model: "HeadModel") -> None:
        """Refuse a model whose logits are more than its unembedding and a soft-cap."""
        kept: list[Tensor] = []
        handle = model.final_norm.register_forward_hook(lambda *args: kept.append(args[2]))
        try:
            with torch.no_grad():
                logits = model.forward([0, 1, 2])
        finally:
            handle.remove()
        want, found = (x.float().log_softmax(-1) for x in (logits, _logits(model, kept[-1])))
        if not torch.allclose(found, want, atol=0.1):
            raise HeadscopeError(
                f"SirLLM cannot tell how likely tokens are to {model.name}: its logits are more "
                "than its unembedding, or another scope changes them; open SirLLM's first."
            )

    @contextmanager
    def __call__(self, model: "HeadModel") -> Iterator["HeadModel"]:
        with super().__call__(model):

            def keep(module: nn.Module, args: Any, out: Tensor) -> None:
                # Probes may use the norm for themselves; what is left when a pass ends is its own.
                if model.backend.current is not None:
                    model.backend.current.run.state.setdefault(self, {})["passed"] = model, out

            handle = model.final_norm.register_forward_hook(keep)
            try:
                yield model
            finally:
                handle.remove()

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        run = attention.run
        assert run is not None
        held = run.state.setdefault(self, {})
        at = attention.query_positions
        if "positions" not in held:
            if run.seen > attention.n_queries:
                raise HeadscopeError(
                    "SirLLM has to see a sequence from its start, to know how likely its tokens "
                    "were; begin it within the scope."
                )
            held |= {"positions": at[:, :0], "alive": at[:, :0] >= 0}
        if held["positions"].shape[1] < run.seen:
            held["positions"] = torch.cat((held["positions"], at), 1)
            held["alive"] = torch.cat((held["alive"], at >= 0), 1)
        gone = ~held["alive"][:, -attention.n_keys :]
        return attend(hiding(attention, gone[:, None].expand(-1, attention.n_kv_heads, -1)))

    @torch.no_grad()
    def said(
        self, run: Run, logits: Float[Tensor, "batch kept vocab"], again: Again
    ) -> Float[Tensor, "batch kept vocab"]:
        """After a pass: how likely its tokens were, and which are held from here on."""
        held: dict[str, Any] = run.state[self]
        model, hidden = held.pop("passed")
        before = held.get("last", torch.zeros_like(hidden[:, :1]))
        tokens = run.token_ids[:, -hidden.shape[1] :]
        fresh = _surprise(model, torch.cat((before, hidden[:, :-1]), 1), tokens)
        held["last"] = hidden[:, -1:].clone()
        nats = fresh if "nats" not in held else torch.cat((held["nats"], fresh), 1)
        # Nothing foretold the first token.
        held["nats"] = nats.masked_fill(held["positions"] == 0, 0)
        held["alive"] = self._still(held["nats"], held["positions"], held["alive"])
        return logits

    def _still(
        self,
        nats: Float[Tensor, "batch seen"],
        positions: Int[Tensor, "batch seen"],
        alive: Bool[Tensor, "batch seen"],
    ) -> Bool[Tensor, "batch seen"]:
        last = positions.amax(1, keepdim=True)
        edges = (positions < self.sink) | (positions > last - self.recent)
        score = nats.double().clamp(min=_LEAST).log() + (last - positions) * log(self.decay)
        score = score.masked_fill(edges | ~alive, -torch.inf)
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self.top]
        return alive & (edges | torch.zeros_like(alive).scatter(1, best, True))

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        # What a step reads was chosen before it, and its own key is held beside that.
        before = min(tokens + new - 1, self.sink + self.recent + self.top)
        return all_layers(model, before + 1)


def _surprise(
    model: "HeadModel",
    hidden: Float[Tensor, "batch row model"],
    tokens: Int[Tensor, "batch row"],
) -> Float[Tensor, "batch row"]:
    """-log p of each token, from what stood before the unembedding a row earlier."""
    rows = max(1, _LOGITS // (len(hidden) * model.vocab_size))
    parts = []
    for part, next_ in zip(hidden.split(rows, 1), tokens.split(rows, 1), strict=True):
        logp = _logits(model, part).float().log_softmax(-1)
        parts.append(-logp.gather(-1, next_.to(logp.device)[..., None])[..., 0])
    return torch.cat(parts, 1)


def _logits(model: "HeadModel", hidden: Tensor) -> Tensor:
    head = cast(Any, model.hf.get_output_embeddings())
    logits = linear(hidden, model.unembed.T, getattr(head, "bias", None))
    cap = getattr(model.hf.config.get_text_config(), "final_logit_softcapping", None)
    return logits if not cap else cap * torch.tanh(logits / cap)
