"""Methods that keep every key and read some: drafts, whole passes, counts by head, bad input."""

from importlib import import_module
from typing import Any

import pytest
import torch
from conftest import opened
from made_up import a_map
from torch.testing import assert_close

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.lychee_decode import LycheeDecode
from headscope.interventions.recycled_attention import RecycledAttention
from headscope.interventions.selecting import ranks, top_keys
from headscope.interventions.tidal_decode import TidalDecode
from headscope.interventions.token_select import TokenSelect
from headscope.model import HeadModel

TOKENS = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(17))
REUSING = [
    TidalDecode(4, 0, (1,)),
    TidalDecode(3, 1, (), recent=2),
    LycheeDecode(["L1H0", "L2H3"], k=4, sink=1),
]
REMEMBERING = [
    RecycledAttention(4, 3, 0.3, 3),
    RecycledAttention(3, 4, None, 1, "sum"),
    TokenSelect(3, 1, 2, 0.2),
    TokenSelect(4, 0, 1, None),
]


def test_of_equals_the_earlier_key_comes_first() -> None:
    scores = torch.tensor([[1.0, 3, 3, -torch.inf, 3, 2]])
    assert ranks(scores).tolist() == [[4, 0, 1, 5, 2, 3]]
    assert top_keys(scores, 2).tolist() == [[False, True, True, False, False, False]]
    assert int(top_keys(scores, 6).sum()) == 5


@pytest.mark.parametrize("method", REUSING, ids=str)
def test_each_head_reads_what_it_was_handed_and_no_more(llama: HeadModel, method: Any) -> None:
    """Keys of every query head in a step: all of them, or k and the edges."""
    counts = torch.zeros(3, 6, dtype=torch.long)

    def count(attended: Attended) -> None:
        (tile,) = attended.attention.tiles([0])
        counts[attended.attention.layer] = (tile.logits[0, :, 0] > -torch.inf).sum(-1)

    with method(llama):
        cache = llama.new_cache()
        llama(TOKENS[:1, :18], cache=cache, prompt_length=18)
        with llama.observed(count):
            llama(TOKENS[:1, 18:19], cache=cache, prompt_length=18)
    edges = method.sink + method.recent
    for layer in range(3):
        for head in range(6):
            mine = method._choosing(layer, 6)
            full = mine is None or head in mine or layer == getattr(method, "chooser", 0)
            found = int(counts[layer, head])
            assert found == 19 if full else method.k <= found <= method.k + edges, (layer, head)
    assert int(counts.min()) < 19


@pytest.mark.parametrize("method", REUSING, ids=str)
def test_every_key_chosen_is_full_attention(llama: HeadModel, method: Any) -> None:
    import dataclasses

    with dataclasses.replace(method, k=24)(llama):
        found = llama(TOKENS, prompt_length=10)
    assert torch.equal(found, llama(TOKENS))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "gpt_oss"])
@pytest.mark.parametrize("method", [*REUSING, *REMEMBERING], ids=str)
def test_rows_of_a_chunk_read_what_steps_read(name: str, method: Any) -> None:
    """Windows, learned sinks and models without RoPE among them; prompts end in mid-pass."""
    model = opened(name)
    options: dict[str, Any] = {"prompt_length": torch.tensor([11, 14])}
    with method(model):
        whole = model(TOKENS, **options)
        cache, parts = model.new_cache(), []
        for start, stop in ((0, 9), (9, 13), (13, 14), (14, 19), (19, 20), (20, 24)):
            parts.append(model(TOKENS[:, start:stop], cache=cache, **options))
    assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole, model(TOKENS), atol=1e-3)


