"""Patterns of heads on a text, on every backend; and the text to click in."""

import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from charted import HOSTILE, TOKENS, some_patterns
from conftest import opened
from tiny import reference_model

from headscope.errors import HeadscopeError
from headscope.interventions.ablate import Ablate
from headscope.viz import figures, patterns
from headscope.viz.pooling import max_pool, restored

IDS = [1, *(5 + i % 60 for i in range(39))]
BACKENDS = ["hf", "nnsight", "lens"]


def eager(ids: list[int]) -> list[np.ndarray]:
    """[layer][head, query, key] by the model's own attention."""
    outputs = reference_model("llama")(torch.tensor([ids]), output_attentions=True)
    return [layer[0].numpy() for layer in outputs.attentions]


@pytest.mark.parametrize("backend", BACKENDS)
def test_patterns_are_those_of_the_model(backend: str) -> None:
    model, expected = opened("llama", backend), eager(IDS)
    found = patterns(model, IDS, ["L2H4", "L0H1", (2, 0)])
    assert list(found.weights) == [(2, 4), (0, 1), (2, 0)]
    assert found.size == 1
    assert found.tokens == tuple(f"w{i}" for i in IDS)
    for (layer, head), weights in found.weights.items():
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights, expected[layer][head], atol=2e-5)
    pooled = patterns(model, IDS, ["L2H4"], most=7)
    assert pooled.size == 6
    assert pooled.squares == 7
    np.testing.assert_allclose(pooled["L2H4"], max_pool(expected[2][4], 6), atol=2e-5)


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "qwen2"])
def test_windows_caps_and_sinks_are_seen(name: str) -> None:
    outputs = reference_model(name)(torch.tensor([IDS]), output_attentions=True)
    found = patterns(opened(name), IDS, ["L0H1", "L1H1"])
    for (layer, head), weights in found.weights.items():
        own = outputs.attentions[layer][0, head].numpy()[:, : len(IDS)]
        np.testing.assert_allclose(weights, own, atol=2e-5)


def test_what_a_scope_edits_is_seen_and_nothing_is_left_behind() -> None:
    model = opened("llama")
    before = model.forward(torch.tensor([IDS]))
    with Ablate(["L1H2"], mode="uniform")(model):
        inside = patterns(model, IDS, ["L2H0"])
    outside = patterns(model, IDS, ["L2H0"])
    assert np.abs(inside["L2H0"] - outside["L2H0"]).max() > 1e-4
    assert torch.equal(model.forward(torch.tensor([IDS])), before)


def test_a_text_is_tokenized_and_a_layer_chosen() -> None:
    model = opened("llama")
    found = patterns(model, "w9 w8 w7 w9")
    assert found.tokens[-4:] == ("w9", "w8", "w7", "w9")
    assert list(found.weights) == [(1, head) for head in range(6)]
    assert "6 heads in" not in found.chart().name
    assert repr(found) == "Patterns(tiny, 4 tokens, L1H0, L1H1, L1H2, L1H3 and 2 more)" or (
        "4 tokens" in repr(found)
    )
    ElementTree.fromstring(found._repr_html_())
    one = patterns(model, "w9 w8", ["L0H0"])
    assert "L0H0" in one.chart().name


REFUSED = {
    "129 tokens do not fit into the 128": lambda m: patterns(m, [5] * 129),
    "Give one text": lambda m: patterns(m, ""),
    "or the token ids of one": lambda m: patterns(m, torch.ones(2, 3, dtype=torch.long)),
    "has no head L9H0": lambda m: patterns(m, "w9", ["L9H0"]),
    "names no head": lambda m: patterns(m, "w9", ["x"]),
    "at least one head": lambda m: patterns(m, "w9", []),
    "not 0": lambda m: patterns(m, "w9", ["L0H0"], most=0),
    "headscope.load": lambda m: patterns("smollm2", "w9"),
    "L2H5 was not computed; there are: L0H0": lambda m: patterns(m, "w9", ["L0H0"])["L2H5"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_computed_is_refused(said: str) -> None:
    with pytest.raises(HeadscopeError, match=re.escape(said)) as refused:
        REFUSED[said](opened("llama"))
    assert "\n" not in str(refused.value)


# ---- a text to click in ---------------------------------------------------------------------


class Part(HTMLParser):
    """Elements of a part of a page, and the texts of those that can be clicked."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.options: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if dict(attrs).get("role") == "option":
            self.options.append("")

    def handle_data(self, data: str) -> None:
        if self.options and self.tags[-1][1].get("role") == "option":
            self.options[-1] += data


@pytest.mark.parametrize("theme", ["light", "dark", "auto"])
def test_a_text_to_click_in_stands_alone(theme: Any) -> None:
    html = figures.text_attention(some_patterns(model=HOSTILE)).html(theme)
    part = Part(html)
    names = [tag for tag, _ in part.tags]
    assert names.count("script") == 1
    assert "img" not in names
    assert not any(key.startswith("on") or key in ("src", "href", "id")
                   for _, attributes in part.tags for key in attributes)  # fmt: skip
    script = html[html.index("<script>") :]
    assert not re.search(r"https?://|fetch|import|innerHTML|\beval\b", script)
    assert len(part.options) == len(TOKENS)
    assert part.options[0] == TOKENS[0]
    assert part.options[3:5] == ["\ufffd", "\ufffd"]
    (root,) = [a for _, a in part.tags if a.get("class") == "hs-text"]
    assert root["role"] == "group"
    assert (root["aria-label"] or "").startswith("Where heads of </script>")
    html.encode()


def test_its_weights_are_those_of_the_patterns() -> None:
    found = some_patterns()
    made = figures.text_attention(found)
    (root,) = [a for _, a in Part(made.html()).tags if a.get("class") == "hs-text"]
    packed = (root["data-weights"] or "").split(" ")
    assert len(packed) == len(found.weights)
    lower = np.tril_indices(len(TOKENS))
    for each, weights in zip(packed, found.weights.values(), strict=True):
        read = restored(np.frombuffer(b64decode(each), np.uint8))
        np.testing.assert_allclose(read, weights[lower], atol=4e-3)


def test_without_script_the_last_token_is_shown() -> None:
    found = some_patterns()
    html = figures.text_attention(found, ["L1H2"]).html()
    row = np.sqrt(found["L1H2"][-1])
    shades = [float(w) for w in re.findall(r"--w:([\d.]+)\"", html)]
    np.testing.assert_allclose(shades, row, atol=4e-3)
    best = int(np.argmax(row))
    told = re.search(r"L1H2: from “a” to “(.*?)” (\d+) %", html)
    assert told is not None
    assert told[1] == TOKENS[best].replace("\n", "↵\n").strip()
    assert abs(int(told[2]) - 100 * row[best] ** 2) < 1


def test_long_texts_are_pooled_and_stay_small(tmp_path: Path) -> None:
    found = some_patterns(1500, 6, size=3)
    made = figures.text_attention(found)
    assert made.run == 6
    assert len(made.texts) == 250
    assert "".join(made.texts) == "".join(found.tokens)
    assert len(made.html("auto").encode()) < 300_000
    assert len(made.heads) < 6
    path = made.save(tmp_path / "text.html")
    assert path.read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(HeadscopeError, match=r"end it in \.html"):
        made.save(tmp_path / "text.svg")
    json.dumps(made._repr_html_()).encode()  # as a notebook keeps it
