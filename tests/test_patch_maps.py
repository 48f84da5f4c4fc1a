"""Head maps by patching and joint effects: their numbers by brute force, planted heads, files."""

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import opened
from made_pairs import _Copied, _Random, every_head, margin
from organisms import rope_organism
from test_cli import headscope as command

import headscope
from headscope.errors import HeadscopeError
from headscope.evals.controls import layer_matched_sets, uniform_sets
from headscope.evals.ioi import Ioi
from headscope.evals.needle import Needle
from headscope.heads import label
from headscope.interventions.patch import Outputs, Patch
from headscope.joint import JointEffect
from headscope.model import HeadModel
from headscope.patch_map import PatchMap
from headscope.patched import linearised
from headscope.patching import joint_effect, patch_heads

SOME = [(0, 1), (1, 3), (2, 4)]
Model = tuple[HeadModel, dict[tuple[int, int], str]]


@pytest.fixture(scope="module")
def organism() -> Model:
    made = rope_organism(0)
    return headscope.load(made.hf, made.tokenizer), made.kinds


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize(("answer", "changed"), [(1, 5), (2, 5), (1, 0), (1, 11)])
def test_margins_are_those_of_whole_passes(
    llama: HeadModel, direction: Any, answer: int, changed: int
) -> None:
    task = _Random(answer=answer, changed=changed)
    found = patch_heads(llama, task, direction=direction, heads=SOME)
    for index, item in enumerate(task.items(llama.tokenizer)):
        assert item.corrupt is not None
        clean, corrupt = item.prompt, item.corrupt
        assert found.clean[index] == pytest.approx(margin(llama, item, clean), abs=1e-3)
        assert found.corrupt[index] == pytest.approx(margin(llama, item, corrupt), abs=1e-3)
        base, source = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
        for head, patched in zip(SOME, found.patched[index], strict=True):

            def run(ids: Any, head: Any = head, stored: Any = source.token_ids) -> Any:
                other = (*stored, *ids[0, len(stored) :].tolist())
                outputs = Outputs.of(llama, other)
                with Patch([head], outputs)(llama):
                    return llama(ids)

            assert patched == pytest.approx(margin(run, item, base), abs=2e-3)


def test_effects_are_ratios_of_means(llama: HeadModel) -> None:
    for direction in ("denoising", "noising"):
        found = patch_heads(llama, _Random(), direction=direction, heads=SOME)
        # A random model tells pairs apart as it likes; what is measured needs a gap.
        flip = np.sign(np.mean(found.clean) - np.mean(found.corrupt))
        lists = {"clean": found.clean, "corrupt": found.corrupt}
        lists = {name: (flip * np.array(values)).tolist() for name, values in lists.items()}
        patched = (flip * np.array(found.patched)).tolist()
        found = found.model_copy(update={**lists, "patched": patched})
        clean, corrupt = np.mean(found.clean), np.mean(found.corrupt)
        means = np.mean(found.patched, axis=0)
        up, down = (means - corrupt) / (clean - corrupt), (clean - means) / (clean - corrupt)
        table = found.table()
        assert table["effect"].to_numpy() == pytest.approx(up if direction == "denoising" else down)
        assert (table["low"] < table["effect"]).all()
        assert (table["effect"] < table["high"]).all()
        assert (table["q"] >= table["p"]).all()
        base = corrupt if direction == "denoising" else clean
        assert table["change"].to_numpy() == pytest.approx(means - base)
        assert found.told_apart == sum(np.array(found.clean) > np.array(found.corrupt))
        best = table["name"][table["effect"].idxmax()]
        assert found.top(1)["name"][0] == best == label(found.leading(1)[0])
        assert best in found.claim()
        drawn = ElementTree.fromstring(found._repr_html_())
        assert "3 heads of" in "".join(drawn.itertext())
        assert sum((cell.text or "").startswith("L0H0: not patched") for cell in drawn.iter()) == 1


