"""Live patterns: what a process of its own says is what the seam says here."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_room import tiny_folder, words

import headscope
from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope_app.live import CHARACTERS, Live, Subject, Window
from headscope_app.passes import Passes
from headscope_app.picture import picture
from headscope_app.worker import WorkerDied


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> HeadModel:
    return headscope.load(str(folder))


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    made = Live()
    yield made
    made.close()


def attention(model: HeadModel, text: str, layer: int) -> Attention:
    seen: list[Attention] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model.forward(model.tokens(text))
    return seen[layer]


def test_a_short_text_comes_exactly(live: Live, model: HeadModel, folder: Path) -> None:
    text = words(40)
    found = live.pattern(Subject(str(folder), fingerprint=model.fingerprint), text, 1, 4)
    expected = attention(model, text, 1).dense()[0, 4].numpy()
    assert found.exact
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(found.weights, expected, atol=1e-6)
    ids = model.tokenizer.convert_tokens_to_ids(list(found.tokens))
    assert ids == model.tokens(text)[0].tolist()
    flat = np.sort(expected.ravel())[::-1]
    np.testing.assert_allclose([p.weight for p in found.pairs], flat[:20], atol=1e-6)
    for pair in found.pairs:
        assert abs(expected[pair.query, pair.key] - pair.weight) < 1e-6
    rest = expected.copy()
    rest[:, 0] = 0
    np.fill_diagonal(rest, 0)
    flat = np.sort(rest.ravel())[::-1]
    np.testing.assert_allclose([p.weight for p in found.elsewhere], flat[:20], atol=1e-6)


def test_heads_and_windows_come_from_one_pass(live: Live, folder: Path, model: HeadModel) -> None:
    text, subject = words(50), Subject(str(folder))
    window = Window((20, 45), (5, 30))
    heads = [(2, 0), (0, 5), (1, 3)]
    found = live.patterns(subject, text, heads, window)
    assert [(each.layer, each.head) for each in found] == heads
    for each in found:
        expected = attention(model, text, each.layer).dense()[0, each.head, 20:45, 5:30].numpy()
        np.testing.assert_allclose(each.weights, expected, atol=1e-6)
        assert each.window == window
        assert all(20 <= p.query < 45 and 5 <= p.key < 30 for p in each.pairs)


def test_a_window_beyond_the_text_is_cut(live: Live, folder: Path, model: HeadModel) -> None:
    n = model.tokens(words(30)).shape[1]
    found = live.pattern(Subject(str(folder)), words(30), 0, 0, Window((-5, 90), (n - 2, n + 1)))
    assert found.window == Window((0, n), (n - 2, n))
    assert found.weights.shape == (n, 2)
    with pytest.raises(HeadscopeError, match="a token at least"):
        live.pattern(Subject(str(folder)), words(30), 0, 0, Window((9, 9), (0, 30)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Type a text"),
        (" \n\t", "Type a text"),
        ("w" * (CHARACTERS + 1), "200,001 characters"),
        (words(129), r"\d+ tokens, more than the 128"),
        ("w1 \ud800 w2", "half of a character"),
    ],
)
def test_texts_that_cannot_be_read(live: Live, folder: Path, text: str, said: str) -> None:
    with pytest.raises(HeadscopeError, match=said):
        live.pattern(Subject(str(folder)), text, 0, 0)


def test_a_window_is_two_pairs_of_whole_numbers() -> None:
    assert Window.of([[1, 5], [0, 3]]) == Window((1, 5), (0, 3))
    for given in (None, "ab", [], [[0, 1]], [["x", "y"], [0, 1]], [[None, None], [0, 1]],
                  [[0, 1, 2], [0, 1]], [[0.5, 1], [0, 1]], [[True, 1], [0, 1]]):  # fmt: skip
        with pytest.raises(HeadscopeError, match="no part of a pattern"):
            Window.of(given)


def test_the_home_of_nobody_is_a_model_that_is_not_there(live: Live) -> None:
    with pytest.raises(HeadscopeError, match="nosuchuser"):
        live.pattern(Subject("~nosuchuser/x"), words(5), 0, 0)


def test_a_huge_text_never_reaches_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live()
    with pytest.raises(HeadscopeError, match="1,000,000 characters"):
        live.pattern(Subject("smollm2"), "x" * 10**6, 0, 0)
    assert live.worker.pid is None


def test_heads_and_models_that_are_not_there(live: Live, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match="no head L3H0"):
        live.pattern(Subject(str(folder)), words(9), 3, 0)
    with pytest.raises(HeadscopeError, match="There is no folder"):
        live.pattern(Subject(str(tmp_path / "none")), words(9), 0, 0)
    with pytest.raises(HeadscopeError, match="not in the Hugging Face cache"):
        live.pattern(Subject("nobody/nothing"), words(9), 0, 0)


def test_other_weights_than_the_runs_are_refused(live: Live, folder: Path) -> None:
    with pytest.raises(HeadscopeError, match="other weights now"):
        live.pattern(Subject(str(folder), fingerprint="0" * 64), words(9), 0, 0)


def test_markup_in_a_text_stays_text(live: Live, folder: Path) -> None:
    found = live.pattern(Subject(str(folder)), "<script>alert(1)</script> w5", 0, 0)
    assert len(found.tokens) == len(found.weights)


def test_a_process_killed_at_work_is_said_and_replaced(folder: Path) -> None:
    live, subject = Live(), Subject(str(folder))
    first = live.pattern(subject, words(20), 0, 1)
    pid = live.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # so that it is at work for certain when it is killed
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(WorkerDied, match=r"killed \(SIGKILL\)"):
        live.pattern(subject, words(20), 0, 1)
    again = live.pattern(subject, words(20), 0, 1)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert live.worker.pid != pid
    live.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA has limits of its own")
def test_a_process_out_of_memory_says_so(folder: Path) -> None:
    live = Live(memory=150 * 2**20)
    with pytest.raises(WorkerDied, match="memory"):
        live.pattern(Subject(str(folder)), words(120), 0, 1)
    live.close()


@pytest.mark.parametrize("n", [513, 700, 1024])
def test_a_picture_keeps_the_largest_weight_of_each_square(n: int) -> None:
    torch.manual_seed(n)
    q, k = torch.randn(1, 1, n, 8), torch.randn(1, 1, n, 8)
    where = torch.arange(n)[None]
    one = Attention(0, 4 * q, k, k, 0.3, where, where)
    dense = one.dense()[0, 0]
    drawn = picture(one, (0, n), (0, n), 256, 512)
    factor = drawn.factor
    assert factor == -(-n // 512)
    side = -(-n // factor)
    assert tuple(drawn.weights.shape) == (side, side)
    assert drawn.weights.dtype == np.uint8
    for i, j in [(0, 0), (side - 1, side - 1), (side - 1, 0), (side // 2, side // 3)]:
        square = dense[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
        assert abs(int(drawn.weights[i, j]) - float(square.max()) ** 0.5 * 255) <= 0.51
    part = picture(one, (300, 500), (100, 300), 256, 512)
    assert part.factor == 1
    np.testing.assert_allclose(part.weights, dense[300:500, 100:300], atol=1e-6)
    wide = picture(one, (100, 500), (50, 450), 64, 100)
    assert wide.factor == 4
    expected = dense[100:500, 50:450].reshape(100, 4, 100, 4).amax((1, 3))
    np.testing.assert_allclose(wide.weights / 255, expected.sqrt(), atol=0.002)


def test_zooming_takes_whole_squares() -> None:
    whole = Window((0, 1000), (0, 1000))
    assert Window.zoomed((9.6, 19.7), (-0.5, 4.5), 4, whole) == Window((0, 20), (40, 84))
    assert Window.zoomed((-40, 9e9), (7, 3), 4, whole) == Window((12, 32), (0, 1000))
    part = Window((100, 200), (50, 80))
    assert Window.zoomed((3, 5), (99, 120), 1, part) == Window((199, 200), (53, 56))


def test_what_is_kept_of_passes_is_bounded(model: HeadModel) -> None:
    passes = Passes(model, most=3 * 40 * (6 + 2) * 8 * 4)  # three layers of 40 tokens
    ids = tuple(range(3, 43))
    first = passes.attention(ids, 1)
    assert first is passes.attention(ids, 1)
    passes.attention(ids, 0)
    assert passes.run == 1
    passes.attention(ids[:30], 2)
    assert passes.run == 2
    assert sum(x.q.numel() + x.k.numel() for x in passes._kept.values()) * 4 <= passes.most
    passes.attention(ids, 0)
    assert passes.run == 3
    assert first.v.numel() == 0
    assert first.hidden is None


def test_asking_for_patterns_loads_no_torch_here() -> None:
    code = "import sys, headscope_app.live, headscope_app.jobs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
