"""Whoever follows a model's sequences may change what it says, on every backend and in any pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from conftest import opened
from torch import Tensor
from torch.testing import assert_close
from transformers.cache_utils import DynamicCache

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.run import Run
from headscope.stack import Again, Attend, Life

BACKENDS = ("hf", "nnsight", "lens")
TOKENS = torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(5))
PADDED = torch.ones_like(TOKENS)
PADDED[0, :4] = 0


@dataclass
class _Shift(Life):
    """Adds an amount to one token's logit, and notes what it was shown."""

    amount: float = 100.0
    token: int = 7
    shown: list[tuple[int, ...]] = field(default_factory=list)

    def said(self, run: Run, logits: Tensor, again: Again) -> Tensor:
        self.shown.append((run.step, *logits.shape))
        added = torch.zeros_like(logits)
        added[..., self.token] = self.amount
        return logits + added


@contextmanager
def saying(model: HeadModel, life: Life) -> Iterator[None]:
    with model.entered(lambda attention, attend: attend(attention), life):
        yield


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_pass_returns_what_was_said(backend: str, last: int) -> None:
    model, life = opened("llama", backend), _Shift()
    plain = model(TOKENS, attention_mask=PADDED, last=last)
    with saying(model, life):
        found = model(TOKENS, attention_mask=PADDED, last=last)
    plain[..., life.token] += life.amount
    real = PADDED[:, -last:].bool()  # what padded rows say is nobody's business
    assert_close(found[real], plain[real])
    assert life.shown == [(0, 2, last or 12, 97)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_generation_draws_from_what_was_said(backend: str) -> None:
    model, life = opened("llama", backend), _Shift()
    with saying(model, life):
        found = model.generate(TOKENS, attention_mask=PADDED, max_new_tokens=3)
    assert found.tolist() == [[7] * 3] * 2
    assert [step for step, *_ in life.shown] == [0, 1, 2]
    assert 7 not in model.generate(TOKENS, attention_mask=PADDED, max_new_tokens=3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_inmost_speaks_first(backend: str) -> None:
    model = opened("llama", backend)

    class Double(Life):
        def said(self, run: Run, logits: Tensor, again: Again) -> Tensor:
            return 2 * logits

    with saying(model, Double()), saying(model, _Shift(1.0)):
        outer = model(TOKENS)
    with saying(model, _Shift(1.0)), saying(model, Double()):
        inner = model(TOKENS)
    assert_close(outer[..., 7] - inner[..., 7], torch.ones(2, 12))
    assert_close(outer[..., 8:], inner[..., 8:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", ["attention", "said"])
def test_an_error_leaves_the_model_as_it_was(backend: str, where: str) -> None:
    model = opened("llama", backend)
    plain = model(TOKENS)

    class Fails(Life):
        def said(self, run: Run, logits: Tensor, again: Again) -> Tensor:
            raise RuntimeError("in between")

    def fails(attention: Attention, attend: Attend) -> Attended:
        if attention.layer == 1:
            raise RuntimeError("in between")
        return attend(attention)

    life = Fails() if where == "said" else _Shift()
    inner = fails if where == "attention" else _through
    error = pytest.raises(Exception, match="in between")  # nnsight wraps it in one of its own
    with error, saying(model, life), model.entered(inner):
        model(TOKENS)
    assert model.backend.current is None
    assert not model.stack.chain.entered
    assert torch.equal(model(TOKENS), plain)
    with saying(model, _Shift()):
        assert_close(model(TOKENS)[..., 8:], plain[..., 8:])


def _through(attention: Attention, attend: Attend) -> Attended:
    return attend(attention)


class _Again(Life):
    """Says what the pass says when its values are doubled, from a cache of its own."""

    def said(self, run: Run, logits: Tensor, again: Again) -> Tensor:
        assert run.state.get(self) != "other", "nobody is asked about a pass made again"
        cache = run.state.setdefault(self, DynamicCache())
        return again(cache, {self: "other"})

    def around(self, attention: Attention, attend: Attend) -> Attended:
        assert attention.run is not None
        other = attention.run.state.get(self) == "other"
        return attend(attention.with_v(2 * attention.v) if other else attention)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pass_can_be_made_again_in_another_way(backend: str) -> None:
    model, life = opened("llama", backend), _Again()

    def doubled(attention: Attention, attend: Attend) -> Attended:
        return attend(attention.with_v(2 * attention.v))

    def read() -> list[Tensor]:
        cache, mask = model.new_cache(), PADDED
        parts = [model(TOKENS[:, :8], attention_mask=mask[:, :8], cache=cache, last=2)]
        parts += [
            model(TOKENS[:, [t]], attention_mask=mask[:, : t + 1], cache=cache)
            for t in range(8, 12)
        ]
        whole = model(TOKENS, attention_mask=mask)
        return [whole, *parts, model.generate(TOKENS, attention_mask=mask, max_new_tokens=4)]

    plain = read()
    with model.entered(doubled):
        want = read()
    with model.entered(life.around, life):
        found = read()
    assert not torch.equal(plain[0], want[0])
    assert_close(found[0][PADDED.bool()], want[0][PADDED.bool()])
    for one, other in zip(found[1:], want[1:], strict=True):
        assert_close(one, other)
