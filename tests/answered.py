"""Random tokens with an answer, and what is kept of them for a backward pass."""

from collections.abc import Callable

import torch
from conftest import opened
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import headscope
from headscope.model import HeadModel
from headscope.prompts import Prompt, Repeated


def prompts(count: int = 2, length: int = 30, seed: int = 2) -> list[Prompt]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(3, 90, (count, length + 4), generator=generator)
    return [Prompt(tuple(x[:length]), answer_ids=tuple(x[length:])) for x in drawn.tolist()]


class _Given(Repeated):
    """Such prompts, as a family; every other one is ten tokens longer."""

    def prompt(self, index: int, tokenizer: object) -> Prompt:
        return prompts(index + 1, 30 + 10 * (index % 2))[index]


def long_llama() -> HeadModel:
    """A tiny model that reads 2 048 tokens."""
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        pad_token_id=0,
    )  # fmt: skip
    return headscope.load(LlamaForCausalLM(config).eval(), opened("llama").tokenizer)


def nothing_square_is_kept(work: Callable[[HeadModel, Prompt], object]) -> None:
    """Asserts that what autograd keeps of some work on a prompt grows with its tokens alone."""
    model = long_llama()

    def kept(length: int) -> list[int]:
        sizes: list[int] = []

        def see(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(see, lambda x: x):
            work(model, prompts(1, length)[0])
        return sizes

    short, long = kept(400), kept(1600)
    assert max(long) < 1600**2 / 8
    assert sum(long) < 4.5 * sum(short)
