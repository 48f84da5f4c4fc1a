"""Results of every kind that have a picture, from random numbers."""

import numpy as np
from made_up import a_map

from headscope.bench.result import Bench, DecodeRow, Timed
from headscope.bench.timing import Spread
from headscope.circuits import Overlap, overlap
from headscope.evals.effects import Effects
from headscope.evals.evaluation import Change, Evaluation
from headscope.evals.measured import Measured
from headscope.evals.measured import Scores as Answers
from headscope.evals.pruned import Order, Pruning
from headscope.headmap import HeadMap
from headscope.joint import JointEffect
from headscope.patch_map import PatchMap
from headscope.patterns.full import Full
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.patterns.streaming import Streaming
from headscope.signals import Signals
from headscope.sparsity.frontier import Made, Pareto, Point
from headscope.sparsity.planned import Plan
from headscope.sparsity.planner import plan
from headscope.sparsity.profile import ProfiledModel, SparseProfile
from headscope.sparsity.recalls import Recalls

CURVES = {
    "basin_slots": 8,
    "waveform_curve": 64,
    "offset_curve": 16,
    "causal_mask_bias_profile": 16,
}
MEASURED = (
    "basin waveform offset distance waad sink hidden_sinks hidden_sink_count sink_newline "
    "sink_punctuation sink_special"
).split()


def a_map_with_curves(
    layers: int = 4, heads: int = 6, kv_heads: int = 2, prompts: int = 6, spec: str = "made-up"
) -> HeadMap:
    """A map of everything that figures of curves ask for."""
    made = a_map(layers, heads, kv_heads, MEASURED, spec)
    rng = np.random.default_rng(1)
    curves = {
        name: rng.beta(2, 5, (prompts, layers, heads, n)).astype(np.float32)
        for name, n in CURVES.items()
    }
    return HeadMap(made.info, made.scores, curves)


def effects(
    model: str = "made-up", questions: int = 12, layers: int = 3, heads: int = 4
) -> Effects:
    """Every head ablated alone; the first harms."""
    places = [(layer, head) for layer in range(layers) for head in range(heads)]
    harm = [0.0, *(1.5 if place == (0, 0) else 0.02 for place in places)]
    return Effects(
        model=model, fingerprint="0" * 64, mode="zero", part="answer", seed=0, heads=places,
        measured=measured("needle", harm, questions), versions={},
    )  # fmt: skip


def measured(name: str, harm: list[float], questions: int, **facts: list) -> Measured:
    """An eval in which each condition costs so many nats."""
    rng = np.random.default_rng(2)
    lost = [np.abs(rng.normal(0.3, 0.1, questions)) + each for each in harm]
    known = [{key: values[i % len(values)] for key, values in facts.items()}
             for i in range(questions)]  # fmt: skip
    return Measured(
        task=name, metric="answer", parameters={},
        digests=[f"{name}{i}" for i in range(max(questions, 1))], facts=known or [{}],
        tokens=[2] * max(questions, 1), chance=0.25,
        scores=[Answers(logp=(-each).tolist(), exact=(each < 1).tolist()) for each in lost],
    )  # fmt: skip


def evaluation(model: str = "made-up", questions: int = 24, changes: int = 2) -> Evaluation:
    """Questions that know where their answer stands."""
    labels = ["base", *(f"change <{i}> of {model}" for i in range(changes))]
    harm = [0.0, 0.5, 0.9][: changes + 1]
    return Evaluation(
        model=model, fingerprint="0" * 64, seed=0, conditions=[Change(label=x) for x in labels],
        tasks=[measured("documents", harm, questions, slot=[0, 1, 2, 3]),
               measured("needle", harm, questions, depth=[0.0, 0.5, 1.0])],
        versions={},
    )  # fmt: skip


def pruning(model: str = "made-up", questions: int = 12) -> Pruning:
    """Two orders and some random ones."""
    places = [(0, h) for h in range(8)]
    orders = [Order(name=f"by {model}", kind="score", heads=places[:6]),
              *(Order(name=f"random {i}", kind="random", heads=places[i : i + 6])
                for i in range(3))]  # fmt: skip
    harm = [0.0, *(0.2 * step * (1 + i / 2) for i in range(len(orders)) for step in (1, 2, 3))]
    return Pruning(
        model=model, fingerprint="f", seed=0, total=8, counts=[2, 4, 6], selection=[],
        orders=orders, tasks=[measured("needle", harm, questions)], versions={},
    )  # fmt: skip


def patched(
    model: str = "made-up", pairs: int = 12, task: str = "ioi", layers: int = 3, heads: int = 4
) -> PatchMap:
    """Each head patched alone, but for the last; the first carries all, the second does harm."""
    sets = [[(layer, head)] for layer in range(layers) for head in range(heads)][:-1]
    return PatchMap(**_patched(model, pairs, task, layers, heads, sets))


