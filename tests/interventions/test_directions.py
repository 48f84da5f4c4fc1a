"""Directions that are trained, and edits of what heads say: what conformance does not ask."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from altered.focus_directions import methods as focusing
from altered.iti import methods as itis
from conftest import opened
from safetensors.numpy import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close

import headscope
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions.ablate import Ablate
from headscope.interventions.base import Intervention
from headscope.interventions.concept import Concept
from headscope.interventions.directions import Directions
from headscope.interventions.focus_directions import FocusDirections
from headscope.interventions.instruction_anchors import InstructionAnchors
from headscope.interventions.iti import ITI
from headscope.interventions.output_directions import OutputDirections
from headscope.interventions.rescale_concept import RescaleConcept
from headscope.interventions.scale_heads import ScaleHeads
from headscope.model import HeadModel
from headscope.prompts import Repeated
from headscope.prompts.base import Prompt
from headscope.stack import Attend

TOKENS = torch.randint(3, 97, (1, 24), generator=torch.Generator().manual_seed(3))
HEADS = ((1, 4), (0, 3), (1, 0))


def asked(seed: int, length: int = 20) -> Prompt:
    """Random tokens with a gold span somewhere, and an answer of two or three of them."""
    rng = random.Random(seed)
    ids = [rng.randrange(3, 97) for _ in range(length + rng.randrange(4))]
    start = rng.randrange(2, 10)
    answer = tuple(rng.randrange(3, 97) for _ in range(2 + seed % 2))
    return Prompt(tuple(ids), {"gold": (start, start + 4)}, "words", answer)


PROMPTS = [asked(seed) for seed in range(6)]


def seen(model: HeadModel, prompt: Prompt) -> dict[int, Attention]:
    """What each layer really computed while a prompt and its answer were read."""
    kept: dict[int, Attention] = {}

    def keep(attended: Attended) -> None:
        kept[attended.attention.layer] = attended.attention

    with torch.no_grad(), model.observed(keep):
        model.forward([*prompt.token_ids, *prompt.answer_ids[:-1]], prompt_length=len(prompt))
    return kept


def gold(attention: Attention, prompt: Prompt, head: int, d: Tensor) -> Tensor:
    """Attention of the answer's rows on the gold span, dense, in float64, with d added to q."""
    n = attention.n_queries
    logits = (attention.q[0, head].double() + d) @ attention.k[
        0, head // attention.group
    ].double().T
    logits = (logits * attention.scale).masked_fill(~torch.ones(n, n).bool().tril(), -torch.inf)
    return logits.softmax(-1)[len(prompt) - 1 :, slice(*prompt.span("gold"))].sum(-1).mean()


