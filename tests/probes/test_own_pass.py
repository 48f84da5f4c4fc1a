import dataclasses

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

import headscope
from headscope.errors import HeadscopeError
from headscope.probes.context_awareness import ContextAwareness
from headscope.probes.own_pass import measured_pass
from headscope.probes.sink_bos import SinkBos
from headscope.prompts import Prompt
from headscope.prompts.chat import Chat

BOS = 1


def test_a_start_token_that_is_there_is_not_given_twice(llama: headscope.HeadModel) -> None:
    bare = Prompt(tuple(range(3, 20)))
    begun = dataclasses.replace(bare, token_ids=(BOS, *bare.token_ids))
    found, again = (SinkBos().read(llama, prompt) for prompt in (bare, begun))
    for name, values in found.items():
        torch.testing.assert_close(values, again[name])


@pytest.mark.parametrize("probe", [SinkBos(), ContextAwareness()])
def test_a_tokenizer_without_a_start_token_is_refused(probe: SinkBos | ContextAwareness) -> None:
    tokenizer = type(tiny_tokenizer())(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, pad_token="w0"
    )
    model = headscope.load(tiny_model("llama"), tokenizer)
    with pytest.raises(HeadscopeError, match=f"'{probe.name}'.*neither BOS nor EOS"):
        probe.check_model(model)


def test_a_prompt_too_short_to_lose_its_start_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'sink_bos' needs three tokens"):
        SinkBos().check(Prompt((BOS, 5)))


@pytest.mark.model
def test_the_bare_pass_holds_what_the_user_said_and_the_answers_first_words(
    smollm2: headscope.HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, ...]] = []

    def kept(model: headscope.HeadModel, token_ids: tuple[int, ...], measure: object) -> dict:
        passes.append(tuple(token_ids))
        return measured_pass(model, token_ids, measure)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("headscope.probes.context_awareness.measured_pass", kept)
    prompt = Chat(lengths=(200,)).prompt(0, smollm2.tokenizer)
    found = ContextAwareness().read(smollm2, prompt)
    _, bare = (smollm2.tokenizer.decode(list(ids)) for ids in passes)
    said = smollm2.tokenizer.decode(list(prompt.token_ids[slice(*prompt.span("user"))]))
    whole = smollm2.tokenizer.decode(list(prompt.token_ids))
    lead = whole.rsplit("<|im_start|>assistant\n", 1)[1]
    assert lead
    assert bare == smollm2.tokenizer.bos_token + said + lead
    # A row sums to one within rounding, and the share may fall below by as much.
    least = found["context_awareness"] - 1e-5
    assert bool((found["context_awareness_share"] >= least).all())
    assert all(bool(((x >= 0) & (x <= 1 + 1e-5)).all()) for x in found.values())
