"""ACT's selection: every head alone, paired, false discoveries controlled, resumable."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from evals.test_evaluate import Chosen

from headscope.errors import HeadscopeError
from headscope.evals.act_heads import select_act_heads
from headscope.evals.scoring import scored
from headscope.interventions.act import ACT
from headscope.model import HeadModel

METHOD = ACT(beta=0.0, threshold=0.06, skip=1)


def test_every_head_is_tried_alone_and_tested(llama: HeadModel, tmp_path: Path) -> None:
    out = tmp_path / "act.json"
    found = select_act_heads(llama, [Chosen(8, seed=4)], method=METHOD, out=out)
    table = found.table()
    assert len(table) == 12  # two layers of six heads
    assert table["change"].is_monotonic_decreasing
    item = Chosen(8, seed=4, split="tune").item(2, llama.tokenizer)
    steps = dataclasses.replace(item, chunk=1)
    measured = found.evaluation.tasks[0]
    assert measured.values(0)[2] == pytest.approx(scored(llama, item)[0].margin, abs=1e-5)
    with dataclasses.replace(METHOD, heads=[found.heads[3]])(llama):
        want = scored(llama, steps)[0].margin
    assert measured.values(4)[2] == pytest.approx(want, abs=1e-5)
    row = table[table["name"] == "L1H3"].iloc[0]
    assert row["change"] == pytest.approx((measured.values(4) - measured.values(0)).mean())
    assert set(found.selected(1.0)) == {
        (int(r["layer"]), int(r["head"])) for _, r in table.iterrows() if r["change"] > 0
    }
    assert set(found.selected(0.05)) <= set(found.selected(1.0))
    assert "heads calibrated alone" in found.claim()
    assert (table["q"] >= table["p"] - 1e-12).all()
    again = select_act_heads(llama, [Chosen(8, seed=4)], method=METHOD, out=out)
    np.testing.assert_array_equal(again.table()["change"], table["change"])


def test_nothing_to_try_is_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="from layer 1 on"):
        select_act_heads(llama, [Chosen(8)], method=METHOD, heads=["L0H1", "L0H2"])