@pytest.mark.parametrize("method", [*REUSING, *REMEMBERING], ids=str)
def test_a_prompt_that_was_read_without_the_method_is_the_same(
    llama: HeadModel, method: Any
) -> None:
    """All but its last token, as evals do it to read a prompt once for many conditions."""
    cache = llama.new_cache()
    llama(TOKENS[:, :13], cache=cache, prompt_length=14)
    with method(llama):
        found = llama(TOKENS[:, 13:], cache=cache, prompt_length=14)
        want = llama(TOKENS, prompt_length=14)[:, 13:]
    assert method.reads_prompt_alike
    assert_close(found, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", REUSING, ids=str)
def test_drafts_are_verified_as_steps_would_be(llama: HeadModel, method: Any) -> None:
    prompt, phases = TOKENS[:1, :10].repeat(1, 3), set[str]()
    with method(llama):
        plain = llama.generate(prompt, max_new_tokens=12)
        with llama.observed(lambda a: phases.add(a.attention.run.phase)):
            drafted = llama.generate(prompt, max_new_tokens=12, prompt_lookup_num_tokens=3)
    assert torch.equal(plain, drafted)
    assert "verify" in phases


@pytest.mark.parametrize("method", [*REUSING, *REMEMBERING], ids=str)
def test_beams_are_those_of_every_sequence_read_alone(llama: HeadModel, method: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5, "num_beams": 3}
    with method(llama):
        both = llama.generate(TOKENS[:, :12], **options)
        alone = [llama.generate(TOKENS[[row], :12], **options) for row in range(2)]
    for row, found in zip(both, alone, strict=True):
        assert torch.equal(row[: found.shape[1]], found[0])


@pytest.mark.parametrize("method", REMEMBERING, ids=str)
def test_tokens_cannot_be_taken_back_from_what_is_remembered(llama: HeadModel, method: Any) -> None:
    with method(llama), pytest.raises(HeadscopeError, match="cannot take tokens back"):
        llama.generate(TOKENS[:1, :10].repeat(1, 3), max_new_tokens=9, prompt_lookup_num_tokens=3)


@pytest.mark.parametrize(
    "method", [RecycledAttention(4, 2, 0.3, 1), TokenSelect(3, 1, 2, 0.3)], ids=str
)
def test_likeness_decides_when_a_layer_looks_anew(llama: HeadModel, method: Any) -> None:
    """Over many steps, some that look anew and some that need not, against the same by hand."""
    long = torch.randint(3, 97, (2, 60), generator=torch.Generator().manual_seed(2))
    looked = list[float]()

    def watch(attended: Attended) -> None:
        kept = attended.attention.run.state[method]
        looked.append(kept[attended.attention.layer][1].double().sum().item())

    with method(llama):
        found = llama(long, prompt_length=10)
        cache = llama.new_cache()
        llama(long[:, :10], cache=cache, prompt_length=10)
        with llama.observed(watch):
            for at in range(10, 60):
                llama(long[:, [at]], cache=cache, prompt_length=10)
    by_hand = import_module(f"altered.{method.name}").by_hand(method)
    with llama.entered(by_hand):
        want = llama(long, prompt_length=10)
    assert_close(found, want, atol=2e-4, rtol=1e-4)
    moved = [looked[at] != looked[at - 3] for at in range(3, len(looked))]
    possible = len(moved) // (2 if isinstance(method, RecycledAttention) else 1)
    assert 0 < sum(moved) < possible


def test_a_sequence_begun_before_the_scope_is_looked_at_first(llama: HeadModel) -> None:
    """The first step that a method sees reads everything, and later ones what that looked at."""
    found = []
    for method in (RecycledAttention(3, 50, None, 1), RecycledAttention(24, 50, None, 1)):
        cache = llama.new_cache()
        llama(TOKENS[:, :18], cache=cache)
        with method(llama):
            found.append([llama(TOKENS[:, [at]], cache=cache) for at in (18, 19)])
    cache = llama.new_cache()
    llama(TOKENS[:, :18], cache=cache)
    plain = [llama(TOKENS[:, [at]], cache=cache) for at in (18, 19)]
    assert_close(found[0][0], plain[0])
    assert_close(found[1][1], plain[1])
    assert not torch.allclose(found[0][1], plain[1], atol=1e-3)


@pytest.mark.parametrize("method", REMEMBERING, ids=str)
def test_where_nobody_said_how_long_the_prompt_is(llama: HeadModel, method: Any) -> None:
    """The first pass is the prompt, and each token behind it a step."""
    found = []
    for options in ({}, {"prompt_length": 18}):
        with method(llama):
            cache = llama.new_cache()
            llama(TOKENS[:, :18], cache=cache, **options)
            found.append([llama(TOKENS[:, [at]], cache=cache, **options) for at in range(18, 24)])
    assert torch.equal(torch.cat(found[0], 1), torch.cat(found[1], 1))


def test_roles_come_from_a_head_map() -> None:
    """The heads of highest score retrieve, and none of them is a share of 0."""
    head_map = a_map(layers=3, heads=6)
    names = head_map.top("retrieval", 4)["name"].tolist()
    method = LycheeDecode.from_map(head_map, share=0.2, k=7, recent=1)
    assert method == LycheeDecode(names, k=7, recent=1)
    assert LycheeDecode.from_map(head_map, share=0.0).heads == ()
    with pytest.raises(HeadscopeError, match="between 0 and 1, not 2"):
        LycheeDecode.from_map(head_map, share=2.0)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (lambda: TidalDecode(0), "k to be a whole number of tokens, 1 or more"),
        (lambda: TidalDecode(8, 3, (2,)), "2 is not behind 3"),
        (lambda: TidalDecode(8, 0, (3,)), "no attention layer 3 for TidalDecode to choose in"),
        (lambda: TidalDecode(8, 2, ()), "choose earlier"),
        (lambda: LycheeDecode(["L9H0"], k=3), "no head L9H0"),
        (lambda: RecycledAttention(8, 0), "stride to be a whole number of tokens, 1 or more"),
        (lambda: RecycledAttention(8, 4, None, 2), "an odd number of keys, not 2"),
        (lambda: RecycledAttention(8, 4, float("nan")), "give -1 to 1, not nan"),
        (lambda: TokenSelect(8, 1, 0), "recent to be a whole number of tokens, 1 or more"),
        (lambda: TokenSelect(8, 1, 1, 1.5), "give -1 to 1, not 1.5"),
        (lambda: LycheeDecode((), k=3, recent=-1), "recent to be a whole number"),
    ],
)
def test_bad_parameters_are_refused(llama: HeadModel, method: Any, said: str) -> None:
    with pytest.raises(HeadscopeError, match=said), method()(llama):
        pass
