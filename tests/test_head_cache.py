"""A cache whose heads hold what their rules may see says what a full masked pass says."""

import contextlib
import functools
from typing import Any

import pytest
import torch
from conftest import opened
from head_caches import PADDED, TOKENS, WHOLE, masked, read
from torch import Tensor
from torch.testing import assert_close

from headscope.cache import LayerCache
from headscope.errors import HeadscopeError
from headscope.head_cache import HeadCache
from headscope.interventions.sparse_attention import SparseAttention
from headscope.model import HeadModel
from headscope.patterns import Full, Streaming
from headscope.patterns.rules import Rule
from headscope.sparsity import SparseProfile
from headscope.stack import Attend

MIXED: dict[str, Rule] = {
    "L0H0": Full(),
    "L0H3": Streaming(1, 3),
    "L1H0": Streaming(0, 1),
    "L1H4": Streaming(0, 4, growth=0.2),
    "L2H5": Streaming(5, 9),
}
SIZES = (23, 1, 1, 4, 1, 15, 1, 1)


def mixed(model: HeadModel) -> SparseProfile:
    return SparseProfile.of(model, MIXED, rest=Streaming(2, 6))


def looking(model: HeadModel, look: bool) -> Any:
    return model.observed(lambda _: None) if look else contextlib.nullcontext()


@functools.cache
def dense_mask(name: str, padded: bool) -> Tensor:
    mask = PADDED if padded else WHOLE
    return masked(opened(name), mixed(opened(name)), TOKENS, mask)[mask.bool()].float()


@pytest.mark.parametrize(
    ("padded", "look"),
    [(False, False), (True, False), (True, True)],
    ids=["whole", "padded", "looked_at"],
)
def test_it_says_what_a_dense_mask_says(architecture: str, padded: bool, look: bool) -> None:
    model, mask = opened(architecture), PADDED if padded else WHOLE
    profile = mixed(model)
    cache = HeadCache(profile)
    with SparseAttention(profile)(model), looking(model, look):
        found = read(model, TOKENS, cache, SIZES, mask)[mask.bool()]
    want = dense_mask(architecture, padded)
    assert_close(found, want, atol=3e-4, rtol=1e-3)
    assert (want - model(TOKENS, attention_mask=mask)[mask.bool()]).abs().max() > 1e-2
    assert cache.get_seq_length() == 60
    assert cache.kv_bytes() == profile.kv_bytes(60, 4, 3)


def test_bytes_are_counted_while_rings_fill(llama: HeadModel) -> None:
    profile = SparseProfile.of(llama, {"L1H0": Full()}, rest=Streaming(2, 7))
    cache = HeadCache(profile)
    counted = []
    for t in range(30):
        llama(TOKENS[:2, [t]], cache=cache)
        counted.append(cache.kv_bytes())
    assert counted == [profile.kv_bytes(n, 4, 2) for n in range(1, 31)]
    assert counted[29] - counted[8] == 21 * 2 * 2 * 8 * 4  # the one head that holds everything


def test_keys_are_copied_out_of_joint_projections() -> None:
    """GPT-2 makes q, k and v in one tensor, of which a view would keep all."""
    model = opened("gpt2")
    profile = SparseProfile.of(model, {}, rest=Full())
    model(TOKENS, cache=(cache := HeadCache(profile)))
    assert cache.kv_bytes() == profile.kv_bytes(60, 4, 3)


