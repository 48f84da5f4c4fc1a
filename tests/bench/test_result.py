"""A bench on disk, and as a figure."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headscope.bench.result import Bench, PrefillRow, Timed
from headscope.bench.tables import prefill_table, sentences
from headscope.bench.timing import Spread
from headscope.errors import HeadscopeError
from headscope.viz.figures import kernel_speed

SVG = "{http://www.w3.org/2000/svg}"


def timed(speedup: float) -> Timed:
    spread = Spread(median=speedup, low=speedup, high=speedup)
    return Timed(ms=Spread(median=1 / speedup, low=0, high=9), speedup=spread, peak_bytes=5)


def row(mix: str, n: int, ours: float, layers: int = 1, asked: str = "auto", **others: float):
    return PrefillRow(
        mix=mix, layers=layers, rounds=3, n=n, rules={"full": 4}, dense="cudnn", asked=asked,
        dispatch="hybrid", dense_part="cudnn", programs=1, limit=4.0, limit_64=5.0,
        ours=timed(ours), plan_seconds=0.1,
        others={"cudnn": timed(1.0)} | {name: timed(x) for name, x in others.items()},
        left_out={"flash": "it is <old>"},
    )  # fmt: skip


def made(*rows: PrefillRow) -> Bench:
    return Bench(
        profile="p & q", device="a GPU", dtype="bfloat16", date="2026-01-02", command="bench",
        versions={"torch": "2.11"}, prefill=list(rows),
        quality={"notes": {"planned": "kv=0.5"}, "model": "m", "texts": 6,
                 "perplexity": [{"n": 8, "without": 9.0, "ratio": 1.01, "low": 1.0, "high": 1.02}]},
    )  # fmt: skip


FOUND = made(
    row("a <b>", 8192, 2.0, flex=1.5, two_launch=1.8),
    row("a <b>", 32768, 3.0, flex=1.6),
    row("c", 8192, 2.5),
    row("c", 8192, 2.4, asked="single"),
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = FOUND.save(tmp_path / "new" / "bench.json")
    again = Bench.load(path)
    assert again == FOUND
    assert json.loads(path.read_text()) == FOUND.to_dict()
    path.write_text(path.read_text().replace('"device": "a GPU"', '"device": 3'))
    with pytest.raises(HeadscopeError, match=r"damaged or no bench \(device"):
        Bench.load(path)


def test_layers_count_by_what_their_dense_kernel_takes() -> None:
    slow = row("m", 64, 4.0, layers=3, flex=2.0)
    (all_,) = prefill_table(made(row("m", 64, 1.0), slow)).to_dict("records")
    # One layer of 1 at speed-up 1, three of 1 at speed-up 4: 4 / (1 + 3/4).
    assert all_["speed-up"] == pytest.approx(4 / 1.75)
    assert "flex" not in all_


def test_a_figure_has_a_panel_for_each_mix_and_every_series() -> None:
    root = ElementTree.fromstring(kernel_speed(FOUND).svg())
    assert root.tag == f"{SVG}svg"
    series = [g for g in root.iter(f"{SVG}g") if g.get("data-name")]
    by_name = {name: [g for g in series if g.get("data-name") == name] for name in
               ("headscope", "tile limit", "cudnn", "flex", "two_launch")}  # fmt: skip
    assert {name: len(some) for name, some in by_name.items()} == {
        "headscope": 3, "tile limit": 3, "cudnn": 3, "flex": 1, "two_launch": 1,
    }  # fmt: skip
    assert len(series) == 11
    told = by_name["headscope"][0].find(f"{SVG}title")
    assert told is not None
    assert told.text == "headscope: 8k 2.00, 32k 3.00"
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a <b>", "c", "c (single)", "headscope", "tile limit", "8k", "32k"} <= set(texts)


def test_a_figure_of_one_row_can_be_drawn() -> None:
    assert "NaN" not in kernel_speed(made(row("a", 8192, 2.0))).svg()


def test_sentences_say_what_was_left_out_and_what_is_lost() -> None:
    assert sentences(FOUND) == [
        "Left out of prefill: flash (it is <old>).",
        "Quality, as the profile was made: planned kv=0.5.",
        "Quality: perplexity of m at 8 tokens is 1.010 [1.000, 1.020; 6 texts] times that without "
        "the profile, which is 9.00.",
    ]
