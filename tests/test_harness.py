"""The evaluation harness on an opened model: against sums by hand, and against its own model."""

import inspect
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import VOCAB, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

import headscope
from headscope.errors import HeadscopeError
from headscope.model import HeadModel

pytest.importorskip("lm_eval", reason="needs the extra 'harness'")

from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM

from headscope.harness import HeadscopeLM, evaluate
from headscope.harness.generating import greedy

EXAMPLES = Path(__file__).parents[1] / "examples" / "harness"
RETRIEVAL = ["L18H6", "L18H7", "L23H2", "L17H4", "L17H3"]  # benchmarks/results/claims_cpu.txt
BACKENDS = ["hf", "nnsight", "lens"]

# Of two contexts; some continuations begin alike, one is a single token.
PAIRS = [
    ("w5 w9 w13 w5", " w9 w21"),
    ("w5 w9 w13 w5", " w9 w30"),
    ("w40 w41", " w42 w43 w44"),
    ("w5 w9 w13 w5", " w77"),
    ("w5 w9 w13 w5", " w50 w51 w52"),
]


def tokenizer(bos: str | None = "<s>") -> PreTrainedTokenizerFast:
    """One token a word, w3 to w96; no word begins like a special token, as the tiny one's do."""
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCAB))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token=bos, eos_token="</s>"
    )


@cache
def opened(name: str, backend: str = "hf") -> HeadModel:
    if backend != "hf":
        pytest.importorskip({"lens": "transformer_lens"}.get(backend, backend))
    return headscope.load(tiny_model(name), tokenizer(), backend=backend)


@pytest.fixture
def llama() -> HeadModel:
    return opened("llama")


def asked(kind: Any, requests: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, request, index) for index, request in enumerate(requests)]


