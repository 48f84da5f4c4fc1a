"""Path patching against hooks on projections, against a hand-made residual stream, and planted."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import opened
from made_pairs import _Copied, _Random, every_head, margin
from organisms import rope_organism
from tiny import reference_model
from torch import Tensor

import headscope
from headscope.errors import HeadscopeError
from headscope.heads import Head, label, parse_head
from headscope.interventions.patch import Outputs
from headscope.model import HeadModel
from headscope.patching import patch_heads, path_patch

D, GROUP = 8, 3  # of the tiny Llama
SENDERS: list[Head] = [(0, 1), (0, 4), (1, 2)]
RECEIVERS: list[Head | str] = [(1, 2), (2, 4), "logits"]


class Hooked:
    """The tiny Llama with nothing but torch hooks on its projections."""

    def __init__(self) -> None:
        self.hf: Any = reference_model("llama")

    def run(self, ids: Tensor, z: dict[int, Tensor], put: Any = None) -> tuple[Tensor, dict, dict]:
        """Logits, inputs of W_O by layer, and outputs of projections by (layer, part).

        Args:
            z: what W_O of a layer reads instead.
            put: (layer, part, columns, values), for a projection.
        """
        kept_z, kept, handles = {}, {}, []
        for i, layer in enumerate(self.hf.model.layers):

            def read(_: Any, args: tuple[Tensor], i: int = i):
                kept_z[i] = args[0]
                return (z[i],) if i in z else None

            handles.append(layer.self_attn.o_proj.register_forward_pre_hook(read))
            for part in "qkv":

                def write(_: Any, args: Any, out: Tensor, i: int = i, part: str = part):
                    kept[i, part] = out
                    if put is None or put[:2] != (i, part):
                        return None
                    out = out.clone()
                    out[..., put[2]] = put[3][..., put[2]]
                    return out

                module = getattr(layer.self_attn, f"{part}_proj")
                handles.append(module.register_forward_hook(write))
        logits = self.hf(ids).logits
        for handle in handles:
            handle.remove()
        return logits, kept_z, kept

    def path(self, base: Tensor, source: Tensor, sender: Head, receiver: Any, part: str) -> Tensor:
        """Logits with one path changed."""
        _, frozen, _ = self.run(base, {})
        _, other, _ = self.run(source, {})
        columns = slice(sender[1] * D, sender[1] * D + D)
        frozen[sender[0]] = frozen[sender[0]].clone()
        frozen[sender[0]][..., columns] = other[sender[0]][..., columns]
        logits, _, given = self.run(base, frozen)
        if receiver is None:
            return logits
        layer, head = receiver
        index = head if part == "q" else head // GROUP
        columns = slice(index * D, index * D + D)
        return self.run(base, {}, (layer, part, columns, given[layer, part]))[0]


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("answer", [1, 2])
def test_paths_are_those_of_hooks(llama: HeadModel, direction: Any, answer: int) -> None:
    task, hooked = _Random(answer=answer), Hooked()
    table = path_patch(llama, task, SENDERS, RECEIVERS, direction=direction)
    assert len(table) == 3 * (2 * 3 + 1)
    for row in table.to_dict("records"):
        receiver = None if row["receiver"] == "logits" else parse_head(row["receiver"])
        changes = []
        for item in task.items(llama.tokenizer):
            assert item.corrupt is not None
            base, source = item.prompt, item.corrupt
            if direction == "denoising":
                base, source = source, base

            def run(ids: Tensor, row: Any = row, r: Any = receiver, stored: Any = source) -> Tensor:
                other = [*stored.token_ids, *ids[0, len(stored) :].tolist()]
                sender = parse_head(row["sender"])
                return hooked.path(ids, torch.tensor([other]), sender, r, row["part"])

            plain = margin(lambda ids: hooked.run(ids, {})[0], item, base)
            changes.append(margin(run, item, base) - plain)
        assert row["change"] == pytest.approx(np.mean(changes), abs=2e-3), row
    paths = table[table["receiver"] == "logits"]
    assert (paths["change"].abs() > 1e-3).all()


def test_a_sender_behind_its_receiver_does_exactly_nothing(llama: HeadModel) -> None:
    table = path_patch(llama, _Random(), ["L1H2", "L2H0"], ["L1H2", "L1H5"])
    assert (table[["change", "effect", "low", "high"]] == 0).all(axis=None)
    assert (table[["p", "q"]] == 1).all(axis=None)


def test_grouped_heads_are_changed_together(llama: HeadModel) -> None:
    table = path_patch(llama, _Random(), ["L0H1"], ["L2H3", "L2H4"])
    told = table.set_index(["receiver", "part"])
    assert told.loc[("L2H4", "q"), "read_by"] == "L2H4"
    for part in ("k", "v"):
        assert told.loc[("L2H4", part), "read_by"] == "L2H3, L2H4, L2H5"
        assert told.loc[("L2H4", part), "change"] == told.loc[("L2H3", part), "change"]
    assert told.loc[("L2H4", "q"), "change"] != told.loc[("L2H3", "q"), "change"]


def by_hand(base: Tensor, source: Tensor, sender: Head) -> Tensor:
    """Logits with a sender's direct path changed: what heads write is added up, MLPs run anew."""
    model, hf = opened("llama"), tiny_residual()
    clean, other = (Outputs.of(model, ids[0].tolist()).z for ids in (base, source))
    x = hf.model.embed_tokens(base)
    for i, layer in enumerate(hf.model.layers):
        z = clean[i].clone()
        if i == sender[0]:
            z[sender[1]] = other[i, sender[1]]
        x = x + layer.self_attn.o_proj(z.transpose(0, 1).flatten(1))[None]
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return hf.lm_head(hf.model.norm(x))


