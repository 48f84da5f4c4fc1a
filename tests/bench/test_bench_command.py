"""What `headscope bench` refuses, says and writes."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_cases import AGAINST_ON_CPU, Counted, copying_little, half, interpreter
from commanding import headscope
from conftest import opened

from headscope.bench import baselines, meters
from headscope.bench.quality import measured_perplexity
from headscope.bench.result import Bench
from headscope.cli import benching
from headscope.evals.base import Item
from headscope.evals.perplexity import Perplexity
from headscope.patterns import Full, Streaming
from headscope.sparsity.profile import SparseProfile

__all__ = ["interpreter"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return half().save(tmp_path / "half.json")


def refused(*args: Any) -> str:
    code, out, err = headscope("bench", *args)
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert line.startswith("headscope: ")
    assert line.endswith((".", "?"))
    return line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--lengths", "x"), "--lengths"),
        (("--lengths", "0"), "--lengths takes positive numbers"),
        (("--lengths", "2147483647"), "--lengths goes up to 2147418111, as kernels count in 32"),
        (("--batch", "0"), "--batch takes positive numbers"),
        (("--rounds", "0"), "--rounds takes a whole number from 1 up"),
        (("--against", "fast"), "There is no baseline 'fast'; name some of cudnn, flash"),
        (("--part", "both"), "--part"),
        (("--out", "half.json"), "--out takes a folder, and half.json is a file."),
    ],
)
def test_mistakes(saved: Path, args: tuple[str, ...], message: str) -> None:
    assert message in refused(saved, *args)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_where_to_go(saved: Path) -> None:
    said = refused(saved)
    assert said == (
        "headscope: There is no GPU here; run headscope bench on a machine that has one."
    )


def test_profiles_that_cannot_be_read(tmp_path: Path) -> None:
    assert "none.json cannot be read" in refused(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    assert "is damaged or no sparseprofile" in refused(tmp_path / "bad.json")


def test_heads_that_no_kernel_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(benching, "_device", lambda: torch.device("cpu"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    path = half(d_head=80).save(tmp_path / "odd.json")
    assert "cannot run this profile: it takes heads 64, 96, 128 or 256 wide" in refused(
        path, "--dtype", "float16"
    ).replace("128, 256", "128 or 256")


@pytest.fixture
def on_cpu(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as on a GPU, on interpreted kernels and a meter without a clock."""
    copying_little(monkeypatch)
    monkeypatch.setattr(benching, "_check_device", lambda *args: None)
    monkeypatch.setattr(benching, "_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(meters, "GpuMeter", lambda device: Counted())
    monkeypatch.setattr(baselines, "chosen_baselines", lambda names: AGAINST_ON_CPU)


@pytest.mark.usefixtures("on_cpu")
def test_tables_files_and_json(saved: Path) -> None:
    asked = ("bench", saved, "--lengths", "70", "--batch", "1", "--rounds", 1, "--dtype", "float16")
    code, out, err = headscope(*asked, "--quiet")
    assert (code, err) == (0, "")
    folder = saved.with_name("half-bench")
    for said in ("Prefill: half on a device of a test", "Decode:", "planned kv=0.5", "Saved to"):
        assert said in " ".join(out.split())
    assert (folder / "bench.svg").read_text().startswith("<svg")
    found = Bench.load(folder / "bench.json")
    assert found.command.startswith("headscope bench")
    assert found.quality["notes"] == {"planned": "kv=0.5", "loss": "output"}
    other = saved.with_name("elsewhere")
    code, out, _ = headscope(*asked, "--part", "prefill", "--json", "--out", other)
    told = json.loads(out)
    assert (code, told["decode"], told["saved"]) == (0, [], str(other / "bench.json"))
    assert told["prefill"][0]["ours"]["speedup"]["median"] == 1.0


def test_perplexity_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    item = Perplexity.item

    def of_any_words(self: Perplexity, index: int, tokenizer: Any) -> Item:
        """The tokenizer of the tiny model knows none of the text's own."""
        made = item(self, index, tokenizer)
        rng = random.Random(index)
        ids = {
            name: tuple(rng.randrange(3, 97) for _ in getattr(made.prompt, name))
            for name in ("token_ids", "answer_ids")
        }
        return replace(made, prompt=replace(made.prompt, **ids))

    monkeypatch.setattr(Perplexity, "item", of_any_words)
    model = opened("llama")
    whole, none = (SparseProfile.of(model, {}, rest=rule) for rule in (Full(), Streaming(0, 1)))
    found = measured_perplexity(model, whole, (64, 10**6))
    (row,) = found["perplexity"]
    assert (row["n"], row["ratio"], found["texts"]) == (64, 1.0, 6)
    cut = measured_perplexity(model, none, (64,))["perplexity"][0]
    assert cut["without"] == row["without"]
    assert cut["low"] < cut["ratio"] < cut["high"]
    assert cut["ratio"] != 1.0