def scored(lm: Any, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    return lm.loglikelihood(asked("loglikelihood", pairs), disable_tqdm=True)


def said(lm: Any, context: str, **options: Any) -> str:
    return lm.generate_until(asked("generate_until", [(context, options)]), disable_tqdm=True)[0]


def by_hand(model: HeadModel, context: list[int], continuation: list[int]) -> float:
    logp = model([*context, *continuation], prompt_length=len(context))[0].log_softmax(-1)
    rows = range(len(context) - 1, len(context) + len(continuation) - 1)
    return sum(float(logp[row, token]) for row, token in zip(rows, continuation, strict=True))


def ids(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def close(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-4, rtol=1e-5)


# ---- log-likelihoods -----------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_log_likelihoods_are_sums_of_log_softmax(backend: str, share: bool) -> None:
    model = opened("llama", backend)
    found = scored(HeadscopeLM(model, share=share), PAIRS)
    close([nats for nats, _ in found], [by_hand(model, ids(c), ids(x)) for c, x in PAIRS])
    best = model(ids("w40 w41"))[0, -1].argmax()
    assert scored(HeadscopeLM(model), [("w40 w41", f" w{best}")])[0][1] is True
    assert scored(HeadscopeLM(model), [("w40 w41", f" w{best - 1}")])[0][1] is False


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt2"])
def test_a_shared_context_changes_nothing(name: str) -> None:
    model = opened(name)
    long = " ".join(f"w{3 + i % 90}" for i in range(40))  # longer than the window of some layers
    pairs = [(long, f" w{i} w{i + 1} w{i + 2}") for i in (3, 14, 27)]
    together = scored(HeadscopeLM(model), pairs)
    close(together, scored(HeadscopeLM(model, share=False), pairs))


@pytest.mark.parametrize("part", ["all", "prefill", "decode", "answer"])
def test_an_ablation_is_in_force_and_knows_where_the_answer_starts(
    llama: HeadModel, part: Any
) -> None:
    ablation = headscope.Ablate([(0, 1), (1, 4), (2, 5)], part=part)
    plain = scored(HeadscopeLM(llama), PAIRS)
    with ablation(llama):
        found = [nats for nats, _ in scored(HeadscopeLM(llama), PAIRS)]
        close(found, [by_hand(llama, ids(c), ids(x)) for c, x in PAIRS])
    moved = [abs(a - b[0]) > 1e-3 for a, b in zip(found, plain, strict=True)]
    # A single token has no row that reads an answer token.
    assert moved == [part != "decode" or len(ids(x)) > 1 for _, x in PAIRS]


def test_contexts_are_read_once_only_while_nothing_is_in_force(llama: HeadModel) -> None:
    rows = list[int]()

    def read(share: bool) -> int:
        rows.clear()
        with llama.observed(lambda a: rows.append(a.z.shape[2])):
            scored(HeadscopeLM(llama, share=share), PAIRS)
        return sum(rows) // llama.n_layers

    # Two of the four continuations of four tokens differ in their last token alone.
    assert read(share=False) == (5 + 4 + 6) + 4
    assert read(share=True) == 3 + (2 + 1 + 3) + 4
    with headscope.Ablate([(0, 1)])(llama):
        assert read(share=True) == read(share=False) == 19


def test_an_empty_context_is_the_start_token(llama: HeadModel) -> None:
    found = scored(HeadscopeLM(llama), [("", "w5 w6")])[0][0]
    assert found == pytest.approx(by_hand(llama, [1], [5, 6]), abs=1e-4)
    without = headscope.load(tiny_model("llama"), tokenizer(bos=None))
    assert HeadscopeLM(without).prefix_token_id == 2


def test_a_context_that_is_too_long_loses_its_beginning_with_a_warning(llama: HeadModel) -> None:
    long = [3 + i % 90 for i in range(200)]
    pairs = [(" ".join(f"w{i}" for i in long), x) for x in (" w8 w9", " w8 w10", " w4")]
    lm = HeadscopeLM(llama)
    with pytest.warns(UserWarning, match="3 requests do not fit into the 128 tokens") as caught:
        found = scored(lm, [*pairs, ("w5", " w6")])
    assert len(caught) == 1
    logp = llama([*long[-127:], 8])[0].log_softmax(-1)
    assert found[0][0] == pytest.approx(float(logp[-2, 8] + logp[-1, 9]), abs=1e-4)
    with pytest.warns(UserWarning, match="1 requests"):
        text = said(lm, pairs[0][0], max_gen_toks=4)
    assert text == llama.decode(llama.generate(long[-124:], max_new_tokens=4))


def test_continuations_that_cannot_be_scored(llama: HeadModel) -> None:
    lm = HeadscopeLM(llama)
    with pytest.raises(HeadscopeError, match="has 0 tokens"):
        scored(lm, [("w5", "")])
    with pytest.raises(HeadscopeError, match="has 129 tokens"):
        scored(lm, [("w5", " w6" * 129)])


def test_the_same_as_the_harness_own_model(llama: HeadModel) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    theirs = huggingface.HFLM(pretrained=tiny_model("llama"), tokenizer=tokenizer())
    lm = HeadscopeLM(llama)
    pairs = [*PAIRS, ("", "w5 w6"), ("w5 ", "w9")]
    close(scored(lm, pairs), scored(theirs, pairs))
    texts = [(" ".join(f"w{3 + i * 7 % 90}" for i in range(n)),) for n in (1, 20, 300)]
    rolled = [m.loglikelihood_rolling(asked("loglikelihood_rolling", texts)) for m in (lm, theirs)]
    close(*rolled)
    for until in (["w9"], [], "w1"):
        options = {"until": until, "max_gen_toks": 12, "do_sample": False}
        assert said(lm, "w5 w6 w7", **options) == said(theirs, "w5 w6 w7", **options)
    assert lm.tokenizer_name == theirs.tokenizer_name
    assert lm.chat_template(True) is theirs.chat_template(True) is None


# ---- generation ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_generation_ends_at_a_string(backend: str) -> None:
    model = opened("llama", backend)
    lm, prompt = HeadscopeLM(model), [5, 9, 13, 5]
    whole = model.decode(model.generate(prompt, max_new_tokens=12))
    assert said(lm, "w5 w9 w13 w5", max_gen_toks=12) == whole
    end = whole.split()[3]
    steps = list[int]()
    with model.observed(lambda a: steps.append(a.attention.layer)):
        text = said(lm, "w5 w9 w13 w5", until=[end, "never"], max_gen_toks=12)
    assert text == whole[: whole.find(end)]
    assert steps.count(0) <= 4
    assert said(lm, "", max_gen_toks=3) == model.decode(model.generate([1], max_new_tokens=3))


def test_an_ablation_of_the_answer_acts_on_generation(llama: HeadModel) -> None:
    with headscope.Ablate([(0, 1), (1, 4), (2, 5), (0, 0)], part="answer")(llama):
        found = said(HeadscopeLM(llama), "w5 w9 w13 w5", max_gen_toks=12)
        assert found == llama.decode(llama.generate([5, 9, 13, 5], max_new_tokens=12))
    assert found != said(HeadscopeLM(llama), "w5 w9 w13 w5", max_gen_toks=12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ([], 256)),
        ({"until": "."}, (["."], 256)),
        ({"until": [".", ""], "max_tokens": 5}, (["."], 5)),
        ({"max_gen_toks": 3, "max_new_tokens": 5, "do_sample": False}, ([], 3)),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, ([], 256)),
        ({"temperature": 0}, ([], 256)),
        ({"do_sample": True, "temperature": 0.7}, "leave do_sample, temperature out"),
        ({"temperature": 0.7}, "leave temperature out"),
        ({"do_sample": False, "num_beams": 4}, "leave num_beams out"),
    ],
)
def test_only_greedy_options(options: dict[str, Any], expected: Any) -> None:
    if isinstance(expected, tuple):
        assert greedy(options, 256) == expected
        return
    with pytest.raises(HeadscopeError, match=expected):
        greedy(options, 256)


