"""Results that look like those of a scan and of a causal test, from random numbers."""

import numpy as np

from headscope.evals.validation import Condition, Validation
from headscope.headmap import HeadMap, Scores
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
        values[name] = Scores(np.clip(mean + noise, 0, 1).astype(np.float32), "max")
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
    scores = {name: Scores(each.astype(np.float32), "max") for name, each in values.items()}
    return HeadMap(made.info, scores)


def noisy(*means: float, prompts: int = 12, noise: float = 0.05) -> np.ndarray:
    """One layer of heads with exactly these means, and noise over prompts."""
    spread = np.random.default_rng(0).normal(0, noise, (prompts, len(means)))
    return (np.array(means) + spread - spread.mean(0))[:, None]


def a_validation(
    head_map: HeadMap, prompts: int = 8, controls: int = 19, command: str = "headscope validate run"
) -> Validation:
    """A causal test in which the tested heads matter, or one that has not begun."""
    rng = np.random.default_rng(1)
    heads = head_map.heads()

    def condition(kind: str, heads: list[tuple[int, int]], drop: float) -> Condition:
        logp = -np.abs(rng.normal(drop, 0.2, size=prompts))
        return Condition(kind=kind, heads=heads, logp=logp.tolist(), exact=(logp > -1).tolist())

    return Validation(
        model=head_map.info.model.name,
        fingerprint=head_map.info.model.fingerprint,
        role="retrieval",
        mode="mean",
        part="answer",
        seed=0,
        prompts={"family": "needle", "samples": 8, "lengths": [256, 512], "chat": None},
        digests=["t"] * 8,
        answer_tokens=[3] * 8,
        versions={"headscope": "1.2.3"},
        command=command,
        conditions=[
            condition("base", [], 0.1),
            condition("tested", heads[:2], 3.0),
            *(condition("uniform", heads[2:4], 0.2) for _ in range(controls)),
            *(condition("layer_matched", heads[2:4], 0.3) for _ in range(controls)),
        ],
    )
