"""The command that writes profiles and scores for others."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from export.expressible import a_model
from made_up import a_map

import headscope
from headscope import cli
from headscope.catalog import profile_formats
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile

BLOCKS = ("--length", "64", "--block", "8")
RULE = Streaming(64, 256)


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs the command; (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["headscope", "export", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """One layer whose KV heads are alike, and one whose are not."""
    rows = [[Full()] * 3 + [RULE] * 3, [RULE, Full(), RULE] * 2]
    return SparseProfile.of(a_model(), rows).save(tmp_path / "profile.json")


@pytest.mark.parametrize("name", sorted(profile_formats()))
def test_every_format_is_written_and_explained(name: str, export, tmp_path: Path, profile) -> None:
    kind = profile_formats()[name]
    if name == "qwen_1m":
        profile = SparseProfile.of(a_model(), {}).save(tmp_path / "full.json")
    if name == "rtp_llm":
        rows = [[Full(), RULE, RULE] * 2, [RULE] * 6]
        profile = SparseProfile.of(a_model(), rows).save(tmp_path / "even.json")
    more = BLOCKS if name.startswith("fl") else ()
    merge = ("--merge",) if kind.granularity == "KV head" else ()
    out = tmp_path / "out"
    code, said, err = export(profile, "--to", name, "--out", out, *more, *merge)
    assert (code, err) == (0, "")
    assert f"Loaded by: {kind.loads}" in said
    assert f"What is different there: {kind.loses}" in said
    assert ("Merged, 4 query heads see more than their rule" in said) == bool(merge)
    again = tmp_path / "again"
    code, said, err = export(profile, "--to", name, "--out", again, *more, *merge, "--json")
    assert (code, err) == (0, "")
    told = json.loads(said)
    assert [Path(file).is_file() for file in told["files"]] == [True] * max(1, len(kind.files))
    assert (told["format"], told["granularity"]) == (name, kind.granularity)
    assert (told["merge"] is None) == (not merge)
    if merge:
        assert told["merge"]["widened"] == [[1, 0], [1, 2], [1, 3], [1, 5]]
        assert told["merge"]["n"] == (64 if more else 32768)
        before, after = told["merge"]["density"]
        assert before < after or more


def test_others_files_become_profiles(export, tmp_path: Path, profile: Path) -> None:
    code, *_ = export(profile, "--to", "duo_attention", "--out", tmp_path / "duo", "--merge")
    assert code == 0
    asked = (tmp_path / "duo", "--from", "duo_attention", "--to", "headscope")
    code, _, err = export(*asked, "--like", profile, "--out", tmp_path / "back.json")
    assert (code, err) == (0, "")
    back = SparseProfile.load(tmp_path / "back.json")
    assert back.of_layer(0) == (Full(),) * 3 + (RULE,) * 3
    assert back.of_layer(1) == (Full(),) * 6
    code, _, _ = export(
        *asked, "--like", profile, "--sparsity", "1", "--out", tmp_path / "none.json"
    )
    assert code == 0
    assert set(SparseProfile.load(tmp_path / "none.json").of_layer(0)) == {RULE}
    code, _, err = export(*asked, "--out", tmp_path / "c.json")
    assert code == 2
    assert "with --like" in err


def test_scores_are_read_back(export, tmp_path: Path) -> None:
    head_map = a_map(scores=["retrieval", "sink"])
    run = head_map.save(tmp_path / "run")
    file = tmp_path / "made-up.json"
    code, said, err = export(run, "--to", "retrieval_head", "--score", "sink", "--out", file)
    assert (code, err) == (0, "")
    assert f"Wrote {file}: sink" in said
    back = headscope.read_heads(file, n_kv_heads=2)
    assert np.array_equal(back["retrieval"].values, head_map["sink"].values)
    assert back.info.model.name == "made-up"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--to", "duo_attention"), "--merge"),
        (("--to", "headscope", "--merge"), "do not merge"),
        (("--to", "flex_attention"), "--length"),
        (("--to", "flex_attention", "--length", "1"), "a length of 2"),
        (("--to", "flex_attention", "--length", "0"), "a length of 2"),
        (("--to", "duo_attention", "--merge", "--length", "0"), "one token at least"),
        (("--to", "duo_attention", "--merge", "--length", "-1"), "one token at least"),
        (("--to", "moa", "--length", "64"), "moa has no length; leave --length out"),
        (("--to", "moa", "--ranks", "2"), "moa has no ranks"),
        (("--to", "rtp_llm"), "they have 3, 0"),
        (("--to", "mao"), "Did you mean moa"),
        (("--to", "retrieval_head"), "takes a run, --score and --out"),
        (("--to", "moa", "--score", "sink"), "--score is for"),
        (("--to", "moa", "--sparsity", "0.5"), "named with --from"),
        (("--to", "moa", "--from", "moa"), "with --like"),
        (("--to", "moa", "--from", "moa", "--like", "p.json", "--sparsity", "0.5"), "no sparsity"),
        (("--to", "minference", "--length", "0"), "needs length"),
    ],
)
def test_mistakes(args: tuple[str, ...], words: str, export, tmp_path: Path) -> None:
    rows = [[Full()] * 3 + [RULE] * 3, [RULE, Full(), RULE] * 2]
    SparseProfile.of(a_model(), rows).save(tmp_path / "p.json")
    code, out, err = export("p.json", "--out", "out", *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("headscope: ")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_inputs_that_are_none(export, tmp_path: Path) -> None:
    run = a_map().save(tmp_path / "run")
    for given, words in ((run, "make a profile of it first"), ("nothing.json", "cannot be read")):
        code, _, err = export(given, "--to", "moa", "--out", "out.json")
        assert code == 2
        assert words in err
    (tmp_path / "bad.json").write_text('{"kind": "sparse_profile"}')
    code, _, err = export("bad.json", "--to", "moa", "--out", "out.json")
    assert code == 2
    assert "bad.json is damaged" in err
    scores = ("--to", "retrieval_head", "--out", "out.json")
    code, _, err = export(run, *scores, "--score", "nothing")
    assert code == 2
    assert "no score 'nothing'" in err
    gappy = a_map(layers=[1, 3]).save(tmp_path / "gappy")
    code, _, err = export(gappy, *scores, "--score", "sink")
    assert code == 2
    assert "layers from 0 without gaps" in err
    head_map = a_map(scores=["sink"])
    head_map["sink"].values[0, 2, 1] = -0.5
    code, _, err = export(head_map.save(tmp_path / "low"), *scores, "--score", "sink")
    assert code == 2
    assert "sink of L2H1 is -0.5" in err
    assert not (tmp_path / "out.json").exists()
