"""Planning for a page: the planner's own numbers, and files that read back."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planned_run import LENGTHS, RULES, losses, planned_run

from headscope.bench.result import Bench
from headscope.catalog import evals, probes, profile_formats
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.patterns.streaming import Streaming
from headscope.sparsity import SparseProfile, plan, plan_by_score
from headscope.sparsity.kv_view import kv_view
from headscope.sparsity.profile import ProfiledModel
from headscope_app.library import Library
from headscope_app.planning import Planning
from headscope_app.plans import Request
from headscope_app.speeds import speed, work_left
from headscope_app.worker import WorkerDied


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    planned_run(made)
    return made


@pytest.fixture(scope="module")
def planning(root: Path) -> Iterator[Planning]:
    made = Planning(Library.of([root]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def asked(planning: Planning) -> Request:
    """By the losses that were measured."""
    run = planning.library.runs()[0].id
    return Request(run=run, source=planning.sources(run)[0].key, share=0.4, n=4096)


def test_a_run_says_what_plans_can_be_made_of(planning: Planning, asked: Request) -> None:
    measured, profile, *scores = planning.sources(asked.run)
    assert measured.kind == "losses"
    assert measured.rules == tuple(map(str, RULES))
    assert measured.lengths == LENGTHS
    assert [name for name, _ in measured.losses] == ["answer", "recall"]
    assert measured.problem == ""
    assert (profile.kind, profile.name) == ("profile", "profile slashes")
    assert "retrieval" in [score.name for score in scores]


def test_a_plan_is_the_planners(planning: Planning, asked: Request, root: Path) -> None:
    found = planning.plan(asked)
    model = ProfiledModel.of_map(HeadMap.load(root / "run"))
    expected = plan(losses(model), "kv=0.4")
    assert found.lost == pytest.approx(expected.lost, rel=1e-6)
    assert found.sentences == tuple(expected.sentences())
    profile = SparseProfile.model_validate_json(found.profile)
    for layer, row in zip(found.layers, found.grid, strict=True):
        assert [found.rules[place] for place in row] == list(map(str, profile.of_layer(layer)))
    assert found.kv_bytes == profile.kv_bytes(4096)
    assert found.full_bytes == 4 * 2 * 4096 * 64 * 2 * 2
    assert found.held == pytest.approx(profile.kv_bytes(4096) / found.full_bytes)
    assert found.density == pytest.approx(profile.density(4096))


def test_more_budget_loses_less(planning: Planning, asked: Request) -> None:
    lost = [
        planning.plan(replace(asked, share=share)).lost or 0.0 for share in (0.4, 0.5, 0.7, 1.0)
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > lost[-1] == 0
    wide = planning.plan(replace(asked, share=0.7, rules=(str(RULES[1]), "full")))
    assert set(wide.rules) <= {str(RULES[1]), "full"}
    by_recall = planning.plan(replace(asked, loss="recall"))
    assert "attention outside the rule" in by_recall.sentences[-1]


def test_a_score_stands_for_losses_and_says_so(
    planning: Planning, asked: Request, root: Path
) -> None:
    request = replace(asked, source="score:retrieval", sink=64, window=256)
    found = planning.plan(request)
    expected = plan_by_score(
        HeadMap.load(root / "run"), "retrieval", "kv=0.4", lengths=[4096], rule=Streaming(64, 256)
    )
    assert SparseProfile.model_validate_json(found.profile).heads == expected.profile.heads
    assert found.lost is None
    assert "what the profile loses was not measured" in found.sentences[-1]


def test_a_plan_is_made_once(root: Path, asked: Request) -> None:
    planning = Planning(Library.of([root]))
    first = planning.plan(asked)
    planning.close()
    assert planning.plan(asked) is first
    with pytest.raises(WorkerDied, match="closed"):
        planning.plan(replace(asked, share=0.41))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.01}, "below the smallest"),
        ({"share": 0.0}, "share above 0"),
        ({"share": float("nan")}, "share above 0"),
        ({"n": 0}, "one token at least"),
        ({"loss": "nothing"}, "was not measured"),
        ({"source": "losses:../../secret.safetensors"}, "not there any more"),
        ({"source": "losses:/etc/passwd"}, "not there any more"),
        ({"source": "profile:../x"}, "no such file"),
        ({"source": "score:nothing"}, "Choose what to plan by"),
        ({"source": ""}, "Choose what to plan by"),
        ({"run": "../.."}, "no such run"),
        ({"source": "score:sink", "window": 0}, "streaming rule"),
        ({"granularity": "head"}, "whole KV heads"),
    ],
)
def test_what_cannot_be_planned(
    planning: Planning, asked: Request, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(HeadscopeError, match=said):
        planning.plan(replace(asked, **changes))  # pyright: ignore[reportArgumentType]


def test_losses_of_other_weights_or_cut_off_or_damaged_say_so(tmp_path: Path) -> None:
    folder = planned_run(tmp_path, benches=False)
    model = ProfiledModel.of_map(HeadMap.load(folder))
    place = folder / "profiles"
    losses(model.model_copy(update={"fingerprint": "1" * 64})).save(place / "recalls-b.safetensors")
    part = losses(model)
    cut = replace(
        part,
        losses={name: values[:1] for name, values in part.losses.items()},
        density=part.density[:1],
    )
    cut.save(place / "recalls-c.safetensors")
    (place / "recalls-d.safetensors").write_bytes(b"not arrays")
    (place / "recalls-e.safetensors").symlink_to("/etc/passwd")
    planning = Planning(Library.of([tmp_path]))
    run = planning.library.runs()[0].id
    found = {s.key: s.problem for s in planning.sources(run) if s.kind == "losses"}
    planning.close()
    assert found.pop("losses:recalls-made.safetensors") == ""
    assert found.pop("losses:recalls-b.safetensors") == (
        "They were measured on other weights than this run's."
    )
    assert found.pop("losses:recalls-c.safetensors") == "1 of 2 prompts are measured."
    assert "damaged" in found.pop("losses:recalls-d.safetensors")
    assert found == {}


@pytest.mark.parametrize("name", list(profile_formats()))
def test_every_format_is_saved_and_reads_back(
    planning: Planning, asked: Request, name: str, tmp_path: Path
) -> None:
    ranks = 2 if name == "rtp_llm" else 1
    if name == "qwen_1m":
        key = next(s.key for s in planning.sources(asked.run) if s.kind == "profile")
        found = planning.plan(replace(asked, source=key))
    else:
        found = planning.plan(replace(asked, source="score:retrieval", sink=64, window=256))
    target = next(t for t in planning.targets(found, ranks) if t.name == name)
    assert (target.refused, target.loads) == ("", profile_formats()[name].loads)
    saved, content = planning.export(found, name, ranks)
    kind = profile_formats()[name]
    path = tmp_path / saved
    if kind.files:
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            assert zipped.namelist() == list(kind.files)
            path = tmp_path / "files"
            zipped.extractall(path)
    else:
        path.write_bytes(content)
    profile = SparseProfile.model_validate_json(found.profile)
    again = (kind(ranks=2) if name == "rtp_llm" else kind()).read(path, profile)  # pyright: ignore
    for layer in profile.model.layers:
        assert again.of_layer(layer) == profile.of_layer(layer)


def test_a_format_that_cannot_say_a_profile_is_refused(planning: Planning, asked: Request) -> None:
    found = planning.plan(replace(asked, share=0.5))
    refused = {t.name: t.refused for t in planning.targets(found)}
    assert refused["headscope"] == ""
    assert "qwen_1m cannot express streaming" in refused["qwen_1m"]
    with pytest.raises(HeadscopeError, match="qwen_1m cannot express"):
        planning.export(found, "qwen_1m")
    with pytest.raises(HeadscopeError, match="no format of profiles named"):
        planning.export(found, "../../etc")


def test_query_heads_are_merged_where_a_format_is_of_kv_heads(
    planning: Planning, asked: Request
) -> None:
    request = replace(
        asked, source="score:retrieval", kind="density", granularity="head", sink=64, window=256
    )
    found = planning.plan(request)
    target = {t.name: t for t in planning.targets(found)}["duo_attention"]
    assert "query heads see more than their rule" in target.merged
    _, content = planning.export(found, "razor_attention")
    merged = kv_view(SparseProfile.model_validate_json(found.profile)).profile
    kind = profile_formats()["razor_attention"]()
    again = kind.decode([content], merged.model)
    assert [list(row) for row in again] == [list(merged.of_layer(i)) for i in range(4)]


def test_the_catalogue_lists_every_probe_and_eval(planning: Planning) -> None:
    found = planning.catalogue()
    assert set(found["probes"]) == set(probes())
    assert set(found["evals"]) == set(evals())
    assert found["probes"]["sink"]["does"].endswith(".")


# ---- speeds --------------------------------------------------------------------------------


def mixed(streaming: int) -> SparseProfile:
    """The bench's own layer: 8 KV heads of 4 query heads, of which some stream."""
    model = ProfiledModel(name="m", layers=(0,), n_heads=32, n_kv_heads=8, d_head=128)
    named = {(0, head): Streaming(128, 1024) for head in range(32 - 4 * streaming, 32)}
    return SparseProfile.of(model, named)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("n", [8192, 32768, 131072])