def joint(model: str = "made-up", pairs: int = 12, controls: int = 5) -> JointEffect:
    """Two heads together, and random ones."""
    sets = [[(0, 0), (1, 1)], *([(1, i % 4), (2, i % 3)] for i in range(controls))]
    return JointEffect(controls="layer-matched", **_patched(model, pairs, "ioi", 3, 4, sets))


def _patched(model: str, pairs: int, task: str, layers: int, heads: int, sets: list) -> dict:
    rng = np.random.default_rng(len(task))
    share = np.array([0.9, -0.3, *([0.02] * len(sets))])[: len(sets)]
    gap = rng.normal(4, 0.5, pairs)
    noise = rng.normal(0, 0.1, (pairs, len(sets)))
    return {
        "model": model, "fingerprint": "0" * 64, "backend": "hf", "dtype": "float32",
        "layers": list(range(layers)), "n_heads": heads, "n_kv_heads": heads, "task": task,
        "parameters": {}, "direction": "denoising", "seed": 0,
        "digests": [f"{task}{i}" for i in range(max(pairs, 1))], "sets": sets,
        "clean": (gap - 1).tolist(), "corrupt": [-1.0] * pairs,
        "patched": (-1 + gap[:, None] * share + noise).tolist(), "versions": {},
    }  # fmt: skip


def shared(model: str = "made-up") -> Overlap:
    """The circuits of two tasks."""
    return overlap(patched(model), patched(model, task="colored_objects"))


def signals(model: str = "made-up") -> Signals:
    """Heads of three layers, the first of which never fires."""
    rng = np.random.default_rng(0)
    firings = rng.integers(1, 9, (3, 4)).astype(float)
    firings[0, 0] = 0
    given = 0.2 * rng.random((2, 3, 4, 3, 4))
    return Signals(model, (0, 1, 2), 5, 0.7, 0.5, given, firings * 3, firings * 2, firings)


def a_profile(model: str = "made-up", layers: int = 4, heads: int = 6) -> SparseProfile:
    """Three rules, one of them by content."""
    facts = _facts(model, layers, heads)
    rules = (Full(), Streaming(4, 64), VerticalSlash(), Streaming(4, 512))
    grid = [[rules[(i + j) % 4] for j in range(heads)] for i in range(layers)]
    return SparseProfile.of(facts, grid)


def _facts(model: str, layers: int, heads: int) -> ProfiledModel:
    return ProfiledModel(
        name=model, fingerprint="0" * 64, layers=tuple(range(layers)), n_heads=heads,
        n_kv_heads=heads // (3 if heads % 2 else 2), d_head=16,
    )  # fmt: skip


def recalls(model: str = "made-up", layers: int = 4, heads: int = 6) -> Recalls:
    """Four rules on four prompts."""
    rules = (Streaming(4, 16), Streaming(4, 64), Streaming(4, 256), Full())
    kept = np.random.default_rng(0).beta(2, 4, (4, layers, heads, 1)) ** np.array([1, 0.6, 0.3, 0])
    return Recalls.of(_facts(model, layers, heads), rules, [512, 512, 1024, 1024], kept)


def a_plan(model: str = "made-up") -> Plan:
    return plan(recalls(model), "kv=0.5")


def pareto(model: str = "made-up", questions: int = 12) -> Pareto:
    """Two budgets, four kinds of profile, three random ones each."""
    made: list[Made] = ["planner", "score", "uniform", "random", "random", "random"]
    points = [
        Point(name=model if kind == "score" else kind, made=kind, budget=budget,
              share=budget - 0.01, condition=1 + i + len(made) * j,
              profile=SparseProfile.of(_facts(model, 2, 2), {}))
        for j, budget in enumerate((0.3, 0.6))
        for i, kind in enumerate(made)
    ]  # fmt: skip
    harm = [0.0, *(((1 - p.budget) * (0.4 + 0.3 * made.index(p.made))) for p in points)]
    answers = Evaluation(
        model=model, fingerprint="f", seed=0, tasks=[measured("needle", harm, questions)],
        conditions=[Change(label=f"{i}") for i in range(len(harm))], versions={},
    )  # fmt: skip
    return Pareto(
        budget_kind="kv", granularity="kv_head", lengths=(64,), loss="answer", score=model,
        points=tuple(points), evaluation=answers,
    )  # fmt: skip


def decode_bench(mix: str = "a") -> Bench:
    """Decode alone, of two batches."""
    spread = Spread(median=2.0, low=1.9, high=2.1)
    rows = [
        DecodeRow(
            mix=mix, layers=2, rounds=3, n=n, rules={"full": 4}, dense="flash",
            ours=Timed(ms=spread, speedup=spread), others={}, left_out={}, batch=batch,
            bytes_read=1000, bytes_dense=3000, copy_gbs=spread, share=spread,
        )
        for n in (8192, 32768)
        for batch in (1, 8)
    ]  # fmt: skip
    return Bench(
        profile="p", device=mix, dtype="bfloat16", date="2026-01-02", command="bench",
        versions={"torch": "2.11"}, decode=rows,
    )  # fmt: skip
