"""A direction for the queries of each of some heads, trained to look at the gold document."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head, by_layer, selected_heads
from headscope.interventions.trained import Origin, facts_of, load_trained, save_trained
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.model import HeadModel

Progress = Callable[[int, int], None]  # layers done, layers in all


class DirectionFacts(Origin):
    """What is known of trained directions.

    Attributes:
        heads: whose they are, most contextual first.
        span: what they were trained to look at.
        prompts, epochs, lr: of the training.
        before, after: mean attention on the span, over heads, prompts and rows, without and with
            the directions at factor 1; each layer by itself, as in the training.
    """

    kind: Literal["directions"] = "directions"
    heads: tuple[Head, ...]
    span: str
    prompts: int
    epochs: int
    lr: float
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Directions:
    """Vectors that are added to the rotated queries of some heads.

    Attributes:
        q: [head, d], in the order of `facts.heads`.
        facts: the model, the heads and the training.
    """

    q: Float[Tensor, "head d"]
    facts: DirectionFacts

    @property
    def heads(self) -> tuple[Head, ...]:
        """Whose they are, most contextual first."""
        return self.facts.heads

    @classmethod
    def train(
        cls,
        model: "HeadModel",
        prompts: Sequence[Prompt],
        heads: Sequence[Head | str],
        *,
        span: str = "gold",
        epochs: int = 10,
        lr: float = 1e-3,
        batch: int = 8,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> "Directions":
        """Train each layer by itself on what the model's own passes gave it.

        loss = −mean over heads, rows that make an answer token, and prompts of the attention on the
        span, with AdamW. Only the rows of the answer and the keys of the layers are kept in memory.

        Args:
            prompts: with the span, and an answer, which is read along; none of the test's.
            heads: which, most contextual first (the probe `contextual` ranks them).
            batch: prompts a step.

        Raises:
            HeadscopeError: no prompts, one without the span or an answer, or a loss that is not
                finite.
        """
        chosen = selected_heads(heads, model.layers, model.n_heads, model.name)
        if not prompts or epochs < 1 or batch < 1:
            raise HeadscopeError("Directions need at least one prompt, epoch and prompt a step.")
        for prompt in prompts:
            prompt.span(span)
            if not prompt.answer_ids:
                raise HeadscopeError("Directions are trained on answers; give every prompt one.")
        kept = _answer_rows(model, prompts, list(by_layer(chosen)))
        found: dict[Head, Tensor] = {}
        before, after = [], []
        layers = sorted(by_layer(chosen))
        for done, layer in enumerate(layers):
            if progress is not None:
                progress(done, len(layers))
            mine = [head for at, head in chosen if at == layer]
            spans = [prompt.span(span) for prompt in prompts]
            trained, was, now = _trained(kept[layer], spans, mine, epochs, lr, batch, seed)
            found |= {(layer, head): q for head, q in zip(mine, trained, strict=True)}
            before += [was] * len(mine)
            after += [now] * len(mine)
        if progress is not None:
            progress(len(layers), len(layers))
        facts = DirectionFacts(
            **facts_of(model), heads=chosen, span=span, prompts=len(prompts), epochs=epochs, lr=lr,
            before=sum(before) / len(before), after=sum(after) / len(after),
        )  # fmt: skip
        return cls(torch.stack([found[head] for head in chosen]), facts)

    def random(self, seed: int = 0) -> "Directions":
        """As long as these, in random directions: a control."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.q.shape, generator=generator)
        drawn *= self.q.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
        return replace(self, q=drawn)

    def save(self, path: str | Path) -> Path:
        """Save them as one safetensors file."""
        return save_trained(path, {"q": self.q.numpy()}, self.facts)

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read saved directions.

        Raises:
            HeadscopeError: the file is missing, damaged or something else.
        """
        arrays, facts = load_trained(path, DirectionFacts, "directions")
        q = arrays.get("q")
        if set(arrays) != {"q"} or q is None or q.shape != (len(facts.heads), facts.d_head):
            raise HeadscopeError(
                f"{path} is damaged: it does not hold {len(facts.heads)} vectors of "
                f"{facts.d_head} numbers; train the directions again."
            )
        return cls(torch.from_numpy(q.copy()).float(), facts)


def _answer_rows(
    model: "HeadModel", prompts: Sequence[Prompt], layers: Sequence[int]
) -> dict[int, list[Attention]]:
    """Of each layer and prompt the attention of the rows that make the answer."""
    kept: dict[int, list[Attention]] = {layer: [] for layer in layers}
    count = 1

    def keep(attended: Attended) -> None:
        a = attended.attention
        if a.layer in kept:
            rows = slice(a.n_queries - count, None)
            kept[a.layer].append(
                replace(
                    # Copies: a view would hold all that it was cut from.
                    a, q=a.q[:, :, rows].detach().clone(), k=a.k.detach(),
                    v=a.v[..., :1].detach().clone(), slots=None, hidden=None,
                    query_positions=a.query_positions[:, rows],
                    mask=None if a.mask is None else a.mask[:, :, rows], known_lse=None, run=None,
                    cache=None,
                )
            )  # fmt: skip

    with torch.no_grad(), model.observed(keep):
        for prompt in prompts:
            count = len(prompt.answer_ids)
            model.forward([*prompt.token_ids, *prompt.answer_ids[:-1]], last=1)
    return kept


def _trained(
    kept: Sequence[Attention],
    spans: Sequence[tuple[int, int]],
    heads: Sequence[int],
    epochs: int,
    lr: float,
    batch: int,
    seed: int,
) -> tuple[Float[Tensor, "head d"], float, float]:
    """The directions of one layer's heads, and the mean attention before and after."""
    device = kept[0].q.device
    d = kept[0].q.shape[-1]
    direction = torch.zeros(len(heads), d, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([direction], lr=lr)
    generator = torch.Generator().manual_seed(seed)

    def mass(at: int) -> Tensor:
        a = kept[at]
        shift = torch.zeros(a.n_heads, d, device=device).index_put(
            (torch.tensor(heads, device=device),), direction
        )
        moved = a.with_q(a.q + shift[:, None].to(a.q.dtype))
        return moved.mass(slice(*spans[at]))[0, list(heads)].mean()

    with torch.no_grad():
        before = float(torch.stack([mass(i) for i in range(len(kept))]).mean())
    with torch.enable_grad():
        for _ in range(epochs):
            for some in torch.randperm(len(kept), generator=generator).split(batch):
                loss = -torch.stack([mass(int(i)) for i in some]).mean()
                if not bool(loss.isfinite()):
                    raise HeadscopeError(
                        f"The loss of layer {kept[0].layer} is {float(loss.detach())} while its "
                        "directions are trained; use a smaller lr, or leave its heads out."
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    with torch.no_grad():
        after = float(torch.stack([mass(i) for i in range(len(kept))]).mean())
    return direction.detach().float().cpu(), before, after
