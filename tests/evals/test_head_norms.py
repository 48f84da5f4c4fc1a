"""What heads write, against the vectors themselves."""

import pytest
import torch
from conftest import opened
from einops import einsum
from tiny import tiny_model, tiny_tokenizer

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.evals.head_norms import head_norms
from headscope.prompts import Prompt, Repeated


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_norms_are_those_of_the_vectors_that_heads_write(name: str) -> None:
    model = opened(name)
    prompts = [
        *Repeated(samples=2, block=7, times=2).prompts(model.tokenizer),
        Prompt((1, 5, 9), answer="x", answer_ids=(4,)),  # the answer is not read
    ]
    written: dict[int, list[torch.Tensor]] = {layer: [] for layer in model.layers}

    def write(attended: Attended) -> None:
        layer = attended.attention.layer
        W_O = model.weights(layer).W_O.double()
        vectors = einsum(
            attended.z[0].double(), W_O, "head token d, head d model -> head token model"
        )
        written[layer].append(vectors.norm(dim=-1))

    for layer in model.layers:
        model.weights(layer)
    with model.observed(write):
        for prompt in prompts:
            model(list(prompt.token_ids))
    found = head_norms(model, prompts)
    assert list(found) == [(layer, head) for layer in model.layers for head in range(model.n_heads)]
    for layer, norms in written.items():
        every = torch.cat(norms, 1)
        assert every.shape[1] == sum(map(len, prompts))
        ours = [found[layer, head] for head in range(model.n_heads)]
        assert ours == pytest.approx(every.mean(1).tolist(), rel=1e-4)


def test_norms_need_a_prompt_and_an_output_that_is_linear() -> None:
    with pytest.raises(HeadscopeError, match="at least one prompt"):
        head_norms(opened("llama"), [])
    gated = tiny_model("llama")
    for block in gated.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,))
    with pytest.raises(HeadscopeError, match="gates or normalises z"):
        head_norms(headscope.load(gated, tiny_tokenizer()), [Prompt((3, 4))])
