"""What the order of documents does to a small model that has to find a fact in one of them.

    python benchmarks/findings_order.py --device cuda

The claims, and what decides each, were written before anything was measured. Intervals are 95 %,
over questions: paired bootstrap for nats, paired proportions for shares. Questions: eval
`documents`, 8 documents in 768 tokens, the asked (gold) one in each slot equally often, a choice
among the 8 numbers that they state. Variants are chosen on the split "tune" by the mean change of
the margin, and tested on "test"; --samples questions of "test", half as many of "tune".

Attention sorting (Peysakhovich & Lerer 2023, arXiv 2310.01427), 1, 2 or 5 rounds, best document
last or first; the variant that is best on "tune":

1. It raises the margin of the right answer: the interval of the change lies above 0.
2. It raises the share of right answers.
3. It raises the margin where the gold document stood in the middle (slots 3 to 6 of 8).

Calibrated ranking (Hsieh et al. 2024, arXiv 2406.16008), best last or first, chosen on "tune":

4. It raises the margin.
5. It raises the margin by more than attention sorting does (the variants chosen).
6. Of 10 and of 20 documents (96 tokens each, gold in the middle third), the gold one is more often
   among the 3 with the most calibrated attention than among the 3 with the most attention.
7. Calibrated attention (documents stay, the answer's rows share out their attention on them anew in
   the last half of layers; temperature of 5e-5 or 5e-4, chosen on "tune") raises the margin where
   the gold document stood in the middle.

AttnRank (Attention Basin, arXiv 2508.05128), the profile over all layers measured on the family
`documents`, split "detect", relevance by TF-IDF:

8. Its margin is above that of a random order of the same documents.
9. So is its share of right answers.
10. Its margin is above that with the profile upside down (the most relevant document in the slot
    that gets least attention): whether the profile matters beside the relevance.

All six variants of sorting are shown too, without a verdict: they were not chosen among on "test".
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
from verdicts import Finding, above, print_findings, progress

import headscope
from headscope.evals.documents import Documents
from headscope.evals.drawing import turn
from headscope.evals.gates import mean_interval
from headscope.evals.measured import Measured
from headscope.evals.statistics import paired_proportions
from headscope.interventions.attention_sorting import AttentionSorting
from headscope.interventions.attn_rank import AttnRank
from headscope.interventions.base import Intervention
from headscope.interventions.calibrated_attention import CalibratedAttention
from headscope.interventions.calibrated_ranking import CalibratedRanking
from headscope.interventions.slot_profile import SlotProfile
from headscope.model import HeadModel
from headscope.prompts.documents import Documents as DocumentPrompts

SLOTS, TOKENS, TOP = 8, 96, 3
SORTING = "Peysakhovich & Lerer 2023, arXiv 2310.01427"
CALIBRATED = "Hsieh et al. 2024, arXiv 2406.16008"
BASIN = "Attention Basin, arXiv 2508.05128"
SORTED = {
    f"{rounds} round{'s' if rounds > 1 else ''}, best {best}": AttentionSorting(
        rounds=rounds, best=best
    )
    for rounds in (1, 2, 5)
    for best in ("last", "first")
}
RANKED = {f"calibrated, best {best}": CalibratedRanking(best=best) for best in ("last", "first")}

SHARED = {
    f"calibrated attention, temperature {t:g}": CalibratedAttention(temperature=t)
    for t in (5e-5, 5e-4)
}


class Asked:
    """The eval's questions under some methods: margins and right answers, by method and "base"."""

    def __init__(self, model: HeadModel, task: Documents, methods: Mapping[str, Intervention]):
        result = headscope.evaluate(model, [task], changes=dict(methods), progress=progress)
        self.measured: Measured = result.tasks[0]
        self.names = ["base", *methods]
        for name in self.names:
            nats, right = self.margin(name).mean(), self.right(name).mean()
            print(f"{task.split}, {name}: margin {nats:.3f}, {right:.2f} right", file=sys.stderr)

    def margin(self, name: str) -> np.ndarray:
        return self.measured.values(self.names.index(name))

    def right(self, name: str) -> np.ndarray:
        exact = self.measured.exact(self.names.index(name))
        assert exact is not None
        return exact.astype(float)

    def best(self, names: Sequence[str]) -> str:
        return max(names, key=lambda name: self.margin(name).mean())

    @property
    def middle(self) -> np.ndarray:
        """Questions whose gold document stands in the middle."""
        slots = np.array([facts["slot"] for facts in self.measured.facts])
        return (slots >= SLOTS // 3) & (slots < SLOTS - SLOTS // 3)


def nats(claim: str, source: str, change: np.ndarray, judged: bool = True) -> Finding:
    low, high = mean_interval(change)
    verdict = above(low, high, 0) if judged else "not judged"
    return Finding(claim, source, float(change.mean()), low, high, verdict, 3)


def share(claim: str, source: str, change: np.ndarray) -> Finding:
    low, high = paired_proportions(change)
    return Finding(claim, source, float(change.mean()), low, high, above(low, high, 0), 3)


def ranking(model: HeadModel, samples: int) -> dict[str, Intervention]:
    """AttnRank, its two controls, and what the profile looks like."""
    rounds = max(1, samples // (2 * SLOTS))
    family = DocumentPrompts(
        samples=rounds * SLOTS, documents=SLOTS, document_tokens=TOKENS, split="detect"
    )
    profile = SlotProfile.measure(model, family.prompts(model.tokenizer))
    curve = np.array(profile.values) / np.mean(profile.values)
    print("profile, relative to its mean:", np.round(curve, 2).tolist(), file=sys.stderr)
    upside_down = profile.model_copy(update={"values": tuple(-x for x in profile.values)})
    return {
        "AttnRank": AttnRank(profile=profile),
        "random order": AttnRank(profile=profile, relevance=drawn),
        "upside down": AttnRank(profile=upside_down),
    }


def drawn(question: str, documents: list[str]) -> list[float]:
    rng = Random(question + documents[0])
    return [rng.random() for _ in documents]


def recalls(model: HeadModel, documents: int, samples: int) -> Finding:
    """Whether the gold document is among the top 3, by raw and by calibrated attention."""
    third = documents // 3
    inside = range(third, documents - third)
    task = Documents(
        samples=documents * -(-samples // len(inside)),
        documents=documents, lengths=(documents * TOKENS,), split="test",
    )  # fmt: skip
    found: dict[str, list[bool]] = {"attention": [], "calibrated": []}
    places = [turn(task, index, range(documents)) for index in range(task.samples)]
    middle = [index for index, gold in enumerate(places) if gold in inside]
    for done, index in enumerate(middle, 1):
        scores = CalibratedRanking().scores(model, task.item(index, model.tokenizer).prompt)
        for name, kept in found.items():
            top = np.argsort(-np.array(getattr(scores, name)), kind="stable")[:TOP]
            kept.append(places[index] in top)
        progress(f"recall of {documents}", done, len(middle))
    raw, calibrated = (np.array(kept, dtype=float) for kept in found.values())
    return share(
        f"of {documents} documents, recall@{TOP} of the gold one in the middle by calibrated "
        f"attention ({calibrated.mean():.2f}) is above that by raw attention ({raw.mean():.2f}; "
        f"{len(raw)} questions; of {documents} at random {TOP / documents:.2f})",
        CALIBRATED, calibrated - raw,
    )  # fmt: skip


def findings(model: HeadModel, samples: int) -> list[Finding]:
    task = Documents(samples=samples, documents=SLOTS, lengths=(SLOTS * TOKENS,))
    tune = Asked(
        model, replace(task, split="tune", samples=max(6, samples // 2)), SORTED | RANKED | SHARED
    )
    sorting, calibrated, shared = (tune.best(list(of)) for of in (SORTED, RANKED, SHARED))
    print(f"chosen on tune: {sorting}; {calibrated}; {shared}", file=sys.stderr)
    chosen = {calibrated: RANKED[calibrated], shared: SHARED[shared]}
    ranks = ranking(model, samples)
    test = Asked(model, task, SORTED | chosen | ranks)

    def change(of: Callable[[str], np.ndarray], name: str, before: str = "base") -> np.ndarray:
        return of(name) - of(before)

    base, middle = f"{test.right('base').mean():.2f} right as it is", test.middle
    claim = f"attention sorting ({sorting}) raises the"
    found = [
        nats(f"{claim} margin ({base})", SORTING, change(test.margin, sorting)),
        share(f"{claim} share of right answers", SORTING, change(test.right, sorting)),
        nats(
            f"{claim} margin where the gold document stood in the middle ({middle.sum()} of "
            f"{len(middle)} questions)", SORTING, change(test.margin, sorting)[middle],
        ),
        nats(f"{calibrated}, raises the margin", CALIBRATED, change(test.margin, calibrated)),
        nats(
            f"{calibrated}, raises the margin by more than attention sorting ({sorting})",
            CALIBRATED, change(test.margin, calibrated, sorting),
        ),
        *(recalls(model, documents, samples) for documents in (10, 20)),
        nats(
            f"{shared}, raises the margin where the gold document stood in the middle",
            CALIBRATED, change(test.margin, shared)[middle],
        ),
        nats(
            "AttnRank: the margin is above that of a random order", BASIN,
            change(test.margin, "AttnRank", "random order"),
        ),
        share(
            "AttnRank: the share of right answers is above that of a random order "
            f"({test.right('AttnRank').mean():.2f} against "
            f"{test.right('random order').mean():.2f})",
            BASIN, change(test.right, "AttnRank", "random order"),
        ),
        nats(
            "AttnRank: the margin is above that with the profile upside down", BASIN,
            change(test.margin, "AttnRank", "upside down"),
        ),
    ]  # fmt: skip
    for name in SORTED:
        right = change(test.right, name).mean()
        claim = f"attention sorting, {name}: change of the margin (right answers {right:+.3f})"
        found.append(nats(claim, SORTING, change(test.margin, name), judged=False))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=64)
    options = parser.parse_args(argv)
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    print_findings(findings(model, options.samples))


if __name__ == "__main__":
    main()