def test_training_is_gradient_descent_on_the_dense_mass(grad: None) -> None:
    model, lr, epochs = opened("llama"), 0.03, 6
    found = Directions.train(model, PROMPTS, HEADS, lr=lr, epochs=epochs, batch=len(PROMPTS))
    kept = [seen(model, prompt) for prompt in PROMPTS]
    for (layer, head), q in zip(HEADS, found.q, strict=True):
        d = torch.zeros(model.d_head, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.AdamW([d], lr=lr)
        for _ in range(epochs):
            masses = [gold(k[layer], p, head, d) for k, p in zip(kept, PROMPTS, strict=True)]
            optimizer.zero_grad()
            (-torch.stack(masses).mean()).backward()
            optimizer.step()
        assert_close(q.double(), d.detach(), atol=2e-4, rtol=1e-3)
        assert float(d.detach().abs().max()) > 0.05


def test_it_moves_attention_to_the_gold_span_by_what_training_says() -> None:
    """In the first layer nothing else differs between training and use."""
    model, heads = opened("llama"), ((0, 3), (0, 0))
    found = Directions.train(model, PROMPTS, heads, lr=0.05, epochs=20, batch=2)
    for factor, said in ((0.0, found.facts.before), (1.0, found.facts.after)):
        masses = []
        with FocusDirections(found, factor=factor)(model):
            for prompt in PROMPTS:
                attention = seen(model, prompt)[0]
                rows = range(len(prompt) - 1, attention.n_queries)
                mass = attention.mass(slice(*prompt.span("gold")), rows)
                masses.append(mass[0, [head for _, head in heads]].mean())
        assert_close(float(torch.stack(masses).mean()), said, atol=1e-5, rtol=1e-4)
    assert found.facts.after > found.facts.before + 0.05


def test_training_is_seeded_and_says_how_far_it_is() -> None:
    model, calls = opened("llama"), list[tuple[int, int]]()

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    one = Directions.train(model, PROMPTS, HEADS, epochs=2, batch=2, seed=5, progress=progress)
    two = Directions.train(model, PROMPTS, HEADS, epochs=2, batch=2, seed=5)
    other = Directions.train(model, PROMPTS, HEADS, epochs=2, batch=2, seed=6)
    assert torch.equal(one.q, two.q)
    assert not torch.equal(one.q, other.q)
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > 2


def test_training_leaves_no_gradient_on_the_model() -> None:
    model = opened("llama")
    Directions.train(model, PROMPTS[:2], HEADS, epochs=1)
    assert all(parameter.grad is None for parameter in model.hf.parameters())


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "at least one prompt"),
        (PROMPTS, {"epochs": 0}, "at least one prompt, epoch"),
        ([replace(PROMPTS[0], spans={})], {}, "no span named 'gold'"),
        ([replace(PROMPTS[0], answer_ids=())], {}, "answer"),
        (PROMPTS, {"heads": ["L7H1"]}, "no head L7H1"),
        (PROMPTS, {"heads": []}, "at least one head"),
        (PROMPTS, {"lr": 3e37, "epochs": 4}, "loss of layer .* smaller lr"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    prompts: Sequence[Prompt], options: dict, message: str
) -> None:
    given = {"heads": HEADS, **options}
    with pytest.raises(HeadscopeError, match=message):
        Directions.train(opened("llama"), prompts, **given)


def test_no_factor_and_no_heads_are_bit_exact_no_ops() -> None:
    model = opened("llama")
    (first, *_) = focusing(model)
    plain = model(TOKENS)
    for method in (
        replace(first, factor=0.0),
        replace(first, count=0),
        replace(first, heads=()),
        replace(itis(model)[0], alpha=0.0, part="all"),
    ):
        with method(model):
            assert torch.equal(model(TOKENS), plain), method


def test_a_factor_that_breaks_a_head_is_caught() -> None:
    model = opened("llama")
    with pytest.raises(HeadscopeError, match="finite factor"):
        replace(focusing(model)[0], factor=float("nan"))
    method = replace(focusing(model)[0], factor=3e38)
    with pytest.raises(HeadscopeError, match="FocusDirections made values in layer"), method(model):
        model(TOKENS)


# ---- a vector for the keys -----------------------------------------------------------------


def exact(attention: Attention) -> Attention:
    """One layer's attention in float64."""
    wide = {name: getattr(attention, name).double() for name in ("q", "k", "v")}
    return replace(attention, **wide, known_lse=None)


def with_key_vector(attention: Attention, vector: Tensor, keys: slice = slice(None)) -> Attention:
    """One vector of each KV head added to rotated keys."""
    k = attention.k.clone()
    k[:, :, keys] += vector[:, None]
    return attention.with_k(k)


@pytest.mark.parametrize("name", ["llama", "llama_mha", "qwen3"])
def test_one_vector_added_to_all_keys_changes_nothing(name: str, grad: None) -> None:
    """q · (k + d) = q · k + q · d: every logit of a row moves alike, which a softmax ignores."""
    model = opened(name)
    for attention in map(exact, seen(model, PROMPTS[0]).values()):
        vector = torch.randn(attention.n_kv_heads, attention.q.shape[-1], dtype=torch.float64)
        vector.requires_grad_()
        rows = with_key_vector(attention, vector).rows(None)
        assert_close(rows.detach(), attention.rows(None), atol=1e-12, rtol=0)
        # So a training has nothing to go by either.
        rows[:, :, :, slice(*PROMPTS[0].span("gold"))].sum().backward()
        assert vector.grad is not None
        assert float(vector.grad.abs().max()) < 1e-11
        some = with_key_vector(attention, vector.detach(), slice(0, 5)).rows(None)
        assert float((some - attention.rows(None)).abs().max()) > 1e-3