def tiny_residual() -> Any:
    return reference_model("llama")


def test_direct_effects_are_those_of_the_residual_stream_by_hand(llama: HeadModel) -> None:
    task = _Random()
    table = path_patch(llama, task, SENDERS, ["logits"]).set_index("sender")
    for sender in SENDERS:
        changes = []
        for item in task.items(llama.tokenizer):
            assert item.corrupt is not None
            source = torch.tensor([item.corrupt.token_ids])
            changed = margin(lambda ids, s=source, h=sender: by_hand(ids, s, h), item, item.prompt)
            changes.append(changed - margin(llama, item, item.prompt))
        assert table.loc[label(sender), "change"] == pytest.approx(np.mean(changes), abs=2e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_heads_of_the_last_layer_have_their_direct_effect_alone(name: str) -> None:
    """Nothing lies behind them that could read them, so that patching them is their direct path."""
    model = opened(name)
    heads = [(2, head) for head in range(model.n_heads)]
    for direction in ("noising", "denoising"):
        alone = patch_heads(model, _Random(), direction=direction, heads=heads).table()
        paths = path_patch(model, _Random(), heads, ["logits"], direction=direction)
        assert paths["change"].to_numpy() == pytest.approx(alone["change"].to_numpy(), abs=1e-3)


def test_paths_of_a_penultimate_head_add_up_to_its_effect() -> None:
    """In an organism without a live MLP, small changes add: the direct path and those through
    every input of every head of the last layer are all paths that there are."""
    made = rope_organism(0)
    model = headscope.load(made.hf, made.tokenizer)
    last = model.layers[-1]
    senders = [(last - 1, head) for head in range(model.n_heads)]
    receivers: list[Head | str] = [(last, head) for head in range(model.n_heads)]
    table = path_patch(model, _Copied(), senders, [*receivers, "logits"])
    first = [f"L{last}H{h * 2}" for h in range(model.n_kv_heads)]  # one of each group for k and v
    counted = table[(table["part"].isin(["q", ""])) | table["receiver"].isin(first)]
    sums = counted.groupby("sender")["change"].sum()
    alone = patch_heads(model, _Copied(), direction="noising", heads=senders).table()
    found = [sums[name] for name in alone["name"]]
    assert found == pytest.approx(alone["change"].tolist(), abs=0.15)


def test_the_planted_path_is_found() -> None:
    made = rope_organism(0)
    model = headscope.load(made.hf, made.tokenizer)
    induction = [head for head, kind in made.kinds.items() if kind == "induction"]
    (fetching,) = [head for head, kind in made.kinds.items() if kind == "previous_token"]
    idle = next(head for head, kind in made.kinds.items() if kind == "noise" and head[0] == 0)
    table = path_patch(model, _Copied(keys=True), [fetching, idle], [*induction, "logits"])

    def rows(sender: Head, part: str) -> pd.Series:
        chosen = (table["sender"] == label(sender)) & (table["part"] == part)
        return table.loc[chosen, "effect"].abs()

    assert (rows(fetching, "k") > 0.2).all()
    assert rows(fetching, "k").sum() > 0.6
    for part in ("q", "v", ""):
        assert (rows(fetching, part) < 0.1).all()
    for part in ("q", "k", "v", ""):
        assert (rows(idle, part) < 0.1).all()


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_the_same_paths_on_every_backend(backend: str) -> None:
    tables = [
        path_patch(opened("llama", name), _Random(), SENDERS, RECEIVERS) for name in ("hf", backend)
    ]
    changes = [table["change"].to_numpy() for table in tables]
    assert changes[1] == pytest.approx(changes[0], abs=1e-3)


def test_what_has_no_path_is_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="at least one receiver"):
        path_patch(llama, _Random(), SENDERS, [])
    with pytest.raises(HeadscopeError, match="at least one head"):
        path_patch(llama, _Random(), [], ["logits"])
    with pytest.raises(HeadscopeError, match="has no head"):
        path_patch(llama, _Random(), ["L5H0"], ["logits"])
    with pytest.raises(HeadscopeError, match="at least 6 prompts"):
        path_patch(llama, _Random(), SENDERS, ["logits"], samples=2)
    seen: list[int] = []
    path_patch(
        llama, _Random(), SENDERS[:1], ["logits"], progress=lambda done, total: seen.append(done)
    )
    assert seen == list(range(7))
    assert every_head(llama)[-1] == (2, 5)