def test_a_layer_that_was_timed_comes_out_as_it_was(root: Path, phase: str, n: int) -> None:
    bench = Bench.load(root / f"{phase}.json")
    rows = [r for r in getattr(bench, phase) if r.n == n and getattr(r, "batch", 1) == 1]
    for streaming in (4, 6, 7):
        row = next(r for r in rows if r.mix == f"{streaming} of 8 stream")
        found = speed(mixed(streaming), n, phase, [bench])  # pyright: ignore[reportArgumentType]
        assert found.limit == pytest.approx(row.limit, rel=1e-6)
        assert found.low is not None
        assert found.high is not None
        spread = row.ours.speedup
        assert found.low <= spread.low * 1.001
        assert found.high >= spread.high * 0.999
        if streaming != 4:  # of 4 another mix has as many tiles, in another order
            assert (found.low, found.high) == pytest.approx((spread.low, spread.high), rel=1e-3)
        assert "NVIDIA H100 80GB HBM3" in found.source
        assert "not measured on your machine" in found.source


def test_between_what_was_timed_lies_between(root: Path) -> None:
    bench = Bench.load(root / "prefill.json")
    five, four, six = (speed(mixed(k), 32768, "prefill", [bench]) for k in (5, 4, 6))
    assert four.low < five.low < five.high < six.high  # pyright: ignore[reportOptionalOperand]
    longer = speed(mixed(6), 65536, "prefill", [bench])
    longest = speed(mixed(6), 131072, "prefill", [bench])
    assert six.high < longer.low < longest.high  # pyright: ignore[reportOptionalOperand]
    dense = speed(mixed(0), 32768, "prefill", [bench])
    assert dense.limit == 1
    assert dense.low == pytest.approx(1.0, abs=0.04)
    bare = speed(mixed(8), 32768, "prefill", [bench])
    least = speed(mixed(7), 32768, "prefill", [bench])
    assert bare.low == pytest.approx(least.low, rel=1e-4)
    assert bare.high == pytest.approx(bare.limit, rel=1e-6)