def test_too_many_new_tokens(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="256 new tokens leave no room"):
        said(HeadscopeLM(llama), "w5")


# ---- the rest of what the harness asks for -------------------------------------------------


def test_chat_templates(llama: HeadModel) -> None:
    turns = [{"role": "user", "content": "w5"}]
    with pytest.raises(HeadscopeError, match="has no chat template"):
        HeadscopeLM(llama).apply_chat_template(turns)
    chatty = tokenizer()
    chatty.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}<s> {{ m.content }} w4 {% endfor %}{% if add_generation_prompt %}w3{% endif %}"
    )
    lm = HeadscopeLM(headscope.load(tiny_model("llama"), chatty))
    assert lm.apply_chat_template(turns) == "<s> w5 w4 w3"
    assert lm.apply_chat_template(turns, add_generation_prompt=False).rstrip() == "<s> w5"
    # A template writes the start token that the tokenizer would add once more.
    start = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    chatty.backend_tokenizer.post_processor = start
    assert lm.tok_encode("w5") == lm.tok_encode("<s> w5") == [1, 5]
    assert lm.tok_encode("w5", add_special_tokens=False) == [5]
    assert lm.chat_template(True) == chatty.chat_template
    with pytest.raises(HeadscopeError, match="refuses these turns"):
        lm.apply_chat_template([{"role": "system", "content": "w4"}, *turns])


def test_the_store_of_answers_is_refused_under_an_intervention(
    llama: HeadModel, tmp_path: Path
) -> None:
    lm: Any = CachingLM(HeadscopeLM(llama), str(tmp_path / "answers.db"))
    first, again = scored(lm.lm, PAIRS), lm.loglikelihood(asked("loglikelihood", PAIRS))
    assert again == first
    with (
        headscope.Ablate([(0, 1)])(llama),
        pytest.raises(HeadscopeError, match="leave it out under an intervention"),
    ):
        CachingLM(HeadscopeLM(llama), str(tmp_path / "others.db"))
    lm.dbdict.close()


def test_what_is_no_model() -> None:
    init: Any = inspect.unwrap(
        HeadscopeLM.__init__
    )  # as outside of tests, where no type is checked
    with pytest.raises(HeadscopeError, match=r"headscope\.load\('smollm2'\)"):
        init(object.__new__(HeadscopeLM), "smollm2")


def test_without_the_harness() -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "import headscope\n"
        "try:\n    import headscope.harness\n"
        "except headscope.HeadscopeError as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "headscope[harness]"' in out.stdout


# ---- whole tasks ---------------------------------------------------------------------------


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.usefixtures("own_cache")
@pytest.mark.model
def test_ablated_retrieval_heads_find_no_key_and_know_the_capitals(smollm2: HeadModel) -> None:
    def figures() -> tuple[float, ...]:
        found = evaluate(smollm2, [EXAMPLES / "keys.yaml"], limit=8)
        assert len(found["samples"]["keys"]) == 8
        assert len(found["config"]["interventions"]) == len(smollm2.stack.chain.entered)
        more = evaluate(smollm2, [EXAMPLES / "keys_said.yaml", EXAMPLES / "capitals.yaml"], limit=4)
        said, capitals = more["results"]["keys_said"], more["results"]["capitals"]
        return (
            found["results"]["keys"]["acc,none"],
            said["exact_match,none"],
            capitals["acc,none"],
        )

    chosen, spoken, capitals = figures()
    assert chosen >= 0.75
    assert spoken >= 0.75
    assert capitals >= 0.75
    with headscope.Ablate(RETRIEVAL)(smollm2):
        chosen_without, spoken_without, capitals_without = figures()
    assert chosen_without <= chosen - 0.25
    assert spoken_without <= 0.25
    assert capitals_without >= 0.75


@pytest.mark.usefixtures("own_cache")
def test_tasks_that_are_not_there(llama: HeadModel, tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match="no task file"):
        evaluate(llama, [tmp_path / "none.yaml"])
    text = (EXAMPLES / "keys.yaml").read_text()
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(HeadscopeError, match="names a file that is not there"):
        evaluate(llama, [tmp_path / "keys.yaml"])
    with pytest.raises(HeadscopeError, match="at least one document"):
        evaluate(llama, [tmp_path / "keys.yaml"], limit=0)


def test_a_name_that_the_harness_does_not_know(
    llama: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    few = TaskManager(include_defaults=False)  # reading its own takes seconds
    monkeypatch.setattr("headscope.harness.tasks.TaskManager", lambda **_: few)
    with pytest.raises(HeadscopeError, match="no task 'kees'"):
        evaluate(llama, ["kees"])