@pytest.mark.parametrize("sizes", [(60,), (20, 30, 1, 1, 1, 7), (1,) * 60], ids=str)
@pytest.mark.parametrize("look", [False, True], ids=["apart", "looked_at"])
def test_by_itself_later_tokens_see_what_is_held(
    llama: HeadModel, sizes: tuple[int, ...], look: bool
) -> None:
    """The first pieces are read in full; a step sees sinks and window, a piece itself besides."""
    profile = SparseProfile.of(llama, {"L0H1": Full(), "L2H3": Streaming(1, 4)},
                               rest=Streaming(3, 8))  # fmt: skip
    groups = [[need for need in profile.held(layer) for _ in range(3)] for layer in range(3)]

    def hide(attention: Any, attend: Attend) -> Any:
        new = attention.n_queries
        before = attention.n_keys - new
        query, key = attention.query_positions[0], attention.key_positions[0]
        hidden = torch.zeros(1, 6, attention.n_keys, dtype=torch.bool)
        for head, need in enumerate(groups[attention.layer]):
            if need is not None and before:
                start = before - need[1] + (new == 1)
                hidden[0, head] = (key >= need[0]) & (key < start)
        assert int(query[0]) == before
        return attend(attention.with_bias(hidden, -torch.inf))

    with looking(llama, look):
        found = read(llama, TOKENS, HeadCache(profile), sizes)
    with llama.entered(hide):
        want = read(llama, TOKENS, llama.new_cache(), sizes)
    assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_a_prompt_by_itself_is_read_in_full(llama: HeadModel) -> None:
    found = llama(TOKENS, cache=HeadCache(mixed(llama)))
    assert torch.equal(found, llama(TOKENS, cache=llama.new_cache()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference"]
)
def test_dtypes_and_modes(dtype: torch.dtype, mode: Any) -> None:
    from tiny import tiny_model, tiny_tokenizer

    import headscope

    model = headscope.load(tiny_model("llama").to(dtype), tiny_tokenizer())
    profile = mixed(model)
    cache = HeadCache(profile)
    with SparseAttention(profile)(model), mode():
        want = model(TOKENS)
        found = read(model, TOKENS, cache, SIZES)
    bound = 1e-4 if dtype == torch.float32 else 0.5
    assert (found - want).abs().max() < bound
    assert (found - want).abs().mean() < bound / 10
    assert cache.kv_bytes() == profile.kv_bytes(60, dtype.itemsize, 3)


def test_a_ring_filled_in_inference_mode_goes_on_outside(llama: HeadModel) -> None:
    profile = mixed(llama)
    cache = HeadCache(profile)
    with SparseAttention(profile)(llama):
        want = llama(TOKENS)
        with torch.inference_mode():
            found = [read(llama, TOKENS[:, :50], cache, (40, *[1] * 10))]
        found += [llama(TOKENS[:, [t]], cache=cache) for t in range(50, 60)]
    assert_close(torch.cat(found, 1), want, atol=1e-4, rtol=1e-4)


def test_under_autocast_it_holds_what_the_model_made(llama: HeadModel) -> None:
    profile = SparseProfile.of(llama, {"L0H0": Full(), "L1H0": Full()}, rest=Streaming(2, 60))
    with torch.autocast("cpu", torch.bfloat16):
        found = read(llama, TOKENS, (cache := HeadCache(profile)), (30, 1, 1, 5, 1))
        want = read(llama, TOKENS, llama.new_cache(), (30, 1, 1, 5, 1))
    assert (found - want).abs().max() < 0.5
    assert (found - want).abs().mean() < 0.05
    assert cache.kv_bytes() == 3 * 3 * 2 * 60 * 8 * (4 + 2)  # rotated keys leave autocast wide


def test_gradients_flow_through_a_full_ring(grad: None) -> None:
    """Writing in place would spoil what an earlier step has saved for its backward pass."""
    model = opened("llama")
    profile = SparseProfile.of(model, {}, rest=Streaming(1, 4))

    def slope(tokens: Tensor, sizes: tuple[int, ...], cache: Any) -> Tensor:
        weight = model.hf.get_input_embeddings().weight
        with SparseAttention(profile)(model):
            said = read(model, tokens, cache, sizes)
        (found,) = torch.autograd.grad(said.float().logsumexp(-1).sum(), weight)
        return found

    found = slope(TOKENS[:, :16], (6, *[1] * 9), HeadCache(profile))
    want = slope(TOKENS[:, :16], (16,), model.new_cache())
    assert_close(found, want, atol=1e-3, rtol=1e-3)


# ---- what looks at a pass ----------------------------------------------------------------------


def test_a_look_sees_tokens_by_their_slots(llama: HeadModel) -> None:
    profile = SparseProfile.of(llama, {"L1H0": Full()}, rest=Streaming(2, 3))
    seen: list[Any] = []
    with llama.observed(lambda done: seen.append(done.attention)):
        read(llama, TOKENS[:2], HeadCache(profile), (30, 1), PADDED[:2])
    a = next(a for a in seen if a.layer == 1 and a.n_queries == 1)
    assert a.k.shape == (2, 2, 31, 8)
    slots = torch.arange(31)
    for row, start in enumerate((9, 0)):
        position = slots - start
        assert a.key_positions[row, 0].tolist() == torch.where(position >= 0, position, -1).tolist()
        held = (position >= 0) & ((position < 2) | (position >= 31 - start - 3))
        assert a.key_positions[row, 1].tolist() == torch.where(held, position, -1).tolist()
    assert torch.equal(a.k[1, 1, 5], torch.zeros(8))


def test_what_was_seen_is_not_written_over(llama: HeadModel) -> None:
    profile = SparseProfile.of(llama, {}, rest=Streaming(0, 4))
    cache, seen = HeadCache(profile), []
    llama(TOKENS[:, :20], cache=cache)
    with llama.observed(lambda done: seen.append((done.attention, done.attention.k.clone()))):
        for t in range(20, 30):
            llama(TOKENS[:, [t]], cache=cache)
    assert all(torch.equal(attention.k, then) for attention, then in seen)


def test_keeping_less_of_it_is_refused(llama: HeadModel) -> None:
    caches: list[LayerCache] = []
    with llama.observed(lambda done: caches.append(done.attention.cache)):
        llama(TOKENS, cache=HeadCache(mixed(llama)))
    with pytest.raises(HeadscopeError, match="cannot be evicted from a HeadLayer"):
        caches[0].keep(torch.zeros(3, 2, 1, dtype=torch.long))


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["llama_mha", "llama_mqa", "qwen3"])
def test_another_shape_is_refused_at_first_use(llama: HeadModel, other: str) -> None:
    with pytest.raises(HeadscopeError, match=r"layer 0 of this model has 6 on \d of \d+"):
        opened(other)(TOKENS, cache=HeadCache(mixed(llama)))