def test_where_logits_are_capped_or_a_sink_is_learned_a_key_vector_counts() -> None:
    for name in ("gemma2", "gpt_oss"):
        attention = exact(seen(opened(name), PROMPTS[0])[1])
        vector = torch.randn(attention.n_kv_heads, attention.q.shape[-1], dtype=torch.float64)
        rows = with_key_vector(attention, vector).rows(None)
        assert float((rows - attention.rows(None)).abs().max()) > 1e-3, name


# ---- files -----------------------------------------------------------------------------------


def trained(model: HeadModel) -> list[tuple[Directions | OutputDirections, list[str]]]:
    outputs = OutputDirections.train(model, sounding(0), sounding(1), count=3)
    focus = Directions.train(model, PROMPTS, HEADS, epochs=1)
    return [(focus, ["q"]), (outputs, ["theta", "sigma"])]


def test_directions_are_saved_whole(tmp_path: Path) -> None:
    for found, names in trained(opened("llama")):
        path = found.save(tmp_path / "some.safetensors")
        again = type(found).load(path)
        assert again.facts == found.facts
        for name in names:
            assert torch.equal(getattr(again, name), getattr(found, name))
        assert [file.name for file in tmp_path.iterdir()] == ["some.safetensors"]


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    (focus, _), (outputs, _) = trained(opened("llama"))
    path = tmp_path / "some.safetensors"
    for kind, other in ((Directions, outputs), (OutputDirections, focus)):
        with pytest.raises(HeadscopeError, match="holds no"):
            kind.load(other.save(path))
        save_file({"q": np.zeros((3, 8), np.float32)}, path)
        with pytest.raises(HeadscopeError, match="holds no"):
            kind.load(path)
        with pytest.raises(HeadscopeError, match="cannot be read"):
            kind.load(tmp_path / "missing.safetensors")
    for found in (focus, outputs):
        content = found.save(path).read_bytes()
        path.write_bytes(content[:-7])
        with pytest.raises(HeadscopeError, match="damaged"):
            type(found).load(path)
        path.write_bytes(b"not a file of tensors")
        with pytest.raises(HeadscopeError, match="damaged"):
            type(found).load(path)


def test_numbers_that_do_not_fit_the_heads_are_refused(tmp_path: Path) -> None:
    (focus, _), (outputs, _) = trained(opened("llama"))
    for found in (focus, outputs):
        path = found.save(tmp_path / "some.safetensors")
        metadata = {"headscope": found.facts.model_dump_json()}
        arrays = load_file(path)
        save_file({name: array[:-1].copy() for name, array in arrays.items()}, path, metadata)
        with pytest.raises(HeadscopeError, match="damaged"):
            type(found).load(path)
        broken = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
        save_file(broken, path, metadata)
        with pytest.raises(HeadscopeError, match="not finite"):
            type(found).load(path)


def test_another_model_is_refused_by_name() -> None:
    model, other = opened("llama"), opened("qwen3")
    concept = Concept.of(model, ["w5"])
    for method in (focusing(model)[0], itis(model)[0], RescaleConcept([(0, 1)], concept)):
        with pytest.raises(HeadscopeError, match=f"{model.name}.*{other.name}"), method(other):
            pass


# ---- outputs -----------------------------------------------------------------------------------


def sounding(kind: int, count: int = 30) -> list[Prompt]:
    """Prompts that hold one token again and again, another for each kind; they end alike."""
    rng = random.Random(kind)
    words = (50, 60)
    return [
        Prompt((*(rng.choice((words[kind], rng.randrange(3, 97))) for _ in range(11)), 7))
        for _ in range(count)
    ]


def last_z(model: HeadModel, prompts: Sequence[Prompt]) -> dict[Head, Tensor]:
    rows: dict[Head, list[Tensor]] = {head: [] for head in model.heads}

    def keep(attended: Attended) -> None:
        for head in range(model.n_heads):
            rows[attended.attention.layer, head].append(attended.z[0, head, -1].double())

    with model.observed(keep):
        for prompt in prompts:
            model.forward(list(prompt.token_ids))
    return {head: torch.stack(z) for head, z in rows.items()}


