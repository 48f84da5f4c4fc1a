"""kvpress: the written class runs on a stand-in for its base, by the rule of DuoAttentionPress.

`benchmarks/consumers/kvpress_needles.py` runs it on kvpress itself.
"""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import torch

CONTEXT = 40


class DuoAttentionPress:
    def hidden(self, layer, keys):
        """[kv_head, key]: what later queries no longer see of a context of so many keys."""
        gone = torch.zeros(self.streaming_mask.shape[1], keys, dtype=torch.bool)
        gone[self.streaming_mask[layer], self.sink_size : -self.recent_size] = True
        return gone


def press(path, model):
    base = ModuleType("kvpress")
    base.DuoAttentionPress = DuoAttentionPress
    place = importlib.util.spec_from_file_location("profile_press", path / "profile_press.py")
    module = importlib.util.module_from_spec(place)
    before, sys.modules["kvpress"] = sys.modules.get("kvpress"), base
    try:
        place.loader.exec_module(module)
    finally:
        del sys.modules["kvpress"]
        if before is not None:
            sys.modules["kvpress"] = before
    made = module.ProfilePress()
    config = SimpleNamespace(
        num_hidden_layers=len(model.layers), num_key_value_heads=model.n_kv_heads
    )
    config.get_text_config = lambda: config
    made.post_init_from_model(SimpleNamespace(config=config, device="cpu"))
    return made


def loaded(path, model):
    made = press(path, model)
    streaming = ("streaming", made.sink_size, made.recent_size)
    rows = []
    for layer in range(len(model.layers)):
        group = model.n_heads // model.n_kv_heads
        kinds = made.streaming_mask[layer].tolist()
        rows.append([streaming if kind else ("full",) for kind in kinds for _ in range(group)])
    return rows
