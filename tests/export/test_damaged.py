"""Files that are damaged, foreign or hostile: one sentence that names the file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.samples import ALPHAS, BETAS, duo, everything, minference, retrieval_heads, write_json
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import a_map

import headscope
from headscope import HeadscopeError
from headscope.catalog import formats
from headscope.export.moa import Moa


def retrieval(**changed: Any) -> dict[str, Any]:
    return retrieval_heads() | changed


def without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


def template(*each: Any) -> list[dict[str, list[Any]]]:
    content = minference()
    content[1]["0"] = list(each)
    return content


def plan(alphas: Any = ALPHAS, betas: Any = BETAS, **more: Any) -> dict[str, Any]:
    return {"alphas": alphas, "betas": betas, **more}


DAMAGED: dict[str, tuple[str, Any, str]] = {
    "no heads": ("retrieval_head", {}, "holds no heads"),
    "a head is missing": ("retrieval_head", without(retrieval(), "0-2"), "do not fill"),
    "a head twice": ("retrieval_head", without(retrieval(**{"00-1": [0.0] * 5}), "0-0"), "fill"),
    "a head far away": ("retrieval_head", retrieval(**{"9999-9999": [0.0] * 5}), "do not fill"),
    "no head's name": ("retrieval_head", retrieval(x=[0.0] * 5), "should match pattern"),
    "fewer samples": ("retrieval_head", retrieval(**{"0-1": [0.5]}), "1 to 5 samples"),
    "no samples": ("retrieval_head", {"0-0": [], "0-1": []}, "0 to 0 samples"),
    "a word": ("retrieval_head", retrieval(**{"0-1": ["0.5"] * 5}), "valid number"),
    "true": ("retrieval_head", retrieval(**{"0-1": [True] * 5}), "valid number"),
    "null": ("retrieval_head", retrieval(**{"0-1": [None] * 5}), "valid number"),
    "a negative": ("retrieval_head", retrieval(**{"0-1": [-1.0] * 5}), "greater than or equal"),
    "too large": ("retrieval_head", retrieval(**{"0-1": [1e300] * 5}), "less than or equal"),
    "NaN": ("retrieval_head", retrieval(**{"0-1": [float("nan")] * 5}), "finite number"),
    "infinity": ("retrieval_head", retrieval(**{"0-1": [float("inf")] * 5}), "finite number"),
    "a number": ("retrieval_head", retrieval(**{"0-1": 0.5}), "valid array"),
    "a list": ("retrieval_head", [1, 2], "object"),
    "no layers": ("minference", [], "no table"),
    "a gap": ("minference", [{"0": minference()[0]["0"], "2": minference()[0]["1"]}], "without a"),
    "ragged": ("minference", [*minference(), {"0": minference()[0]["0"]}], "no table of layers"),
    "unknown kind": ("minference", template("dilated1", 1, 1, 0.5), "input should be"),
    "too short": ("minference", template("stream_llm", 1, 1), "field required"),
    "a negative size": ("minference", template("stream_llm", -1, 1, 0.5), "greater than"),
    "a huge size": ("minference", template("stream_llm", 10**12, 1, 0.5), "less than"),
    "half a size": ("minference", template("stream_llm", 1.5, 1, 0.5), "valid integer"),
    "no recall": ("minference", template("stream_llm", 1, 1, 1.5), "a recall between 0 and 1"),
    "NaN recall": ("minference", template("stream_llm", 1, 1, float("nan")), "1.0.3"),
    "mixed": ("minference", template("stream_llm", 1, 1, 12), "partly fractions"),
    "no betas": ("moa", {"alphas": ALPHAS}, "betas: field required"),
    "more than a plan": ("moa", plan(gammas=[]), "extra inputs"),
    "other heads": ("moa", plan(betas=[[0.5], [0.5]]), "its alphas are"),
    "ragged plan": ("moa", plan(alphas=[[1.0], [1.0, 2.0]]), "no table of layers"),
    "empty plan": ("moa", plan([], []), "no table of layers"),
    "empty layer": ("moa", plan([[]], [[]]), "no table of layers"),
    "beta of 2": ("moa", plan(betas=[[2.0] * 3] * 2), "less than"),
    "endless alpha": ("moa", plan(alphas=[[1e30] * 3] * 2), "less than"),
    "NaN alpha": ("moa", plan(alphas=[[float("nan")] * 3] * 2), "finite"),
}

TABLES = {
    "empty": ("", "its table is empty"),
    "blank": ("\n \n", "its table is empty"),
    "words": ("a\tb\n", "convert string"),
    "ragged": ("0.5\t0.5\n0.5\n", "columns"),
    "spaces": ("0.5 0.5\n", "convert string"),
    "NaN": ("0.5\tnan\n0.5\t0.5\n", "row 1, column 2"),
    "infinite": ("0.5\t0.5\ninf\t0.5\n", "row 2, column 1"),
    "huge": ("0.5\t1e400\n", "row 1, column 2"),
    "above": ("1.5\t0.5\n", "row 1, column 1"),
    "unicode": ("0.5\tä\n", "ascii"),
}

CONFIGS: dict[str, tuple[Any, str]] = {
    "a list": ([], "object"),
    "no model": ({"sink_size": 1, "recent_size": 1}, "model_name: field required"),
    "a number": ({"model_name": 3, "sink_size": 1, "recent_size": 1}, "valid string"),
    "control": ({"model_name": "a\x1b[2J", "sink_size": 1, "recent_size": 1}, "cannot be printed"),
    "negative": ({"model_name": "m", "sink_size": -1, "recent_size": 1}, "sink_size"),
    "long": ({"model_name": "m" * 999, "sink_size": 1, "recent_size": 1}, "at most 300"),
}


def refused(path: Path, words: str, format: str | None = None, **numbers: int) -> None:
    with pytest.raises(HeadscopeError) as caught:
        headscope.read_heads(path, format, **numbers)
    message = str(caught.value)
    assert str(path) in message
    assert words in message
    assert message.isprintable()
    assert len(message) < 500 + len(str(path))


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_json(tmp_path: Path, case: str) -> None:
    format, content, words = DAMAGED[case]
    refused(write_json(tmp_path / "file.json", content), words, format)


@pytest.mark.parametrize("case", TABLES)
def test_damaged_tables(tmp_path: Path, case: str) -> None:
    table, words = TABLES[case]
    refused(duo(tmp_path / "duo", table), words)


@pytest.mark.parametrize("case", CONFIGS)
def test_damaged_configs(tmp_path: Path, case: str) -> None:
    config, words = CONFIGS[case]
    refused(duo(tmp_path / "duo", None, config), words)


def test_half_of_a_folder(tmp_path: Path) -> None:
    folder = duo(tmp_path / "duo")
    (folder / "config.json").unlink()
    with pytest.raises(HeadscopeError, match=r"config\.json cannot be read .* no such file"):
        headscope.read_heads(folder)
    (folder / "full_attention_heads.tsv").unlink()
    refused(folder, "a folder of no format")


@pytest.mark.parametrize("name", ["retrieval_head", "minference", "moa"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"null", b"[" * 10**6, b"9" * 5000])
def test_no_json_at_all(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    refused(path, "cannot be read as", name)
    refused(path, "a file of no format")


def test_a_key_is_never_printed_whole(tmp_path: Path) -> None:
    content = retrieval(**{"\x1b[2J" + "x" * 10**5: [0.0]})
    refused(write_json(tmp_path / "file.json", content), "should match pattern", "retrieval_head")


def test_lines_that_do_not_belong_together(tmp_path: Path) -> None:
    path, whole = tmp_path / "file.json", retrieval_heads()
    other = {"0-0": [0.5], "0-1": [0.5]}
    path.write_text(f"{json.dumps(whole)}\n{json.dumps(other)}")
    refused(path, "different shapes")
    path.write_text(f"{json.dumps(whole)}\n{json.dumps(whole)}")
    refused(path, "the samples of the one before")


def test_not_there_or_not_that_kind_of_thing(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.json", "no file or folder")
    refused(tmp_path, "a folder of no format")
    refused(tmp_path, "no such file", "moa")
    good = everything(tmp_path)
    refused(good["moa"], "should match pattern", "retrieval_head")
    with pytest.raises(HeadscopeError, match=r"no format named 'mao'\. Did you mean moa"):
        headscope.read_heads(good["moa"], "mao")
    run = a_map().save(tmp_path / "run")
    refused(run, "needs no import")


def test_something_that_never_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    refused(tmp_path / "pipe.json", "a file of no format")
    refused(tmp_path / "pipe.json", "no such file", "moa")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = everything(tmp_path)["moa"]
    monkeypatch.setattr(Moa, "limit", 20)
    refused(path, "more than 0 MB")
    monkeypatch.undo()
    many = [{str(i): 0 for i in range(2**17 + 1)}]
    refused(write_json(tmp_path / "many.json", many), "names more than", "minference")
    refused(write_json(tmp_path / "wide.json", plan([[0.0] * 2000])), "at most 1024")
    refused(write_json(tmp_path / "deep.json", plan([[0.0]] * 2000)), "at most 1024")


@pytest.mark.parametrize("numbers", [{"n_heads": 3}, {"n_kv_heads": 0}, {"n_kv_heads": -2},
                                     {"n_kv_heads": 3}, {"n_heads": 0}])  # fmt: skip
def test_heads_that_do_not_fit_the_file(tmp_path: Path, numbers: dict[str, int]) -> None:
    refused(everything(tmp_path)["retrieval_head"], "4 query heads a layer", **numbers)


@pytest.mark.parametrize("numbers", [{"n_heads": 3}, {"n_kv_heads": 4}, {"n_heads": 2048},
                                     {"n_heads": 0}, {"n_heads": -2}])  # fmt: skip
def test_groups_that_do_not_fit_the_file(tmp_path: Path, numbers: dict[str, int]) -> None:
    refused(everything(tmp_path)["duo_attention"], "2 KV heads a layer", **numbers)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["0", "1", "0-0", "0-1", "alphas", "betas"]), inner)
    ),
    max_leaves=12,
)


@given(content=JSON, name=st.sampled_from(sorted(formats())))
@settings(max_examples=150, deadline=None)
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any, name: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    read_or_refused(write_json(folder / "file.json", content), name)


@given(data=st.data(), name=st.sampled_from(sorted(formats())))
@settings(max_examples=150, deadline=None)
def test_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    path = everything(tmp_path_factory.mktemp("any"))[name]
    file = path / "full_attention_heads.tsv" if path.is_dir() else path
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 8)))
        content[start:stop] = data.draw(st.binary(max_size=4))
    file.write_bytes(content)
    read_or_refused(path, name)


@given(values=st.lists(st.lists(st.floats(0, 50), min_size=4, max_size=4), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_any_scores_arrive(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]]
) -> None:
    whole = np.array(values).reshape(-1, 2, 2)
    path = write_json(tmp_path_factory.mktemp("any") / "m.json", retrieval_heads(whole))
    assert np.array_equal(headscope.read_heads(path)["retrieval"].values, whole.astype("float32"))


def read_or_refused(path: Path, name: str) -> None:
    try:
        head_map = headscope.read_heads(path, name)
    except HeadscopeError:
        return
    for score in head_map.scores.values():
        assert np.isfinite(score.values).all()
        assert score.values.shape[1:] == (len(head_map.layers), head_map.n_heads)


def test_refusals_are_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = everything(tmp_path)["moa"]

    def denied(*_: object, **__: object) -> Callable[..., Any]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "Permission denied")
    refused(path, "Permission denied", "moa")
