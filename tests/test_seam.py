"""Every architecture on every backend: nothing changes when nothing is asked, and what is asked
happens alike everywhere."""

import copy
import warnings
from typing import Any

import oracle
import pytest
import torch
from conftest import opened
from tiny import reference_model, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    FalconConfig,
    GPTJConfig,
    PreTrainedConfig,
)

import headscope
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.stack import Attend

TOKENS = torch.randint(3, 97, (2, 25), generator=torch.Generator().manual_seed(1))
PADDED = torch.ones_like(TOKENS)
PADDED[0, :7] = 0
BACKENDS = ["hf", "nnsight", "lens"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def silence(attention: Attention, attend: Attend) -> Attended:
    """Zero two heads of the middle layer."""
    attended = attend(attention)
    if attention.layer != 1:
        return attended
    z = attended.z.clone()
    z[:, [0, 3]] = 0
    return attended.with_z(z)


def eager(name: str, mask: Tensor) -> Tensor:
    hf = reference_model(name)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    extra = {} if name == "opt" else {"position_ids": positions}  # OPT makes its own from the mask
    return hf(input_ids=TOKENS, attention_mask=mask, **extra).logits


@pytest.mark.parametrize("mask", [torch.ones_like(TOKENS), PADDED], ids=["plain", "left_padded"])
def test_logits_are_the_model_s_own(architecture: str, backend: str, mask: Tensor) -> None:
    model = opened(architecture, backend)
    real = mask.bool()
    for middleware in (None, lambda a, attend: attend(a)):
        if middleware is None:
            found = model(TOKENS, attention_mask=mask)
        else:
            with model.entered(middleware):
                found = model(TOKENS, attention_mask=mask)
        assert_close(found[real], eager(architecture, mask)[real], atol=2e-4, rtol=1e-4)


def test_every_layer_hands_over_what_it_computes(architecture: str, backend: str) -> None:
    """q, k, v, positions and rules, held to a dense float64 softmax; padding sees nothing."""
    model = opened(architecture, backend)
    seen: list[Attended] = []
    with model.observed(seen.append):
        model(TOKENS, attention_mask=PADDED)
    assert [a.attention.layer for a in seen] == model.layers
    for attended in seen:
        a = attended.attention
        assert (a.n_heads, a.n_kv_heads) == (model.n_heads, model.n_kv_heads)
        assert a.hidden.shape == (2, 25, model.d_model)
        assert a.query_positions[0].tolist() == [-1] * 7 + list(range(18))
        want = oracle.dense(a)
        assert_close(attended.z.double(), want.z, atol=1e-4, rtol=1e-4)
        assert_close(attended.lse.double(), want.lse, atol=1e-4, rtol=1e-4)


def test_an_ablation_is_the_same_on_every_backend(architecture: str) -> None:
    found = {}
    for name in BACKENDS:
        with opened(architecture, name).entered(silence):
            found[name] = opened(architecture, name)(TOKENS, attention_mask=PADDED)
    real = PADDED.bool()
    for name in BACKENDS[1:]:
        assert_close(found[name][real], found["hf"][real], atol=2e-4, rtol=1e-4)
    assert (found["hf"] - opened(architecture)(TOKENS, attention_mask=PADDED)).abs().max() > 1e-2


def test_an_ablation_equals_a_hook_on_the_projection(architecture: str) -> None:
    hf = reference_model(architecture)
    reader = {"gpt2": "attn.c_proj", "gpt_neox": "attention.dense", "opt": "self_attn.out_proj"}
    path = reader.get(architecture, "self_attn.o_proj")
    (projection,) = [m for n, m in hf.named_modules() if n.endswith(f".1.{path}")]
    d = opened(architecture).d_head

    def zero(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].clone()
        z[..., :d] = z[..., 3 * d : 4 * d] = 0
        return (z,)

    projection.register_forward_pre_hook(zero)
    with opened(architecture).entered(silence):
        found = opened(architecture)(TOKENS)
    assert_close(found, hf(TOKENS).logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("mask", [torch.ones_like(TOKENS), PADDED], ids=["plain", "left_padded"])
def test_generation_is_the_model_s_own(architecture: str, backend: str, mask: Tensor) -> None:
    model, hf = opened(architecture, backend), reference_model(architecture)
    options = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    want = hf.generate(TOKENS, attention_mask=mask, **options)[:, TOKENS.shape[1] :]
    steps: list[tuple[str, int]] = []

    def note(attended: Attended) -> None:
        run = attended.attention.run
        if attended.attention.layer == 0:
            steps.append((run.phase, run.step))
            assert run.token_ids.shape[1] == run.seen

    with model.observed(note):
        found = model.generate(TOKENS, attention_mask=mask, max_new_tokens=16)
    assert torch.equal(found, want)
    assert steps[0] == ("prefill", 0)
    assert all(step == ("decode", i) for i, step in enumerate(steps) if i)


def test_passes_in_pieces_equal_one_pass(architecture: str, backend: str) -> None:
    """Prefill, two chunks and single steps, with and without a middleware."""
    model = opened(architecture, backend)
    for middleware in (silence, lambda a, attend: attend(a)):
        with model.entered(middleware):
            whole = model(TOKENS, attention_mask=PADDED)
            cache, parts, start = model.new_cache(), [], 0
            for stop in (10, 15, 21, 22, 23, 24, 25):
                piece = TOKENS[:, start:stop]
                parts.append(model(piece, attention_mask=PADDED[:, :stop], cache=cache))
                start = stop
        found = torch.cat(parts, 1)
        real = PADDED.bool()
        assert_close(found[real], whole[real], atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3", "gpt_oss"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_transformers_own_caches_are_followed(name: str, kind: str) -> None:
    """Sliding caches that drop keys, and static ones that hand over empty slots."""
    model, hf = opened(name), tiny_model(name)
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "disable_compile": True}
    if kind == "static":
        options["cache_implementation"] = "static"
    want = hf.generate(TOKENS, attention_mask=PADDED, max_new_tokens=12, **options)
    lse: list[Tensor] = []
    with (
        model.entered(lambda a, attend: attend(a)),
        model.observed(
            lambda a: lse.append(a.lse[..., -1] - oracle.dense(a.attention).lse[..., -1])
        ),
    ):
        found = model.generate(TOKENS, attention_mask=PADDED, max_new_tokens=12, **options)
    assert torch.equal(found, want[:, TOKENS.shape[1] :])
    assert torch.cat(lse).abs().max() < 1e-4


def test_the_user_s_own_calls_go_through_an_open_scope(architecture: str) -> None:
    hf = tiny_model(architecture)
    model = headscope.load(hf, tiny_tokenizer())
    before = hf(TOKENS).logits
    with model.entered(silence):
        inside = hf(TOKENS).logits
    assert_close(inside, changed(architecture), atol=1e-5, rtol=1e-5)
    assert torch.equal(hf(TOKENS).logits, before)


def changed(name: str) -> Tensor:
    with opened(name).entered(silence):
        return opened(name)(TOKENS)


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Everything about a model that opening it could have changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
    return {
        "modules": [(name, id(m), type(m)) for name, m in module.named_modules()],
        "hooks": [[len(getattr(m, h)) for h in hooks] for m in module.modules()],
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "configs": [
            copy.deepcopy(vars(m.config))
            for m in module.modules()
            if isinstance(getattr(m, "config", None), PreTrainedConfig)
        ],
        "weights": {k: v.clone() for k, v in module.state_dict().items()},
        "training": module.training,
    }


def assert_unchanged(module: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(module)
    for key in before:
        if key == "weights":
            assert all(torch.equal(v, before[key][k]) for k, v in after[key].items())
        else:
            assert after[key] == before[key], key


def test_a_model_is_given_back_unchanged(architecture: str, backend: str) -> None:
    hf = tiny_model(architecture)
    if backend == "hf":
        given: Any = hf
    elif backend == "nnsight":
        from nnsight import TransformersModel

        given = TransformersModel(hf, tokenizer=tiny_tokenizer(), task="text-generation")
    else:
        given = opened(architecture, "lens").backend.bridge
        hf = given.original_model
    before = snapshot(hf)
    model = headscope.load(given, tiny_tokenizer())
    assert model.backend.name == backend
    with model.entered(silence):
        model(TOKENS)
    model.generate(TOKENS, max_new_tokens=2)
    assert_unchanged(hf, before)

    def burst(attention: Attention, attend: Attend) -> Attended:
        raise KeyError("from the user's own middleware")

    with pytest.raises(KeyError), model.entered(burst):
        model(TOKENS)
    assert_unchanged(hf, before)
    assert_close(model(TOKENS), opened(architecture, backend)(TOKENS))


def test_loading_with_lens_leaves_the_given_model_alone() -> None:
    hf = tiny_model("llama")
    before = snapshot(hf)
    headscope.load(hf, tiny_tokenizer(), backend="lens")
    assert_unchanged(hf, before)


def test_first_entered_is_outermost(llama: HeadModel) -> None:
    order: list[str] = []

    def named(name: str):
        def middleware(attention: Attention, attend: Attend) -> Attended:
            order.append(name)
            return attend(attention)

        return middleware

    watch = llama.observed(lambda _: order.append("observer"))
    with llama.entered(named("outer")), llama.entered(named("inner")), watch:
        llama(TOKENS)
    assert order[:3] == ["outer", "inner", "observer"]


def test_a_second_engine_is_refused(llama: HeadModel) -> None:
    def slow(attention: Attention) -> Attended:
        return Attended(attention.z(), attention)

    with llama.backend.attached(), llama.stack.computed_by(slow):
        assert_close(llama(TOKENS), opened("llama")(TOKENS), atol=1e-4, rtol=1e-4)
        with pytest.raises(HeadscopeError, match="Another engine"):
            llama.stack.computed_by(slow).__enter__()
    assert llama.stack.chain.engine is not slow


def test_packed_sequences_take_the_written_out_mask(llama: HeadModel) -> None:
    positions = torch.cat((torch.arange(10), torch.arange(15)))[None].expand(2, -1)
    want = tiny_model("llama")(TOKENS, position_ids=positions, use_cache=False).logits
    with llama.backend.attached(), pytest.warns(UserWarning, match="written out in full"):
        found = llama.hf(TOKENS, position_ids=positions, use_cache=False).logits
    assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_a_mask_of_the_user_s_own_is_honoured(llama: HeadModel) -> None:
    mask = torch.ones(25, 25, dtype=torch.bool).tril()
    mask[12:, 3:9] = False
    want = tiny_model("llama")(TOKENS, attention_mask=mask.expand(2, 1, -1, -1)).logits
    with llama.backend.attached():
        found = llama.hf(TOKENS, attention_mask=mask.expand(2, 1, -1, -1)).logits
        assert_close(found, want, atol=1e-4, rtol=1e-4)
        bias = torch.randn(2, 1, 25, 25)
        with pytest.raises(HeadscopeError, match="amounts other than 0"):
            llama.hf(TOKENS, attention_mask=bias)


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=2),
        GPTJConfig(vocab_size=97, n_embd=32, n_layer=2, n_head=2, rotary_dim=8),
        FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
    ],
    ids=lambda config: config.model_type,
)
def test_an_architecture_that_bypasses_the_seam_is_refused(config: PreTrainedConfig) -> None:
    hf = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(HeadscopeError, match=rf"{type(hf).__name__} cannot be opened: layer 0"):
        headscope.load(hf, tiny_tokenizer())


