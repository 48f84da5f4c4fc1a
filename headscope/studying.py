"""Running studies: what they cost is said first, what they found is kept."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headscope import storage
from headscope.model import HeadModel
from headscope.planning import Group
from headscope.probes.study import Work, _Study
from headscope.resuming import kept_study

Announce = Callable[[str], None]


def studied(
    model: HeadModel,
    group: Group,
    folder: Path | None,
    announce: Announce | None,
    progress: Callable[[int, int], None] | None,
    checked: Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """All that a study gives, by name, and its "seconds"; taken from the folder if it is there.

    Args:
        announce: told what the study will cost before it starts.
        checked: refuses scores that are no numbers, and makes arrays of them.
    """
    probe = group.altering
    assert isinstance(probe, _Study)
    path = None if folder is None else folder / "partial" / f"{group.key}-found.safetensors"
    if path is not None and path.exists():
        return kept_study(path, probe, model)
    if announce is not None:
        announce(_price(model, probe, group))
    start = time.perf_counter()
    with torch.no_grad():
        found = checked(probe.study(model, group.prompts, Work(folder, group.key, progress)))
    found["seconds"] = np.array([time.perf_counter() - start])
    if path is not None:
        storage.write_arrays(path, found)
    return found


def _price(model: HeadModel, probe: _Study, group: Group) -> str:
    """What a study costs, and about how long that will take here, by one pass that is timed."""
    bill = probe.bill(model, group.prompts)
    if not bill.forward:
        return f"{probe.name} starts: {bill.also or 'no passes over prompts'}."
    longest = max((prompt.token_ids for prompt in group.prompts), key=len)
    taken = []
    with torch.no_grad():
        for _ in range(3):  # the first warms up
            start = time.perf_counter()
            model.forward(longest, last=1).sum().item()  # a GPU is waited for
            taken.append(time.perf_counter() - start)
    one = min(taken) * bill.tokens / len(longest)
    minutes = bill.seconds(one) / 60
    about = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
    return f"{probe.name} starts: {bill}; about {about} on {model.device} for the passes."
