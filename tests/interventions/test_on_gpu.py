"""On a GPU every intervention gives what it gives on the CPU, made there or here, padded too."""

import pytest
import torch
from conftest import opened
from interventions.test_conformance import PADDED, TOKENS, recipes, scoped, steps
from tiny import tiny_model, tiny_tokenizer
from torch.testing import assert_close

import headscope

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("name", scoped())
def test_it_gives_what_the_cpu_gives(name: str, architecture: str) -> None:
    on_cpu = opened(architecture)
    on_gpu = headscope.load(tiny_model(architecture).cuda(), tiny_tokenizer())
    made_here, made_there = (list(recipes(name, model)) for model in (on_cpu, on_gpu))
    for here, there in zip(made_here, made_there, strict=True):
        with here(on_cpu):
            want = steps(on_cpu, TOKENS, PADDED)
        for method in (here, there):
            with method(on_gpu):
                found = steps(on_gpu, TOKENS.cuda(), PADDED.cuda()).cpu()
            real = PADDED.bool()
            assert_close(found[real], want[real], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", scoped())
def test_it_runs_in_bfloat16(name: str) -> None:
    model = headscope.load(tiny_model("llama").cuda().bfloat16(), tiny_tokenizer())
    for method in recipes(name, model):
        with method(model):
            found = steps(model, TOKENS.cuda(), PADDED.cuda())
        assert bool(found[PADDED.bool()].isfinite().all()), method
