"""Files of profiles that are damaged, foreign or hostile: one sentence that names the file."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.expressible import a_model, expressed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from headscope import HeadscopeError
from headscope.catalog import profile_formats
from headscope.export.profiles.base import ProfileFormat
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile

NAMES = sorted(profile_formats())
BLOCKS = ("flashinfer", "flex_attention")
PROFILE = SparseProfile.of(a_model(), [[Full()] * 6, [Streaming(64, 256)] * 6])
TABLE = "full_attention_heads.tsv"


def a_format(name: str, **numbers: Any) -> ProfileFormat:
    return profile_formats()[name](
        **({"length": 64, "block": 8} if name in BLOCKS else {}) | numbers
    )


def written(name: str, folder: Path, profile: SparseProfile = PROFILE) -> Path:
    if name == "qwen_1m":
        profile = SparseProfile.of(profile.model, {})
    a_format(name).write(profile, folder / "out")
    return folder / "out"


def main_file(name: str, path: Path) -> Path:
    """The file that has the heads."""
    files = profile_formats()[name].files
    return path / files[0] if files else path


def refused(name: str, path: Path, words: str, like: Any = PROFILE, **numbers: Any) -> None:
    with pytest.raises(HeadscopeError) as caught:
        a_format(name, **numbers).read(path, like)
    message = str(caught.value)
    assert words in message
    assert message.isprintable()
    assert len(message) < 500 + len(str(path))


def changed(content: Any, *keys: Any, to: Any) -> Any:
    """JSON with one value replaced."""
    if not keys:
        return to
    whole = dict(content) if isinstance(content, dict) else list(content)
    whole[keys[0]] = changed(
        whole.get(keys[0]) if isinstance(whole, dict) else whole[keys[0]], *keys[1:], to=to
    )
    return whole


NAN = float("nan")
DAMAGED: dict[str, tuple[str, tuple[Any, ...], Any, str]] = {
    "a kind": ("minference", (0, "0", 0), "dilated1", "input should be"),
    "blocks": ("minference", (0, "0"), ["block_sparse", 100, 1, 0.5], "has no rule for"),
    "stream": ("qwen_1m", (0, "0"), ["stream_llm", 100, 100, 0.5], "has no rule for"),
    "no window": ("minference", (1, "0"), ["stream_llm", 4, 0, 0.5], "window >= 1"),
    "few diagonals": ("minference", (1, "0"), ["vertical_and_slash", 99, 60, 0.5], "left open"),
    "a NaN": ("minference", (1, "0", 3), NAN, "1.0.3"),
    "a huge": ("minference", (1, "0", 1), 10**12, "less than"),
    "a layer": ("minference", (1,), {"0": ["stream_llm", 4, 8, 0.5]}, "2 layers of 1, 6"),
    "alphas": ("moa", ("alphas",), [[0.0] * 6], "its alphas are"),
    "half a token": ("moa", ("alphas", 1, 0), 320.5, "no whole number"),
    "short spans": ("moa", ("alphas", 1, 0), 64.0, "never longer than its sink"),
    "endless": ("moa", ("alphas", 1, 0), float("inf"), "finite"),
    "beta of 2": ("moa", ("betas", 1, 0), 2.0, "less than"),
    "no key": ("rtp_llm", ("headwise_config",), [], "headwise_config"),
    "a 2": ("rtp_llm", ("headwise_config", "1"), [2] * 6, "less than"),
    "true": ("rtp_llm", ("headwise_config", "sink_token_num"), True, "valid integer"),
    "fewer heads": ("rtp_llm", ("headwise_config", "1"), [1, 0], "2, 6 query heads"),
    "a far layer": ("rtp_llm", ("headwise_config", "7"), [1] * 6, "the layer '7'"),
    "a strange key": ("rtp_llm", ("headwise_config", "\x1b[2Jx"), 3, "valid list"),
    "a negative": ("rtp_llm", ("headwise_config", "swa_token_num"), -1, "greater than"),
    "another kind": ("razor_attention", ("kind",), "x", "razor_attention_heads"),
    "a newer one": ("razor_attention", ("schema_version",), 2, "schema_version"),
    "a head too many": ("razor_attention", ("retrieval_kv_heads", "0"), [2], "not KV heads"),
    "a head twice": ("razor_attention", ("retrieval_kv_heads", "0"), [0, 0], "each once"),
    "a layer more": ("razor_attention", ("retrieval_kv_heads", "2"), [0], "its 3 layers"),
    "other KV heads": ("razor_attention", ("n_kv_heads",), 4, "4 KV heads a layer"),
    "no recent": ("kvpress", ("recent_size",), 0, "greater than or equal to 1"),
    "a press's rows": ("kvpress", ("streaming",), [[0, 1]], "1 layers of 2 KV heads, not 2"),
    "a press's NaN": ("kvpress", ("streaming", 0, 0), NAN, "streaming.0.0"),
    "an extra": ("kvpress", ("more",), 1, "extra inputs"),
    "an unknown rule": ("headscope", ("rules", 0), {"rule": "magic"}, "magic"),
    "a newer profile": ("headscope", ("schema_version",), 9, "newer headscope"),
    "a rule too far": ("headscope", ("heads", 0, 0), 9, "not listed"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_json(case: str, tmp_path: Path) -> None:
    name, keys, value, words = DAMAGED[case]
    path = written(name, tmp_path)
    file = main_file(name, path)
    file.write_text(json.dumps(changed(json.loads(file.read_text()), *keys, to=value)))
    refused(name, path, words)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "its table is empty"),
        ("nan\t0\n0\t0\n", "row 1, column 1"),
        ("1e999\t0\n0\t0\n", "row 1, column 1"),
        ("0\t0.5\t1\n1\t1\t1\n", "2 layers of 3 KV heads, not 2 of 2"),
        ("0\t1\n", "1 layers of 2 KV heads, not 2 of 2"),
        ("0\t0\n0\t1\n", "heads tie, and its loaders draw by chance"),
        ("0\t0\n0\t1\n", "the nearest that part them are 0.75"),
        ("0\t0\n0\t0\n", "the nearest that part them are 0 and 1"),
    ],
)
def test_damaged_tables(table: str, words: str, tmp_path: Path) -> None:
    path = written("duo_attention", tmp_path)
    (path / TABLE).write_text(table)
    refused("duo_attention", path, words)


def test_configs_of_tables(tmp_path: Path) -> None:
    path = written("duo_attention", tmp_path)
    config = path / "config.json"
    whole = json.loads(config.read_text())
    for key, value, words in (
        ("sparsity", 2.0, "sparsity: input should be less than"),
        ("recent_size", 0, "window >= 1"),
        ("sink_size", -1, "sink_size"),
    ):
        config.write_text(json.dumps(whole | {key: value}))
        refused("duo_attention", path, words)
    config.write_text(json.dumps({k: v for k, v in whole.items() if k != "sparsity"}))
    refused("duo_attention", path, "give sparsity, 0 to 1")
    assert a_format("duo_attention", sparsity=0.5).read(path, PROFILE) == PROFILE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{", b"null", b"[" * 10**6, b"9" * 5000, b"[]", b"{}"]
)
def test_something_else_altogether(name: str, content: bytes, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    main_file(name, path).write_bytes(content)
    refused(name, path, str(path))


@pytest.mark.parametrize("name", NAMES)
def test_half_a_file(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    file = main_file(name, path)
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) * 2 // 5])
    refused(name, path, str(path))


@pytest.mark.parametrize("name", NAMES)
def test_not_there(name: str, tmp_path: Path) -> None:
    refused(name, tmp_path / "nothing", str(tmp_path))
    path = written(name, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    main_file(name, path).unlink()
    refused(name, path, str(path))
    refused(name, tmp_path / "pipe", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 3, 2), (2, 4, 3), (1, 2, 3)])
def test_another_models(name: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    by_query = profile_formats()[name].granularity == "query head"
    if shape == (2, 3, 2) and by_query and name != "headscope":
        return  # as many query heads: the files say no more
    if name in BLOCKS and shape == (2, 3, 2):
        return
    if name == "rtp_llm" and shape == (3, 2, 3):
        return  # a layer that is missing is full there
    refused(name, written(name, tmp_path), "made-up", like=a_model(*shape))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "headscope"])
def test_too_large(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(name, tmp_path)
    monkeypatch.setattr(profile_formats()[name], "limit", 20)
    refused(name, path, "more than 0 MB")


@pytest.mark.parametrize("name", BLOCKS)
def test_tensors_that_are_not_those_of_the_rules(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    content = path.read_bytes()
    arrays, size = load(content), struct.unpack("<Q", content[:8])[0]
    told = json.loads(content[8 : 8 + size])["__metadata__"]
    header = json.loads(told["headscope"])
    some = next(key for key in arrays if key != "heads" and arrays[key].ndim == 2)

    def keep(words: str, arrays: dict[str, np.ndarray], header: Any) -> None:
        path.write_bytes(save(arrays, {"headscope": json.dumps(header)}))
        refused(name, path, words)

    flipped = arrays[some].copy()
    flipped[0, 0] = not flipped[0, 0] if flipped.dtype == bool else 7
    keep("are not those of", arrays | {some: flipped}, header)
    keep("are not those of", arrays | {some: arrays[some].astype(np.float32)}, header)
    keep("are not those of", {k: v for k, v in arrays.items() if k != some}, header)
    keep("not listed", arrays | {"heads": arrays["heads"] + 5}, header)
    keep("not listed", arrays | {"heads": arrays["heads"] - 5}, header)
    keep("which head has which rule", {k: v for k, v in arrays.items() if k != "heads"}, header)
    keep("other layers than it holds", arrays, header | {"layers": [0]})
    keep("no length and block", arrays, header | {"length": 1.5})
    keep("a length of 2 to", arrays, header | {"length": 10**12})
    keep("lists no rules", arrays, header | {"rules": []})
    keep("no rule named", arrays, header | {"rules": [{"rule": "magic"}] * 2})
    keep("none by position", arrays, header | {"rules": [{"rule": "block_top_k"}] * 2})
    keep("of this headscope", arrays, header | {"schema_version": 2})
    keep("of this headscope", arrays, header | {"kind": "other"})
    keep("no header of headscope", arrays, [1])
    path.write_bytes(save(arrays))
    refused(name, path, "no header of headscope")


@given(data=st.data(), name=st.sampled_from(NAMES))
@settings(max_examples=120, deadline=None)
def test_any_damage_is_read_or_refused(
    data: st.DataObject, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    format_, profile = expressed(data, name)
    path = tmp_path_factory.mktemp("any") / "out"
    format_.write(profile, path)
    file = main_file(name, path)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 8)))
        content[start:stop] = data.draw(st.binary(max_size=4))
    file.write_bytes(content)
    try:
        back = format_.read(path, profile)
    except HeadscopeError:
        return
    assert back.model == profile.model