def test_a_layer_that_reaches_no_logit_is_found() -> None:
    hf = tiny_model("llama")
    hf.model.layers[1].self_attn.o_proj.weight.zero_()
    with pytest.raises(HeadscopeError, match="layer 1 does not change"):
        headscope.load(hf, tiny_tokenizer())


def test_a_seam_that_loses_something_is_found() -> None:
    hf = tiny_model("llama")
    attention = hf.model.layers[2].self_attn
    original = attention.forward

    def shifted(*args: Any, **kwargs: Any) -> Any:
        out, weights = original(*args, **kwargs)
        return out + (hf.config._attn_implementation == "eager"), weights

    attention.forward = shifted
    with pytest.raises(HeadscopeError, match="other logits through headscope"):
        headscope.load(hf, tiny_tokenizer())


def test_dropout_is_refused_by_name(llama: HeadModel) -> None:
    hf = tiny_model("gpt2").train()
    with pytest.raises(HeadscopeError, match="eval"):
        headscope.load(hf, tiny_tokenizer())(TOKENS)


def test_too_long_a_prompt_is_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="do not fit into the 128"):
        llama(list(range(3, 97)) * 2)
    with pytest.raises(HeadscopeError, match="do not fit"):
        llama.generate(TOKENS, max_new_tokens=200)
    with pytest.raises(HeadscopeError, match="at least one token"):
        llama([])
    with pytest.raises(HeadscopeError, match="from 0 to 96"):
        llama([3, 97])