def test_output_directions_lead_from_one_mean_to_the_other() -> None:
    model, towards, away = opened("llama"), sounding(0), sounding(1, 25)
    found = OutputDirections.train(model, towards, away, count=5)
    one, two = last_z(model, towards), last_z(model, away)
    for head, theta, sigma in zip(found.facts.heads, found.theta, found.sigma, strict=True):
        way = one[head].mean(0) - two[head].mean(0)
        assert_close(theta.double(), way / way.norm(), atol=1e-5, rtol=1e-4)
        spread = (torch.cat((one[head], two[head])) @ (way / way.norm())).std(correction=0)
        assert_close(sigma.double(), spread, atol=1e-5, rtol=1e-4)
    assert list(found.facts.accuracy) == sorted(found.facts.accuracy, reverse=True)


def test_heads_tell_kinds_apart_only_where_there_are_two() -> None:
    model = opened("llama")
    every = len(model.heads)
    kinds = OutputDirections.train(model, sounding(0, 40), sounding(1, 40), count=every)
    same = sounding(0, 80)
    none = OutputDirections.train(model, same[::2], same[1::2], count=every)
    assert kinds.facts.accuracy[0] > 0.85
    assert 0.3 < float(np.mean(none.facts.accuracy)) < 0.7


def test_too_few_prompts_of_a_kind_are_refused() -> None:
    model = opened("llama")
    with pytest.raises(HeadscopeError, match="prompts of each kind"):
        OutputDirections.train(model, sounding(0, 3), sounding(1))
    with pytest.raises(HeadscopeError, match="heads"):
        OutputDirections.train(model, sounding(0), sounding(1), count=99)


def test_heads_without_a_direction_are_refused() -> None:
    model = opened("llama")
    method = replace(focusing(model)[0], heads=["L0H0"])
    with pytest.raises(HeadscopeError, match="no direction for L0H0"), method(model):
        pass


def test_random_directions_are_controls_of_equal_length() -> None:
    (focus, _), (outputs, _) = trained(opened("llama"))
    assert isinstance(focus, Directions)
    assert isinstance(outputs, OutputDirections)
    assert_close(focus.random(1).q.norm(dim=1), focus.q.norm(dim=1))
    assert_close(outputs.random(1).theta.norm(dim=1), outputs.theta.norm(dim=1))
    assert torch.equal(outputs.random(1).sigma, outputs.sigma)
    assert torch.equal(focus.random(1).q, focus.random(1).q)
    assert not torch.equal(focus.random(1).q, focus.random(2).q)
    for drawn, first in ((focus.random(1).q, focus.q), (outputs.random(1).theta, outputs.theta)):
        assert float(torch.nn.functional.cosine_similarity(drawn, first).abs().max()) < 0.99


def said(model: HeadModel, method: Intervention, layer: int) -> tuple[Tensor, Tensor]:
    """z of one layer before and after a method's edit, in the same pass."""
    before, after = list[Tensor](), list[Tensor]()

    def outside(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        if attention.layer == layer:
            after.append(attended.z[0].double())
        return attended

    def inside(attended: Attended) -> None:
        if attended.attention.layer == layer:
            before.append(attended.z[0].double())

    with model.entered(outside), method(model), model.observed(inside):
        model(TOKENS)
    return before[0], after[0]


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.0, 5.0])
def test_a_concept_is_scaled_in_the_logits_of_its_words(factor: float) -> None:
    """What a head writes into its words' logits is multiplied; no other part of z moves."""
    model, ids = opened("llama"), [5, 37, 40]
    concept = Concept.of(model, ["w5", "w37", 40])
    assert list(concept.tokens) == ids
    before, after = said(model, RescaleConcept(["L1H2", "L1H4"], concept, factor), 1)
    words = model.hf.get_output_embeddings().weight[ids].double()
    out = model.hf.model.layers[1].self_attn.o_proj.weight.double().chunk(model.n_heads, 1)
    for head in range(model.n_heads):
        writes = (words @ out[head]).T
        scaled = factor if head in (2, 4) else 1.0
        assert_close(after[head] @ writes, scaled * (before[head] @ writes), atol=1e-5, rtol=1e-4)
        moved = after[head] - before[head]
        rest = torch.linalg.qr(writes, mode="complete").Q[:, len(ids) :]
        assert float((moved @ rest).abs().max()) < 1e-5


