"""What files say arrives in the head map, with where it came from."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from export.samples import (
    ALPHAS,
    BETAS,
    GATES,
    RETRIEVAL,
    duo,
    everything,
    minference,
    retrieval_heads,
    write_json,
)
from made_up import a_map
from pydantic import ValidationError

import headscope
from headscope import HeadMap, HeadscopeError
from headscope.catalog import formats


def test_every_format_has_an_example_and_is_recognised(tmp_path: Path) -> None:
    examples = everything(tmp_path)
    assert examples.keys() == formats().keys()
    for name, path in examples.items():
        head_map = headscope.read_heads(path)
        source = head_map.info.source
        assert source is not None
        assert source.format == name
        assert headscope.read_heads(path, name).info.source == source
        files = [path] if path.is_file() else sorted(path.iterdir())
        assert source.files == {f.name: sha256(f.read_bytes()).hexdigest() for f in files}
        model = head_map.info.model
        assert (model.fingerprint, model.d_head, model.context_length, model.parameters) == (
            None,
        ) * 4


@pytest.mark.parametrize("name", sorted(formats()))
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, name: str) -> None:
    before = headscope.read_heads(everything(tmp_path)[name], command="headscope import x")
    after = HeadMap.load(before.save(tmp_path / "run"))
    assert after.info == before.info
    assert after.info.kind == "imported"
    for scores in before.scores:
        assert np.array_equal(after[scores].values, before[scores].values)
    for curve in before.curves:
        assert np.array_equal(after.curves[curve], before.curves[curve])
    assert len(after.roles()) == len(after.heads())


def test_retrieval_scores_sample_by_sample(tmp_path: Path) -> None:
    path = write_json(tmp_path / "Some-7B.json", retrieval_heads())
    head_map = headscope.read_heads(path)
    assert np.array_equal(head_map["retrieval"].values, RETRIEVAL.astype(np.float32))
    assert head_map.info.model.name == "Some-7B"
    assert head_map.layers == [0, 1]
    assert "n_kv_heads" in head_map.info.source.assumed
    grouped = headscope.read_heads(path, n_kv_heads=2)
    assert grouped.info.source.assumed == {}
    assert grouped.kv_heads()["retrieval"][0] == pytest.approx(RETRIEVAL.mean(0)[0, :2].max())


def test_lines_of_retrieval_scores_follow_each_other(tmp_path: Path) -> None:
    path, more = tmp_path / "m.json", RETRIEVAL[::-1]
    lines = [json.dumps(retrieval_heads(values)) for values in (RETRIEVAL, more)]
    path.write_text("\n".join(lines) + "\n\n")
    both = np.concatenate([RETRIEVAL, more]).astype(np.float32)
    assert np.array_equal(headscope.read_heads(path)["retrieval"].values, both)
    path.write_text(json.dumps(retrieval_heads(), indent=2))
    assert len(headscope.read_heads(path)["retrieval"].values) == len(RETRIEVAL)


def test_gates_are_of_kv_heads_and_every_query_head_of_a_group_carries_its_own(
    tmp_path: Path,
) -> None:
    folder = duo(tmp_path / "duo")
    alone = headscope.read_heads(folder)
    assert np.array_equal(alone["duo_gate"].mean(), GATES)
    assert "n_heads" in alone.info.source.assumed
    assert alone.info.source.details["sink_size"] == 128
    assert alone.info.model.name == "Tiny-7B"
    whole = headscope.read_heads(folder / "full_attention_heads.tsv", n_heads=6)
    assert (whole.n_heads, whole.n_kv_heads) == (6, 2)
    assert np.array_equal(whole["duo_gate"].mean(), np.repeat(GATES, 3, axis=1))
    assert np.allclose(whole.kv_heads()["duo_gate"], GATES.ravel(), atol=1e-7)
    assert whole.info.scores["duo_gate"].kv_view == "native"
    assert whole.info.source.assumed == {}


def test_gates_that_left_their_range_by_a_last_step_are_cut_off(tmp_path: Path) -> None:
    head_map = headscope.read_heads(duo(tmp_path / "duo", "-1e-3\t1.01\n0.5\t0.5\n"))
    assert head_map["duo_gate"].mean().tolist() == [[0, 1], [0.5, 0.5]]


def test_templates_and_their_recall(tmp_path: Path) -> None:
    name = "Some_kv_out_v32_fit_o_best_pattern.json"
    head_map = headscope.read_heads(write_json(tmp_path / name, minference()))
    assert head_map.info.model.name == "Some"
    assert np.allclose(head_map["minference_recall"].mean(), [[0.75, 1.0004], [0, 0.5]])
    assert head_map["minference_vertical"].mean().tolist() == [[1000, 100], [8, 30]]
    assert head_map["minference_slash"].mean().tolist() == [[6096, 800], [1, 800]]
    kinds = head_map.curves["minference_kind"]
    assert kinds.shape == (1, 2, 2, 3)
    assert kinds[0].argmax(-1).tolist() == [[1, 0], [2, 1]]
    assert (kinds.sum(-1) == 1).all()


def test_counts_of_errors_are_not_taken_for_recall(tmp_path: Path) -> None:
    content = minference([[["vertical_and_slash", 30, 800, n] for n in (0, 14994473)]])
    head_map = headscope.read_heads(write_json(tmp_path / "p.json", content))
    assert head_map["minference_errors"].mean().tolist() == [[0, 14994473]]
    assert "minference_recall" not in head_map.scores


def test_spans_and_their_rule(tmp_path: Path) -> None:
    folder = tmp_path / "some--Model"
    folder.mkdir()
    path = write_json(folder / "moa_alpha_beta.json", {"alphas": ALPHAS, "betas": BETAS})
    head_map = headscope.read_heads(path)
    assert head_map.info.model.name == "some--Model"
    assert head_map["moa_alpha"].mean().tolist() == ALPHAS
    assert head_map["moa_beta"].mean().tolist() == BETAS
    assert head_map["moa_span_8k"].mean().tolist() == [[1024, 7168, 1024], [8192, 8192, 0]]


def test_an_imported_map_compares_with_a_scanned_one(tmp_path: Path) -> None:
    scanned = a_map(layers=2, heads=4, kv_heads=2, scores=["retrieval", "sink"])
    values = scanned["retrieval"].values
    read = headscope.read_heads(write_json(tmp_path / "m.json", retrieval_heads(values)))
    table = read.compare(scanned, k=3).table
    assert table["score"].tolist() == ["retrieval"]
    assert table["spearman"][0] == pytest.approx(1)
    assert table["overlap"][0] == 3
    with pytest.raises(HeadscopeError, match="different shapes"):
        read.compare(a_map(layers=2, heads=6, kv_heads=2))


def test_what_is_unknown_may_be_so_only_of_imported_maps(tmp_path: Path) -> None:
    imported = headscope.read_heads(everything(tmp_path)["moa"]).info.model_dump()
    scanned = a_map().info.model_dump()
    kind = type(a_map().info)
    for wrong in (
        imported | {"source": None},
        imported | {"kind": "scan", "source": None},
        scanned | {"kind": "imported"},
        scanned | {"device": None},
        scanned | {"source": imported["source"]},
    ):
        with pytest.raises(ValidationError):
            kind.model_validate(wrong)