def test_bfloat16_runs(architecture: str) -> None:
    hf = tiny_model(architecture).bfloat16()
    for parameter in hf.parameters():
        parameter *= 0.3
    model = headscope.load(hf, tiny_tokenizer())
    kept: list[Attended] = []
    with model.observed(kept.append), warnings.catch_warnings():
        model(TOKENS)
    a = kept[0]
    assert a.z.dtype == torch.bfloat16
    assert a.lse.dtype == torch.float32
    assert_close(a.z.double(), oracle.dense(a.attention).z, atol=0.05, rtol=0.05)


def test_a_cache_from_elsewhere_has_unknown_tokens(llama: HeadModel) -> None:
    cache = DynamicCache()
    llama.hf(TOKENS, past_key_values=cache)
    runs: list[Any] = []
    with llama.observed(lambda a: runs.append(a.attention.run)):
        llama(TOKENS[:, :1], cache=cache)
    assert runs[0].phase == "decode"
    with pytest.raises(HeadscopeError, match="unknown"):
        _ = runs[0].token_ids


def test_a_row_of_a_padded_batch_rotates_as_it_did(llama: HeadModel) -> None:
    kept: list[Attention] = []
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, :4] = 0
    tokens = torch.arange(24).reshape(2, 12) + 3
    with llama.observed(lambda attended: kept.append(attended.attention)):
        llama(tokens, attention_mask=mask)
    whole = kept[1].rope.unrotate(kept[1].k, kept[1].key_positions)
    for row in range(2):
        alone = kept[1].batch_row(row)
        found = alone.rope.unrotate(alone.k, alone.key_positions)
        assert_close(found, whole[[row]], atol=1e-6, rtol=1e-6)