def test_whole_outputs_are_scaled_where_asked_for() -> None:
    model, heads = opened("llama"), ["L1H2", "L2H4"]
    with RescaleConcept(heads, Concept.of(model, ["w5"]), 0.25, whole=True)(model):
        found = model(TOKENS)
    with ScaleHeads(heads, 0.25)(model):
        assert_close(found, model(TOKENS), atol=1e-5, rtol=1e-4)


def test_words_that_are_no_single_token_are_refused() -> None:
    model = opened("llama")
    for words, message in (
        (["w5 w6"], "w5 w6"),
        ([97], "0 to 96"),
        ([], "1 to 8 words"),
        (list(range(3, 12)), "1 to 8 words"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            Concept.of(model, words)


def test_a_concept_behind_a_gate_is_refused() -> None:
    hf = tiny_model("llama")
    for block in hf.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,))
    model = headscope.load(hf, tiny_tokenizer())
    with pytest.raises(HeadscopeError, match="LlamaForCausalLM gates or normalises"):
        Concept.of(model, ["w5"])


def test_scaling_heads_by_0_is_zero_ablation_and_by_1_nothing() -> None:
    model, heads = opened("llama"), ["L0H1", "L2H5"]
    plain = model(TOKENS)
    with ScaleHeads(heads, 1.0)(model):
        assert torch.equal(model(TOKENS), plain)
    with Ablate(heads)(model):
        ablated = model(TOKENS)
    with ScaleHeads(heads, 0.0)(model):
        assert torch.equal(model(TOKENS), ablated)
    for factor in (float("nan"), float("inf")):
        with pytest.raises(HeadscopeError, match="finite factor"):
            ScaleHeads(heads, factor)


def test_anchors_take_the_top_share_of_a_map() -> None:
    model = opened("llama")
    prompts = Repeated(samples=6, block=20, times=2)
    head_map = headscope.scan(model, ["induction"], prompts=prompts)
    means = head_map["induction"].mean()
    order = sorted(head_map.heads(), key=lambda h: -means[h])
    assert list(InstructionAnchors.top(head_map, "induction", 0.12)) == order[:2]
    assert list(InstructionAnchors.top(head_map, "induction", 0.001)) == order[:1]
    assert set(InstructionAnchors.top(head_map, "induction", 1.0)) == set(order)
    made = InstructionAnchors.of(head_map, "induction", (8, 12), (2, 5), share=0.12, factor=3.0)
    assert made == InstructionAnchors((8, 12), (2, 5), heads=order[:2], factor=3.0)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(HeadscopeError, match="share"):
            InstructionAnchors.top(head_map, "induction", share)


def test_anchors_of_named_spans_and_what_they_refuse() -> None:
    model = opened("llama")
    spans = {"order": (12, 16), "source_0": (2, 4), "source_1": (6, 9)}
    prompt = Prompt(tuple(TOKENS[0].tolist()), spans)
    method, _ = InstructionAnchors("order", "source").prepared(model, prompt)
    with method(model):
        found = model(TOKENS)
    with InstructionAnchors((12, 16), [(2, 4), (6, 9)])(model):
        assert torch.equal(model(TOKENS), found)
    neutral = InstructionAnchors((12, 16), (2, 4), action="amplify", factor=1.0)
    with neutral(model):
        assert_close(model(TOKENS), opened("llama")(TOKENS), atol=1e-4, rtol=1e-4)
    for options, message in (
        ({"action": "amplify", "factor": 0.0}, "factor above 0"),
        ({"keys": (3, 3)}, "holds no token"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            InstructionAnchors(**{"queries": (12, 16), "keys": (2, 4), **options})


def test_iti_refuses_what_its_directions_do_not_have() -> None:
    (method, *_) = itis(opened("llama"))
    for options, message in (
        ({"count": 9}, "use a count from 0 to"),
        ({"alpha": float("inf")}, "finite alpha"),
        ({"count": -1}, "use a count from 0 to"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            ITI(**{"directions": method.directions, **options})