def test_intervals_are_those_of_a_ratio() -> None:
    """As wide as the ratio itself varies from one set of pairs to the next."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        gap = rng.normal(5, 1.5, n)
        return 0.4 * gap + rng.normal(0, 0.5, n), gap

    ratios = [c.mean() / g.mean() for c, g in (drawn(40) for _ in range(2000))]
    spread = [linearised(*drawn(40)).std(ddof=1) / 40**0.5 for _ in range(200)]
    assert np.mean(spread) == pytest.approx(np.std(ratios), rel=0.1)
    change, gap = drawn(40)
    assert linearised(change, gap).mean() == pytest.approx(change.mean() / gap.mean())
    assert np.isnan(linearised(change, -gap)).all()


def test_all_heads_together_carry_all_of_the_answer(architecture: str) -> None:
    """The last token is the same in both runs, so all it knows of others came through heads."""
    model = opened(architecture)
    for direction in ("denoising", "noising"):
        found = joint_effect(model, _Random(), every_head(model), [tuple(SOME)], direction)
        other = found.clean if direction == "denoising" else found.corrupt
        assert np.array(found.patched)[:, 0] == pytest.approx(other, abs=2e-3)
        assert np.array(found.patched)[:, 1] != pytest.approx(other, abs=1e-2)


def test_heads_are_patched_each_by_itself(llama: HeadModel) -> None:
    """Whatever stands in the other rows of a batch."""
    found = patch_heads(llama, _Random(changed=11))
    again = patch_heads(llama, _Random(changed=11), heads=found.heads[:5:-1])
    assert np.array(found.patched)[:, :5:-1] == pytest.approx(np.array(again.patched), abs=1e-4)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_planted_heads_are_found_and_tested(organism: Model, direction: Any) -> None:
    model, kinds = organism
    found = patch_heads(model, _Copied(samples=8, split="detect"), direction=direction)
    planted = {head for head, kind in kinds.items() if kind == "induction"}
    assert found.told_apart == 8
    assert set(found.leading(2)) == planted
    table = found.table().set_index("name")
    assert table.loc[[label(head) for head in planted], "effect"].sum() > 0.8
    others = [label(head) for head in kinds if head not in planted]
    assert table.loc[others, "effect"].abs().max() < 0.1
    every = every_head(model)
    task = _Copied(samples=8)
    joint = joint_effect(
        model, task, found.leading(2), uniform_sets(every, found.leading(2), 19), direction,
        kind="uniform", found_on=found,
    )  # fmt: skip
    effect, (low, high) = joint.effect()
    assert 0.8 < low <= effect <= high
    assert joint.p() == pytest.approx(1 / 20)
    more, (least, most) = joint.difference()
    assert 0.5 < least < more < most
    assert "more than random heads (p = 0.05" in joint.claim()
    assert joint.table()["sets"].tolist() == [1, 19]
    few = joint_effect(
        model, task, found.leading(1), layer_matched_sets(every, found.leading(1), 5), direction
    )
    assert "too few to say" in few.claim()
    alone = joint_effect(model, task, found.leading(1), [], direction)
    assert "no control sets" in alone.claim()
    assert np.isnan(alone.difference()[0])
    with pytest.raises(HeadscopeError, match="used to find the heads"):
        joint_effect(model, found_task(found), found.leading(1), [], found_on=found)


def found_task(found: PatchMap) -> _Copied:
    return _Copied(**found.parameters)


def test_heads_that_make_keys_are_found_where_keys_change(organism: Model) -> None:
    model, kinds = organism
    found = patch_heads(model, _Copied(keys=True))
    fetching = next(head for head, kind in kinds.items() if kind == "previous_token")
    planted = {head for head, kind in kinds.items() if kind == "induction"}
    assert set(found.leading(3)) == {fetching, *planted}


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_the_same_map_on_every_backend(backend: str) -> None:
    maps = [patch_heads(opened("llama", name), _Random()) for name in ("hf", backend)]
    assert np.array(maps[1].patched) == pytest.approx(np.array(maps[0].patched), abs=1e-3)
    assert maps[1].clean == pytest.approx(maps[0].clean, abs=1e-3)


def test_a_map_goes_on_where_it_stopped(llama: HeadModel, tmp_path: Path) -> None:
    path = tmp_path / "map.json"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patch_heads(llama, _Random(), heads=SOME, out=path, progress=stop)
    begun = PatchMap.load(path)
    assert begun.done == 2
    assert begun.table()["low"].isna().all()
    seen: list[int] = []
    found = patch_heads(
        llama, _Random(), heads=SOME, out=path, progress=lambda done, total: seen.append(done)
    )
    assert seen == [2, 3, 4, 5, 6]
    whole = patch_heads(llama, _Random(), heads=SOME)
    assert PatchMap.load(path) == found == whole
    with pytest.raises(HeadscopeError, match="another measurement"):
        patch_heads(llama, _Random(), heads=SOME[:2], out=path)
    with pytest.raises(HeadscopeError, match="damaged or no"):
        JointEffect.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": []}, "damaged"),
        ({"schema_version": 9}, "newer headscope"),
        ({"clean": [0.5]}, "same pairs"),
        ({"sets": [[(7, 0)]] * 3}, "does not have"),
        ({"digests": ["a"]}, "do not fit"),
        ({"direction": "sideways"}, "damaged"),
    ],
)
def test_a_map_that_contradicts_itself_is_damaged(
    llama: HeadModel, tmp_path: Path, change: Any, message: str
) -> None:
    path = tmp_path / "map.json"
    patch_heads(llama, _Random(), heads=SOME, out=path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HeadscopeError, match=message):
        PatchMap.load(path)


def test_what_cannot_be_patched_is_refused(llama: HeadModel, tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match="no wrong ones"):
        patch_heads(llama, Needle())
    with pytest.raises(HeadscopeError, match="at least 6 prompts, and there are 5"):
        patch_heads(llama, _Random(samples=5))
    with pytest.raises(HeadscopeError, match="at least one pair"):
        patch_heads(llama, _Random(), samples=0)
    with pytest.raises(HeadscopeError, match="has no head"):
        patch_heads(llama, _Random(), heads=["L3H0"])
    with pytest.raises(HeadscopeError, match="seed is 0 or more"):
        patch_heads(llama, _Random(), seed=-1)
    with pytest.raises(HeadscopeError, match="no corrupt prompts"):
        patch_heads(llama, _Lonely())
    with pytest.raises(HeadscopeError, match="pairs of the same length"):
        patch_heads(llama, _Longer())


class _Lonely(_Random):
    def item(self, index: int, tokenizer: Any) -> Any:
        return dataclasses.replace(super().item(index, tokenizer), corrupt=None)


class _Longer(_Random):
    def item(self, index: int, tokenizer: Any) -> Any:
        made = super().item(index, tokenizer)
        assert made.corrupt is not None
        corrupt = dataclasses.replace(made.corrupt, token_ids=(3, *made.corrupt.token_ids))
        return dataclasses.replace(made, corrupt=corrupt)


def test_without_a_gap_there_is_no_effect(llama: HeadModel) -> None:
    found = patch_heads(llama, _Random(), heads=SOME)
    none = found.model_copy(update={"clean": found.corrupt})
    assert none.told_apart == 0
    assert none.table()["effect"].isna().all()
    assert none.table()["change"].notna().all()
    for asked in (none.claim, none.top, lambda: none.leading(1)):
        with pytest.raises(HeadscopeError, match="does not tell clean from corrupt"):
            asked()
    assert "does not tell clean from corrupt" in none._repr_html_()
    begun = found.model_copy(update={"clean": [], "corrupt": [], "patched": []})
    assert len(begun.table()) == 3
    with pytest.raises(HeadscopeError, match="No pair has been patched"):
        begun.claim()


@pytest.mark.model
def test_the_command_finds_and_tests_heads(smollm2: HeadModel, tmp_path: Path) -> None:
    args = ("patch", "smollm2", "--samples", 6, "--k", 3, "--controls", 19, "--quiet")
    code, out, err = command(*args, "--top", 4, "--out", tmp_path / "p")
    assert code == 0, err
    assert "together on 6 pairs of ioi" in out
    code, out, _ = command(*args, "--top", 4, "--out", tmp_path / "p", "--json")
    assert code == 0
    found = json.loads(out)
    assert [row["name"] for row in found["top"]][:3] == found["tested"]
    assert {each["controls"] for each in found["joint"]} == {"uniform", "layer-matched"}
    assert found["joint"][0]["effect"] > 0.5
    assert found["joint"][0]["p"] == pytest.approx(1 / 20)
    saved = PatchMap.load(tmp_path / "p" / "map.json")
    assert saved.told_apart == saved.done == 6
    detect, test = (Ioi(split=split).items(smollm2.tokenizer) for split in ("detect", "test"))
    assert not {i.prompt.token_ids for i in detect} & {i.prompt.token_ids for i in test}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--task", "needle"), "no wrong ones"),
        (("--task", "iio"), "no eval named 'iio'"),
        (("--samples", 3), "at least 6 prompts"),
        (("--samples", 0), "--samples takes"),
        (("--k", 270), "--k takes fewer"),
        (("--controls", 100), "0 to 99 sets"),
        (("--direction", "up"), "direction"),
    ],
)
@pytest.mark.model
def test_mistakes_are_one_sentence(args: tuple[Any, ...], message: str, tmp_path: Path) -> None:
    code, out, err = command("patch", "smollm2", *args, "--quiet", "--out", tmp_path / "p")
    assert (code, out) == (2, "")
    assert err.startswith("headscope: ")
    assert message in err
    assert not (tmp_path / "p").exists()
