"""Overlap of made-up patching maps, where the truth is known, held against chance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import opened
from test_cli_mistakes import headscope as command

import headscope
from headscope.circuits import Overlap, overlap, overlap_of
from headscope.errors import HeadscopeError
from headscope.patch_map import PatchMap
from headscope.prompts import Repeated


def a_patch_map(seed: int, members: set[tuple[int, int]], task: str = "a", **fields: Any) -> Any:
    """8 layers of 6 heads on 12 pairs, of which some heads have an effect of 0.3."""
    rng, n = np.random.default_rng(seed), 12
    heads = [(layer, head) for layer in range(8) for head in range(6)]
    effects = rng.normal(0, 0.02, (n, len(heads)))
    effects[:, [heads.index(head) for head in members]] += 0.3
    gap = rng.normal(5, 0.5, n)
    given = {
        "model": "made-up", "fingerprint": "f", "backend": "hf", "dtype": "float32",
        "layers": list(range(8)), "n_heads": 6, "n_kv_heads": 6, "task": task, "parameters": {},
        "direction": "denoising", "seed": 0, "digests": [f"{seed}-{i}" for i in range(n)],
        "sets": [[head] for head in heads], "clean": gap.tolist(), "corrupt": [0.0] * n,
        "patched": (effects * gap[:, None]).tolist(), "versions": {},
    }  # fmt: skip
    return PatchMap.model_validate(given | fields)


def crowded(rng: np.random.Generator) -> set[tuple[int, int]]:
    """Six heads of two layers, as circuits crowd into some layers."""
    return {(5 + i // 6, i % 6) for i in rng.choice(12, 6, replace=False).tolist()}


def drawn(rng: np.random.Generator) -> set[tuple[int, int]]:
    return {divmod(i, 6) for i in rng.choice(48, 10, replace=False).tolist()}


def compared(seed: int, first: set[tuple[int, int]], second: set[tuple[int, int]]) -> Overlap:
    return overlap(a_patch_map(2 * seed, first), a_patch_map(2 * seed + 1, second, "b"), top=6)


def test_circuits_that_share_nothing_but_chance_are_not_said_to() -> None:
    """p is seldom small within layers; that which knows of no layers is, where circuits crowd."""
    rng = np.random.default_rng(0)
    even = [compared(i, drawn(rng), drawn(rng)) for i in range(200)]
    assert np.mean([each.p() <= 0.05 for each in even]) <= 0.085  # 0.05 and 2.3 standard errors
    assert np.mean([each.p(False) <= 0.05 for each in even]) <= 0.085
    near = [compared(i, crowded(rng), crowded(rng)) for i in range(200)]
    assert np.mean([each.p() <= 0.05 for each in near]) <= 0.085
    assert np.mean([each.p(False) <= 0.05 for each in near]) > 0.5
    # Over p's of a discrete test the mean of mid-p's is 1/2.
    mid = [each.p() - each.chance()[len(each.shared)] / 2 for each in even]
    assert np.mean(mid) == pytest.approx(0.5, abs=0.06)


def test_chance_is_that_of_all_permutations_within_layers() -> None:
    found = compared(3, crowded(np.random.default_rng(1)), crowded(np.random.default_rng(2)))
    assert found.chance().sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    a, b = found.a.members.reshape(8, 6), found.b.members.reshape(8, 6)
    counts = np.array([(a & rng.permuted(b, axis=1)).sum() for _ in range(4000)])
    assert found.expected() == pytest.approx(counts.mean(), abs=0.1)
    assert found.p() == pytest.approx((counts >= len(found.shared)).mean(), abs=0.03)
    every = np.array([(a & rng.permuted(b.ravel()).reshape(8, 6)).sum() for _ in range(4000)])
    assert found.expected(False) == pytest.approx(every.mean(), abs=0.1)
    assert found.p(False) == pytest.approx((every >= len(found.shared)).mean(), abs=0.03)


def test_planted_circuits_are_found_with_what_they_share() -> None:
    shared = {(2, 1), (3, 3), (5, 0), (7, 5)}
    first, second = shared | {(1, 1)}, shared | {(6, 2), (4, 4)}
    maps = a_patch_map(0, first), a_patch_map(1, second, "b")
    found = overlap(*maps)
    assert (set(found.a.found), set(found.b.found)) == (first, second)
    assert set(found.shared) == shared
    assert (found.jaccard(), found.share()) == (4 / 7, 4 / 5)
    low, high = found.interval()
    assert 0 <= low <= high <= 1
    assert low <= 4 / 7 <= high
    assert found.p() < 0.01
    table = found.table()
    assert set(zip(table["layer"][:4], table["head"][:4], strict=True)) == shared
    assert (table["both"] == table[["effect_a", "effect_b"]].min(axis=1)).all()
    claims = " ".join(found.claims())
    assert "5 are in the circuit of a (12 pairs) and 6 of b" in claims
    assert "4 heads are in both: L2H1, L3H3, L5H0, L7H5 (Jaccard 0.57" in claims
    assert "more than chance allows within layers" in claims
    turned = maps[1].model_copy(
        update={"sets": maps[1].sets[::-1], "patched": [p[::-1] for p in maps[1].patched]}
    )
    assert overlap(maps[0], turned).shared == found.shared
    nothing = overlap(maps[0], a_patch_map(2, set(), "c"))
    assert nothing.b.found == ()
    assert np.isnan(nothing.share())
    assert np.isnan(nothing.interval()).all()
    assert "No head is sure for c" in nothing.claims()[1]
    assert np.isnan(overlap(a_patch_map(3, set()), a_patch_map(2, set())).jaccard())
    apart = overlap(maps[0], a_patch_map(4, {(0, 0), (0, 3), (1, 5)}, "d"))
    assert apart.p() == 1
    assert "no more than chance allows" in " ".join(apart.claims())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "g"}, "of different models"),
        ({"direction": "noising"}, "patched in different directions"),
        ({"digests": [f"0-{i}" for i in range(12)]}, "on the same pairs"),
        ({"clean": [0.0] * 12}, "does not tell clean from corrupt"),
    ],
)
def test_maps_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        overlap(a_patch_map(0, {(1, 1)}), a_patch_map(1, {(1, 1)}, **change))


def test_other_mistakes_are_one_sentence() -> None:
    a, b = a_patch_map(0, {(1, 1)}), a_patch_map(1, {(1, 1)})
    few = b.model_copy(update={"sets": b.sets[:5], "patched": [each[:5] for each in b.patched]})
    with pytest.raises(HeadscopeError, match="of different heads"):
        overlap(a, few)
    with pytest.raises(HeadscopeError, match="has no top 49; ask for 1 to 48"):
        overlap(a, b, top=49)
    with pytest.raises(HeadscopeError, match="rate lies between 0 and 1"):
        overlap(a, b, level=0.0)
    short = {name: getattr(b, name)[:5] for name in ("clean", "corrupt", "patched")}
    with pytest.raises(HeadscopeError, match="at least 6 prompts"):
        overlap(a, b.model_copy(update=short))
    head_map = headscope.scan(opened("llama"), ["sink"], prompts=Repeated(block=10, times=2))
    with pytest.raises(HeadscopeError, match="holds no circuits"):
        overlap_of(head_map)


def test_the_command_compares_saved_maps(tmp_path: Path) -> None:
    shared = {(2, 1), (3, 3), (5, 0)}
    a = a_patch_map(0, shared).save(tmp_path / "a" / "map.json")
    b = a_patch_map(1, shared | {(4, 4)}, "b").save(tmp_path / "b.json")
    code, out, err = command("overlap", a.parent, b)
    assert (code, err) == (0, "")
    assert "3 heads are in both: L2H1, L3H3, L5H0" in " ".join(out.split())
    code, out, _ = command("overlap", a, b, "--json", "--show", 3)
    found = json.loads(out)
    assert found["shared"] == ["L2H1", "L3H3", "L5H0"]
    assert found["jaccard"] == 0.75
    assert len(found["heads"]) == 3
    code, _, err = command("overlap", a, a)
    assert code == 2
    assert "measured on the same pairs" in err
    code, _, err = command("overlap", a, tmp_path / "none.json")
    assert code == 2
    assert err.startswith("headscope: ")