def test_other_layers_are_refused_at_first_use(llama: HeadModel) -> None:
    facts = mixed(llama).model.model_copy(update={"layers": (0, 1)})
    profile = SparseProfile.of(facts, [[Full()] * 6] * 2)
    with pytest.raises(HeadscopeError, match="with 2 attention layers"):
        llama(TOKENS, cache=HeadCache(profile))


def test_a_profile_in_force_that_sees_more_is_refused(llama: HeadModel) -> None:
    narrow, wide = (SparseProfile.of(llama, {}, rest=Streaming(2, n)) for n in (5, 6))
    with SparseAttention(wide)(llama), pytest.raises(HeadscopeError, match="made from another"):
        llama(TOKENS, cache=HeadCache(narrow))
    with SparseAttention(narrow)(llama):
        found = read(llama, TOKENS, HeadCache(wide), SIZES)
        assert_close(found, llama(TOKENS), atol=1e-4, rtol=1e-4)


def test_rows_that_are_to_see_everything_are_refused(llama: HeadModel) -> None:
    profile = mixed(llama)
    cache = HeadCache(profile)
    with SparseAttention(profile, "prefill")(llama):
        llama(TOKENS[:, :40], cache=cache, prompt_length=40)
        with pytest.raises(HeadscopeError, match="no longer holds it"):
            llama(TOKENS[:, [40]], cache=cache, prompt_length=40)
    with SparseAttention(profile, "decode")(llama):
        read(llama, TOKENS, HeadCache(profile), (40, *[1] * 20), prompt_length=40)
        with pytest.raises(HeadscopeError, match="the prompt in one pass"):
            read(llama, TOKENS, HeadCache(profile), (20, 20), prompt_length=40)


def test_a_decode_part_equals_the_same_without_a_cache(llama: HeadModel) -> None:
    profile = mixed(llama)
    with SparseAttention(profile, "decode")(llama):
        sizes = (40, *[1] * 20)
        found = read(llama, TOKENS, HeadCache(profile), sizes, prompt_length=40)
        assert_close(found, llama(TOKENS, prompt_length=40), atol=1e-4, rtol=1e-4)
    alone = read(llama, TOKENS, HeadCache(profile), sizes)
    assert alone.shape == found.shape


@pytest.mark.parametrize("call", [lambda c: c.crop(-1), lambda c: c.crop(0)], ids=["one", "none"])
def test_tokens_are_not_taken_back(llama: HeadModel, call: Any) -> None:
    cache = HeadCache(mixed(llama))
    llama(TOKENS, cache=cache)
    with pytest.raises(HeadscopeError, match="cannot be taken back"):
        call(cache)


def test_an_interrupted_pass_ends_the_cache(llama: HeadModel) -> None:
    def interrupted(attention: Any, attend: Attend) -> Any:
        if attention.layer == 1:
            raise KeyboardInterrupt
        return attend(attention)

    cache = HeadCache(mixed(llama))
    llama(TOKENS[:, :30], cache=cache)
    with pytest.raises(KeyboardInterrupt), llama.entered(interrupted):
        llama(TOKENS[:, [30]], cache=cache)
    with pytest.raises(HeadscopeError, match="was interrupted"):
        llama(TOKENS[:, [30]], cache=cache)
    cache.reset()
    assert cache.kv_bytes() == 0
    assert torch.equal(llama(TOKENS, cache=cache), llama(TOKENS))


def test_a_mask_of_the_callers_own_is_refused(llama: HeadModel) -> None:
    cache = HeadCache(mixed(llama))
    llama(TOKENS[:, :30], cache=cache)
    mask = torch.ones(3, 1, 1, 31, dtype=torch.bool)
    with llama.observed(lambda _: None), pytest.raises(HeadscopeError, match="the caller's own"):
        llama.hf(TOKENS[:, [30]], attention_mask=mask, past_key_values=cache)
