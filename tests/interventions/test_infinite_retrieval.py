"""Sentences retrieved chunk by chunk, against dense attention."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from conftest import opened
from interventions.ordered import words
from interventions.sentences import dense, prompt

from headscope.errors import HeadscopeError
from headscope.interventions.infinite_retrieval import InfiniteRetrieval
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


def retrieved(
    architecture: str, given_: Prompt, chunk: int, top: int, phrase: int, layers: int
) -> tuple[int, ...]:
    """The method over lists of tokens: what is read, and the dense pattern of each reading."""
    ids, spans = given_.token_ids, given_.numbered("sentence")
    head, tail = ids[: spans[0][0]], ids[spans[-1][1] :]
    asked = given_.span("question")[0] - spans[-1][1], given_.span("question")[1] - spans[-1][1]
    bodies = [list(ids[a:b]) for a, b in spans]
    gaps = [[], *(list(ids[b:a]) for (_, b), (a, _) in pairwise(spans))]
    readings, size = [[0]], len(bodies[0])
    for i in range(1, len(bodies)):
        size += len(gaps[i]) + len(bodies[i])
        if size > chunk:
            readings.append([i])
            size = len(gaps[i]) + len(bodies[i])
        else:
            readings[-1].append(i)
    held: list[int] = []
    for new in readings:
        held += new
        context, owner = list[int](), list[int]()
        for i in held:
            gap = [] if i == held[0] else gaps[i]
            context += gap + bodies[i]
            owner += [-1] * len(gap) + [i] * len(bodies[i])
        read = [*head, *context, *tail]
        at = len(head) + len(context)
        rows = dense(architecture, read)[-layers:, :, at + asked[0] : at + asked[1]]
        given = rows.sum((0, 1, 2))[len(head) : at].tolist()
        full = np.convolve(given, np.ones(phrase))
        start = (phrase - 1) // 2
        scores = full[start : start + len(given)]
        real = [j for j in range(len(given)) if owner[j] >= 0]
        best = sorted(real, key=lambda j: -scores[j])[:top]
        held = sorted({owner[j] for j in best})
    context = [t for i in held for t in ([] if i == held[0] else gaps[i]) + bodies[i]]
    return (*head, *context, *tail)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize(
    ("chunk", "top", "phrase", "layers"),
    [(10, 3, 1, 1), (16, 4, 3, 2), (9, 2, 4, 3), (12, 6, 8, 1), (1, 1, 2, 1)],
)
def test_sentences_are_retrieved_by_dense_attention(
    architecture: str, chunk: int, top: int, phrase: int, layers: int
) -> None:
    model, lengths = opened(architecture), set()
    for seed in range(6):
        given_ = prompt(seed)
        found = InfiniteRetrieval(chunk, top, phrase, layers=layers).rewritten(model, given_)
        assert found.token_ids == retrieved(architecture, given_, chunk, top, phrase, layers)
        assert words(found, "question") == words(given_, "question")
        lengths.add(len(found))
    assert max(lengths) < len(prompt(0))


def test_with_room_for_every_token_all_is_kept(llama: HeadModel) -> None:
    assert InfiniteRetrieval(chunk=10, top=99).rewritten(llama, prompt(0)) == prompt(0)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_backends_retrieve_alike(llama: HeadModel, backend: str) -> None:
    method = InfiniteRetrieval(10, 3, 2, layers=2)
    assert method.rewritten(opened("llama", backend), prompt(1)) == method.rewritten(
        llama, prompt(1)
    )


def test_retrieval_where_it_cannot_work_is_refused(llama: HeadModel) -> None:
    first = dataclasses.replace(prompt(0), spans={**prompt(0).spans, "question": (0, 3)})
    for method, given_, message in (
        (InfiniteRetrieval(layers=4), prompt(0), "last 4 layers, and .* has 3"),
        (InfiniteRetrieval(), first, "put the question last"),
        (InfiniteRetrieval(question="asked"), prompt(0), "no span named 'asked'"),
        (InfiniteRetrieval(), Prompt((3, 4, 5)), "InfiniteRetrieval needs the sentences"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            method.rewritten(llama, given_)
