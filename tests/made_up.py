"""Results that look like those of a scan and of a causal test, from random numbers."""

import numpy as np

from headscope.evals.base import Metric
from headscope.evals.conditions import CONTROLS, Condition, ControlKind, Kind
from headscope.evals.evaluation import Change, Evaluation
from headscope.evals.measured import Measured, Scores
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.headmap import Scores as HeadScores
from headscope.runinfo import FamilyInfo, ModelInfo, RunInfo, ScoreInfo

NAMES = (
    "duplicate_token induction previous_token needle_mass retrieval sink sink_rate streaming"
).split()

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\x1b"


def a_map(
    layers: int | list[int] = 4,
    heads: int = 6,
    kv_heads: int = 2,
    scores: list[str] = NAMES,
    spec: str = "made-up",
    command: str = "headscope scan made-up --out run",
) -> HeadMap:
    """A head map of random scores, some of them above every threshold."""
    rows = list(range(layers)) if isinstance(layers, int) else layers
    rng = np.random.default_rng(0)
    values = {}
    for name in scores:
        mean = rng.beta(0.6, 1.2, size=(1, len(rows), heads))
        noise = 0.05 * rng.normal(size=(6, len(rows), heads))
        values[name] = HeadScores(np.clip(mean + noise, 0, 1).astype(np.float32), "max")
    prompts = {"samples": 6, "seed": 0, "lengths": [512], "path": command}
    info = RunInfo(
        state="complete",
        model=ModelInfo(
            spec=spec, name=spec, revision="c0ffee", fingerprint="0" * 64, layers=rows,
            n_heads=heads, n_kv_heads=kv_heads, d_head=64, context_length=8192, parameters=10**9,
        ),
        backend="hf",
        dtype="float32",
        device="cpu",
        seed=0,
        probes={name: {"prompts": {"family": "text", **prompts}} for name in scores},
        scores={name: ScoreInfo(probe=name, kv_view="max") for name in scores},
        families={
            "text-0": FamilyInfo(
                family="text", parameters=prompts, digests=["d"] * 6,
                accepted=[True] * 5 + [False], seconds=83.0,
            )
        },
        versions={"headscope": "1.2.3", "torch": "9.9"},
        command=command,
        created="2026-11-22T20:07:12+00:00",
    )  # fmt: skip
    return HeadMap(info, values)


def with_values(values: dict[str, np.ndarray], kv_heads: int | None = None) -> HeadMap:
    """A map of these scores, [prompt, layer, head] each."""
    layers, heads = next(iter(values.values())).shape[1:]
    made = a_map(layers, heads, kv_heads or heads, list(values))
    scores = {name: HeadScores(each.astype(np.float32), "max") for name, each in values.items()}
    return HeadMap(made.info, scores)


def noisy(*means: float, prompts: int = 12, noise: float = 0.05) -> np.ndarray:
    """One layer of heads with exactly these means, and noise over prompts."""
    spread = np.random.default_rng(0).normal(0, noise, (prompts, len(means)))
    return (np.array(means) + spread - spread.mean(0))[:, None]


def a_validation(
    head_map: HeadMap,
    prompts: int = 8,
    controls: int = 19,
    command: str = "headscope validate run",
    kinds: tuple[ControlKind, ...] = CONTROLS,
    doses: tuple[int, ...] = (1, 4),
    evals: tuple[str, ...] = ("needle", "ioi", "perplexity"),
    base: float = 0.1,
) -> Validation:
    """A causal test in which the tested heads matter to two of three evals, or one cut short.

    Args:
        prompts: how many of the first eval's 8 questions are measured, and of the others' if all.
        base: nats that the right answer costs where nothing is ablated; above 1 it is wrong.
    """
    heads = head_map.heads()
    sets: list[tuple[Kind, int, int]] = [("base", 0, 1), ("tested", 2, 1)]
    sets += [(kind, 2, controls) for kind in kinds]
    sets += [("tested", k, 1) for k in doses]
    shared = sum(n for _, _, n in sets)
    sets += [(kind, k, controls) for k in doses for kind in kinds]
    conditions = [
        Condition(kind=kind, k=k, heads=heads[:k] if kind == "tested" else heads[4 : 4 + k])
        for kind, k, n in sets
        for _ in range(n)
    ]
    tasks = []
    for name in evals:
        spared = name == "perplexity"
        known = conditions[:shared] if spared else conditions
        asked = prompts if name == evals[0] or prompts == 8 else 0
        tasks.append(_measured(name, known, asked, base))
    return Validation(
        model=head_map.info.model.name,
        fingerprint=head_map.info.model.fingerprint,
        role="retrieval",
        k=2,
        mode="mean",
        part="answer",
        seed=0,
        conditions=conditions,
        targets=sum(name != "perplexity" for name in evals),
        tasks=tasks,
        versions={"headscope": "1.2.3"},
        command=command,
    )


def an_evaluation(prompts: int = 8, changes: int = 1) -> Evaluation:
    """Three evals under no change and some that do harm."""
    change = Condition(kind="tested", k=2, heads=[(0, 0), (0, 1)])
    conditions = [Condition(kind="base", k=0, heads=[]), *[change] * changes]
    return Evaluation(
        model="made-up",
        fingerprint="0" * 64,
        seed=0,
        conditions=[Change(label="base"), *(Change(label=f"<{i}>") for i in range(changes))],
        tasks=[
            _measured(name, conditions, prompts if name == "needle" or prompts == 8 else 0, 0.1)
            for name in ("needle", "ioi", "perplexity")
        ],
        versions={"headscope": "1.2.3"},
    )


def _measured(name: str, conditions: list[Condition], prompts: int, base: float) -> Measured:
    """An eval of 8 questions, of which so many are measured: two lengths, 3 tokens an answer."""
    rng = np.random.default_rng(1)
    metric: Metric = {"ioi": "choice", "perplexity": "tokens"}.get(name, "answer")
    scores = []
    for condition in conditions:
        harm = {"base": 0.0, "tested": 1.5 * condition.k}.get(condition.kind, 0.1 * condition.k)
        # Random sets differ, and more of larger ones.
        harm *= rng.uniform(0, 4) if condition.kind in CONTROLS else 1.0
        lost = base + harm * (0.002 if metric == "tokens" else 1.0)
        noise = 0.002 if metric == "tokens" else 0.2
        logp = -np.abs(rng.normal(lost, noise, size=prompts))
        exact = [] if metric == "tokens" else (logp > -1).tolist()
        scores.append(
            Scores(
                logp=logp.tolist(),
                exact=[False] * prompts if metric == "tokens" else exact,
                margin=(logp + 1).tolist() if metric == "choice" else [],
            )
        )
    return Measured(
        task=name,
        metric=metric,
        parameters={"samples": 8, "lengths": [256, 512], "chat": None, "split": "test"},
        digests=["t"] * 8,
        facts=[{"length": (256, 512)[i % 2]} for i in range(8)],
        tokens=[3] * 8,
        chance=0.25 if metric == "choice" else 0.0,
        scores=scores,
    )
