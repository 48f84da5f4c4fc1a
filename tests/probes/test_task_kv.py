import dataclasses

import pytest
import torch

import headscope
from headscope.engines import Attended
from headscope.probes.base import Reading
from headscope.probes.task_kv import TaskKv
from headscope.prompts import Prompt


def test_heads_that_read_the_same_lie_in_the_centre(llama: headscope.HeadModel) -> None:
    ids = torch.arange(3, 40)
    seen: list[Attended] = []
    with llama.observed(seen.append):
        llama(ids[None])
    reading = Reading(Prompt(tuple(ids.tolist())), llama, ids, ids[:0], ids[:0])
    attention = seen[0].attention.with_v(torch.zeros_like(seen[0].attention.v))
    found = TaskKv().measure(dataclasses.replace(seen[0], attention=attention), reading)
    assert found["task_kv"].tolist() == [0.0] * 6


def test_the_mean_over_a_layer_is_one(llama: headscope.HeadModel) -> None:
    ids = torch.arange(3, 40)
    seen: list[Attended] = []
    with llama.observed(seen.append):
        llama(ids[None])
    reading = Reading(Prompt(tuple(ids.tolist())), llama, ids, ids[:0], ids[:0])
    for attended in seen:
        mean = TaskKv().measure(attended, reading)["task_kv"].mean()
        assert float(mean) == pytest.approx(1)