def test_beyond_what_was_timed_only_the_limit_is_told(root: Path) -> None:
    bench = Bench.load(root / "prefill.json")
    for n, benches, said in [
        (4096, [bench], "from 8,192 to 131,072 tokens only"),
        (200_000, [bench], "from 8,192 to 131,072 tokens only"),
        (32768, [], "No bench of such layers"),
        (32768, [bench.model_copy(update={"prefill": []})], "No bench of such layers"),
    ]:
        found = speed(mixed(6), n, "prefill", benches)
        assert (found.low, found.high) == (None, None)
        assert found.limit is not None
        assert found.source.startswith("Not measured on your machine. ")
        assert said in found.source


def test_a_damaged_bench_is_left_out_and_named(tmp_path: Path) -> None:
    planned_run(tmp_path)
    (tmp_path / "broken.json").write_text('{"kind": "bench"}')
    planning = Planning(Library.of([tmp_path]))
    run = planning.library.runs()[0].id
    found = planning.plan(Request(run=run, source="score:retrieval", n=8192))
    planning.close()
    assert "broken.json is damaged or gone, and was left out." in found.sentences
    assert all("H100" in each.source for each in found.speeds)


def test_work_is_counted_in_tiles_and_bytes() -> None:
    n, side = 1000, 128
    blocks = -(-n // side)
    dense = blocks * (blocks + 1) // 2
    i, j = np.mgrid[:n, :n]
    seen = (j <= i) & ((j < 128) | (i - j < 1024))
    pad = np.zeros((blocks * side, blocks * side), bool)
    pad[:n, :n] = seen
    tiles = pad.reshape(blocks, side, blocks, side).any((1, 3)).sum()
    prefill, decode = (work_left(mixed(4), n, phase) for phase in ("prefill", "decode"))
    assert prefill == [pytest.approx((4 * dense + 4 * tiles) / (8 * dense))]
    assert decode == [1.0]
    assert work_left(mixed(4), 4096, "decode") == [pytest.approx((4 + 4 * 1152 / 4096) / 8)]


def test_planning_loads_no_torch_here() -> None:
    code = "import sys, headscope_app.planning; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_measured_cost_is_shown_where_it_fits(tmp_path: Path) -> None:
    from headscope.sparsity.costs import Costs, Timed

    folder = planned_run(tmp_path, benches=False)
    model = ProfiledModel.of_map(HeadMap.load(folder))
    rules = tuple(rule.to_dict() for rule in RULES)
    Costs(
        model=model, device="cpu", dtype="float32", threads=3, rules=rules, lengths=(4096,),
        repeats=3, kinds=(0, 0, 0, 0),
        timed=[
            Timed(n=4096, phase="prefill", seconds=((1.0, 2.0, 4.0),), spread=((0.0,) * 3,),
                  residual=(0.0,)),
        ],
    ).save(folder / "profiles" / "costs-made.json")  # fmt: skip
    planning = Planning(Library.of([tmp_path]))
    run = planning.library.runs()[0].id
    request = Request(run=run, source=planning.sources(run)[0].key, share=0.4, n=4096)
    found = planning.plan(request)
    other = planning.plan(replace(request, n=8192))
    planning.close()
    seconds = dict(zip(map(str, RULES), (1.0, 2.0, 4.0), strict=True))
    by_head = [seconds[found.rules[place]] / 4.0 for row in found.grid for place in row]
    (timed,) = found.timed
    assert timed.share == pytest.approx(np.mean(by_head))
    assert (timed.phase, timed.where) == ("prefill", "cpu in float32, 3 threads")
    assert other.timed == ()
    assert json.loads(found.profile)["kind"] == "sparse_profile"
