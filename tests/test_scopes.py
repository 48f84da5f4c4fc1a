"""Scopes that nest, overlap, are interrupted, or meet beams and threads."""

import threading
from typing import Any

import pytest
import torch
from conftest import opened
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close

import headscope
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.ablate import Ablate
from headscope.model import HeadModel
from headscope.stack import Attend

TOKENS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(4))


def test_an_interrupted_pass_leaves_nothing_behind(llama: HeadModel) -> None:
    def interrupted(attention: Attention, attend: Attend) -> Attended:
        raise KeyboardInterrupt

    with Ablate(["L0H0"])(llama):
        want = llama(TOKENS)
    for run in (llama, llama.hf):
        with llama.observed(lambda _: None):
            with pytest.raises(KeyboardInterrupt), llama.entered(interrupted):
                run(TOKENS)
            with Ablate(["L0H0"])(llama):
                assert torch.equal(llama(TOKENS), want)
    assert llama.hf.config._attn_implementation == "sdpa"


def test_an_observer_may_watch_twice(llama: HeadModel) -> None:
    seen: list[Attended] = []
    with llama.observed(seen.append):
        with llama.observed(seen.append):
            llama(TOKENS)
        assert len(seen) == 2 * llama.n_layers
        llama(TOKENS)
    assert len(seen) == 3 * llama.n_layers


def test_one_model_opened_twice_takes_turns() -> None:
    hf = tiny_model("llama")
    want = hf(TOKENS).logits
    first, second = (headscope.load(hf, tiny_tokenizer()) for _ in range(2))
    with (
        Ablate(["L0H0"])(first),
        pytest.raises(HeadscopeError, match="opened twice"),
        Ablate(["L1H0"])(second),
    ):
        pass
    with Ablate(["L1H0"])(second):
        changed = second(TOKENS)
    assert not torch.allclose(changed, want)
    assert_close(hf(TOKENS).logits, want)


@pytest.mark.parametrize("part", ["answer", "decode", "all"])
@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}], ids=str
)
def test_prompts_said_several_times_keep_their_length(
    llama: HeadModel, part: Any, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    rows: list[Tensor] = []

    def look(attended: Attended) -> None:
        if attended.attention.layer == 0:
            run = attended.attention.run
            rows.append(run.rows_in(part, attended.attention.query_positions))

    with Ablate(["L0H0"], part=part)(llama), llama.observed(look):
        llama.generate(TOKENS, max_new_tokens=3, **options)
    times = options.get("num_beams", options.get("num_return_sequences"))
    assert rows[0].shape == (2 * times, 20)
    assert rows[0].sum(1).tolist() == [{"answer": 1, "decode": 0, "all": 20}[part]] * 2 * times
    assert all(bool(step.all()) for step in rows[1:])


def test_tokens_follow_their_beams(llama: HeadModel) -> None:
    """The keys of layer 0 depend on tokens alone, so they tell which tokens lie behind them."""
    kept: list[tuple[Tensor, Tensor]] = []

    def look(attended: Attended) -> None:
        a = attended.attention
        if a.layer == 0:
            kept.append((a.run.token_ids.clone(), a.rope.unrotate(a.k, a.key_positions)[:, 0]))

    with llama.observed(look):
        llama.generate(TOKENS[:1], max_new_tokens=8, num_beams=4)
    keys: dict[int, Tensor] = {}
    for tokens, k in kept:
        for token, key in zip(tokens.flatten().tolist(), k.flatten(0, 1), strict=True):
            assert_close(keys.setdefault(token, key), key, atol=1e-3, rtol=1e-3)


def test_a_dictionary_of_generation_is_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="new tokens alone"):
        llama.generate(TOKENS, return_dict_in_generate=True)


def test_threads_take_turns(llama: HeadModel) -> None:
    want = {}
    with Ablate(["L0H0", "L1H3"], part="answer")(llama):
        for length in (5, 15):
            want[length] = llama(TOKENS, prompt_length=length)
        wrong: list[int] = []

        def work(length: int) -> None:
            for _ in range(20):
                if not torch.equal(llama(TOKENS, prompt_length=length), want[length]):
                    wrong.append(length)

        threads = [threading.Thread(target=work, args=(length,)) for length in want]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
@pytest.mark.parametrize("what", ["mass", "lse", "at"])
def test_a_direction_of_the_keys_alone_trains(name: str, what: str, grad: None) -> None:
    model = opened(name)
    for parameter in model.hf.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    start, step = torch.randn(2, model.n_kv_heads, 1, model.d_head, generator=generator) * 0.1

    def measured(direction: Tensor) -> Tensor:
        found: list[Tensor] = []

        def move(attention: Attention, attend: Attend) -> Attended:
            if attention.layer != 1:
                return attend(attention)
            half = attention.key_positions[:, None, :, None] % 2 == 0  # a shift of all cancels
            return attend(attention.with_k(attention.k + direction * half))

        def look(attended: Attended) -> None:
            a = attended.attention
            answers = {"mass": lambda: a.mass([2, 3]), "lse": lambda: attended.lse,
                       "at": lambda: a.at([9, 12], [8, 12])}  # fmt: skip
            if a.layer == 1:
                found.append(answers[what]().sum())

        with model.entered(move), model.observed(look):
            model(TOKENS)
        return found[0]

    direction = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(measured(direction), direction)
    with torch.no_grad():
        up, down = (measured(start + sign * 1e-2 * step) for sign in (1, -1))
    assert_close((gradient * step).sum(), (up - down) / 2e-2, atol=2e-3, rtol=2e-2)
