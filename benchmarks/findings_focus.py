"""What trained directions and edits of head outputs do to a small model.

    python benchmarks/findings_focus.py --device cuda

The claims, and what decides each, were written before anything was measured. Intervals are 95 %,
paired over prompts.

Focus directions (Zhu et al. 2025, arXiv 2503.23306). The 20 most contextual heads of a scan of the
prompts `documents` (split "detect") get directions for their queries, trained on other such prompts
(split "tune"; AdamW, lr 1e-3, 10 epochs as there, two prompts a step). The factor, of 0.2, 0.5, 1,
2 and 4, is the one with the largest mean margin on the eval `documents`, split "tune". On "test":

1. They raise the attention of these heads on the gold document in the rows that make the answer of
   new prompts `documents`: the interval of the difference lies above 0.
2. They raise it by more than vectors of the same lengths in random directions (mean of 3 draws),
   and than the same vectors with the signs of their entries drawn anew (mean of 3 draws).
3. They raise the margin of the right answer of the eval `documents`: the interval lies above 0.
   The change in right answers stands beside it.
4. They raise the margin by more than both controls.

Rescaling a concept (after Head Pursuit, arXiv 2510.21518: 1 % of the heads are enough). The concept
is nine words for colours; the prompts are 16 sentences that ask for one ("The grass in spring is"),
and 16 others to choose by. On those the 3 heads of 270 are taken that write most of the words'
logits directly, above what they write for the mean token.

5. Factors of -1 and 0 lower the log-probability of the words together, 2 and 5 raise it: the
   interval lies on that side of 0, and p <= 0.05 against up to 20 other triples of the same layers
   at the same factor (one-sided, p = (1 + those that do as much) / (1 + triples)).

ITI (Li et al. 2023, arXiv 2306.03341) with as few heads: 3, alpha 15 as there. Directions lead from
sentences of dislike to sentences of liking (24 each, of different words, all ending alike); new
prompts say neither. (A trial in which each kind had three phrases, so that probes were tested on
phrases that they had seen, had all probes always right, and took heads of the first layer by their
order; it moved nothing. The 24 phrases took their place before this was run again.)

6. It raises the log-odds of words of praise over words of blame: the interval lies above 0, and
   p <= 0.05 as in 5 against 20 triples of the same layers with directions of their own.
7. It raises them by more than random directions in the same 3 heads: the interval of the difference
   from the mean of 20 draws lies above 0.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import torch
from verdicts import Finding, above, below, print_findings, progress

import headscope
from headscope.engines import Attended
from headscope.evals.controls import layer_matched_sets
from headscope.evals.documents import Documents
from headscope.evals.gates import mean_interval
from headscope.evals.measured import Measured
from headscope.evals.statistics import empirical_p, paired_proportions
from headscope.heads import Head, label
from headscope.interventions.base import Intervention
from headscope.interventions.concept import Concept
from headscope.interventions.directions import Directions
from headscope.interventions.focus_directions import FocusDirections
from headscope.interventions.iti import ITI
from headscope.interventions.output_directions import OutputDirections, last_outputs
from headscope.interventions.rescale_concept import RescaleConcept
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.documents import Documents as DocumentPrompts

HEADS, FACTORS, DRAWS = 20, (0.2, 0.5, 1.0, 2.0, 4.0), 3
TRIPLE, SETS, SCALES, ALPHA = 3, 20, (-1.0, 0.0, 2.0, 5.0), 15.0
ZHU, PURSUIT, LI = "Zhu et al. 2025, arXiv 2503.23306", "arXiv 2510.21518", "arXiv 2306.03341"

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple")
ASKING = {
    "tune": (
        "The colour of a ripe tomato is", "The clear sky at noon is", "Fresh snow is always",
        "Her new dress was bright", "The walls of the kitchen were painted", "A raven is",
        "The school bus was", "The leaves in summer are", "He bought a car that was",
        "The ink in the pen was", "The flag was half white and half", "Milk is",
        "The tiger has stripes that are", "The cherry on the cake was",
        "She dyed her hair", "The old barn door was painted",
    ),
    "test": (
        "The colour of a ripe lemon is", "The grass in spring is", "The colour of coal is",
        "His eyes were a deep", "The front door of the house was painted", "A swan is",
        "The fire engine was", "The sea on a sunny day is", "She wore a hat that was",
        "The bark of the tree is", "The traffic light turned", "Flour is",
        "The zebra has stripes that are", "The strawberry in the bowl was",
        "The horse in the field was", "He painted the fence",
    ),
}  # fmt: skip

LIKED = (
    "loved every minute of it", "could not have been happier", "was full of praise",
    "clapped and cheered for a long time", "went home smiling", "wanted to come again",
    "told their friends to go", "thanked us warmly", "laughed with joy", "gave it five stars",
    "felt lucky to be there", "enjoyed themselves", "was delighted", "was deeply impressed",
    "found it charming", "admired the skill behind it", "hoped that it would never end",
    "left in high spirits", "thought it was money well spent", "had the time of their lives",
    "was pleasantly surprised", "fell in love with it", "could only recommend it",
    "agreed that it was a triumph",
)  # fmt: skip
HATED = (
    "hated every minute of it", "could not have been angrier", "was full of scorn",
    "booed and shouted for a long time", "went home in tears", "wanted their money back",
    "warned their friends to stay away", "complained loudly", "yawned and looked away",
    "gave it one star", "felt sorry to be there", "suffered in silence", "was disgusted",
    "was deeply disappointed", "found it tedious", "mocked the clumsy work behind it",
    "hoped that it would soon be over", "left in a foul mood", "thought it was a waste of money",
    "had a miserable day", "was badly let down", "grew sick of it", "could only advise against it",
    "agreed that it was a disaster",
)  # fmt: skip
TOLD = ("film", "book", "concert", "meal", "hotel", "lecture", "trip", "party")
NEW = (
    "play", "game", "song", "garden", "speech", "museum", "dinner", "story", "match", "show",
    "course", "exhibition", "restaurant", "beach", "poem", "festival",
)  # fmt: skip
PRAISE = ("good", "great", "wonderful", "excellent", "amazing", "beautiful")
BLAME = ("bad", "terrible", "awful", "boring", "poor", "horrible")


def training(done: int, total: int) -> None:
    progress("layers trained", done, total)


def gain(claim: str, source: str, change: np.ndarray, p: float = nan, up: bool = True) -> Finding:
    """A mean change that is claimed to be above 0, or below it; p is that of controls."""
    low, high = mean_interval(change)
    verdict = above(low, high, 0) if up else below(low, high, 0)
    if p > 0.05:
        verdict = "not reproduced" if verdict == "reproduced" else verdict
    claim = claim if np.isnan(p) else f"{claim} (p = {p:.3f})"
    return Finding(claim, source, float(change.mean()), low, high, verdict, 3)


# ---- focus directions ------------------------------------------------------------------------


def signs(directions: Directions, seed: int) -> Directions:
    """The same vectors with the signs of their entries drawn anew."""
    drawn = torch.randint(2, directions.q.shape, generator=torch.Generator().manual_seed(seed))
    return replace(directions, q=directions.q * (2 * drawn - 1))


@torch.no_grad()
def gold_mass(
    model: HeadModel, method: FocusDirections | None, prompts: Sequence[Prompt], heads: set[Head]
) -> np.ndarray:
    """Attention of some heads on each prompt's gold document, in the rows that make the answer."""
    found = []
    for prompt in prompts:
        masses: list[torch.Tensor] = []

        def look(attended: Attended, prompt=prompt, kept=masses) -> None:
            attention = attended.attention
            mine = [head for layer, head in heads if layer == attention.layer]
            if mine:
                rows = range(len(prompt) - 1, attention.n_queries)
                kept.append(attention.mass(slice(*prompt.span("gold")), rows)[0, mine].mean(-1))

        ids = [*prompt.token_ids, *prompt.answer_ids[:-1]]
        with nullcontext() if method is None else method(model), model.observed(look):
            model.forward(ids, prompt_length=len(prompt), last=1)
        found.append(float(torch.cat(masses).mean()))
    return np.array(found)


def margins(
    model: HeadModel, task: Documents, methods: Mapping[str, Intervention]
) -> tuple[Measured, dict[str, np.ndarray]]:
    """The eval, and by method the change of each question's margin."""
    done = headscope.evaluate(model, [task], changes=dict(methods), progress=progress).tasks[0]
    for at, name in enumerate(("base", *methods)):
        share = right(done, at).mean()
        print(f"{task.split}, {name}: margin {done.values(at).mean():.3f}, {share:.2f} right",
              file=sys.stderr)  # fmt: skip
    return done, {n: done.values(at) - done.values(0) for at, n in enumerate(methods, 1)}


def right(done: Measured, condition: int) -> np.ndarray:
    exact = done.exact(condition)
    assert exact is not None
    return exact.astype(float)


def trained(model: HeadModel, prompts: int) -> Directions:
    family = DocumentPrompts(samples=max(8, prompts // 4), split="detect")
    top = headscope.scan(model, ["contextual"], prompts=family, progress=progress).top(
        "contextual", HEADS
    )
    heads = list(zip(top["layer"].tolist(), top["head"].tolist(), strict=True))
    print("contextual heads:", ", ".join(map(label, heads)), file=sys.stderr)
    on = DocumentPrompts(samples=prompts, split="tune").prompts(model.tokenizer)
    directions = Directions.train(model, on, heads, batch=2, progress=training)
    facts, length = directions.facts, directions.q.norm(dim=1).mean()
    print(f"mass in training {facts.before:.3f} -> {facts.after:.3f} at factor 1, each layer by "
          f"itself; mean length {length:.2f}", file=sys.stderr)  # fmt: skip
    return directions


def focus(model: HeadModel, samples: int, prompts: int) -> list[Finding]:
    directions = trained(model, prompts)
    methods = {f"factor {f}": FocusDirections(directions, factor=f) for f in FACTORS}
    _, tuned = margins(model, Documents(samples=max(6, samples // 2), split="tune"), methods)
    best = max(tuned, key=lambda name: tuned[name].mean())
    controls = {
        kind: [replace(methods[best], directions=draw(seed)) for seed in range(DRAWS)]
        for kind, draw in (
            ("random directions", directions.random),
            ("random signs", lambda seed: signs(directions, seed)),
        )
    }
    flat = {f"{kind} {i}": m for kind, each in controls.items() for i, m in enumerate(each)}

    held = DocumentPrompts(samples=samples, split="test").prompts(model.tokenizer)
    heads = set(directions.heads)
    base = gold_mass(model, None, held, heads)
    moved = {
        name: gold_mass(model, method, held, heads) - base
        for name, method in {"trained": methods[best], **flat}.items()
    }
    done, change = margins(
        model, Documents(samples=samples, split="test"), {"trained": methods[best], **flat}
    )
    exact = right(done, 1) - right(done, 0)
    low, high = paired_proportions(exact)
    what = f"focus directions ({best}, {len(heads)} heads)"
    return [
        gain(f"{what} raise attention on the gold document (from {base.mean():.3f})", ZHU,
             moved["trained"]),
        *_over(controls, "and by more than", moved),
        gain(f"{what} raise the margin of the right answer, in nats", ZHU, change["trained"]),
        Finding(f"change in right answers (from {right(done, 0).mean():.2f})", ZHU,
                float(exact.mean()), low, high, "beside the margin"),
        *_over(controls, "the margin rises by more than with", change),
    ]  # fmt: skip


def _over(
    controls: Mapping[str, Sequence[Intervention]], claim: str, change: Mapping[str, np.ndarray]
) -> list[Finding]:
    return [
        gain(f"{claim} {kind}", ZHU,
             change["trained"] - np.mean([change[f"{kind} {i}"] for i in range(len(each))], axis=0))
        for kind, each in controls.items()
    ]  # fmt: skip


# ---- outputs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Short prompts, padded on the left, and what is asked of the token behind each."""

    ids: torch.Tensor
    mask: torch.Tensor
    target: Callable[[torch.Tensor], torch.Tensor]  # log-probabilities [prompt, vocab] -> [prompt]

    @classmethod
    def of(
        cls,
        model: HeadModel,
        texts: Sequence[str],
        target: Callable[[torch.Tensor], torch.Tensor],
    ) -> "Batch":
        rows = [model.tokens(text)[0].tolist() for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return cls(ids, mask, target)

    @torch.no_grad()
    def asked(self, model: HeadModel, method: Intervention | None = None) -> np.ndarray:
        with nullcontext() if method is None else method(model):
            logits = model.forward(
                self.ids,
                attention_mask=self.mask,
                prompt_length=self.mask.sum(1).to(model.device),
                last=1,
            )[:, 0]
        return self.target(logits.double().log_softmax(-1)).cpu().numpy()


def together(concept: Concept) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda logp: logp[:, list(concept.tokens)].logsumexp(-1)


def writers(model: HeadModel, concept: Concept) -> tuple[Head, ...]:
    """The heads that give the words' logits most, above the mean token's, in the last row."""
    z = last_outputs(
        model, [Prompt(tuple(model.tokens(text)[0].tolist())) for text in ASKING["tune"]]
    ).mean(0)
    unembed = model.unembed.detach().double().cpu()
    way = unembed[:, list(concept.tokens)].mean(1) - unembed.mean(1)
    given = {}
    for (layer, head), mean in zip(model.heads, z, strict=True):
        W_O = model.weights(layer).W_O[head].detach().double().cpu()
        given[layer, head] = float(torch.from_numpy(mean) @ W_O @ way)
    return tuple(sorted(sorted(given, key=lambda head: -given[head])[:TRIPLE]))


def concept(model: HeadModel) -> list[Finding]:
    colours = Concept.of(model, COLOURS)
    heads = writers(model, colours)
    sets = layer_matched_sets(model.heads, heads, SETS)
    batch = Batch.of(model, ASKING["test"], together(colours))
    base, found = batch.asked(model), []
    print(f"colours: log-probability {base.mean():.2f} without a change", file=sys.stderr)
    for factor in SCALES:
        up = factor > 1
        change = batch.asked(model, RescaleConcept(heads, colours, factor)) - base
        others = np.array([
            (batch.asked(model, RescaleConcept(each, colours, factor)) - base).mean()
            for each in sets
        ])  # fmt: skip
        sign = 1 if up else -1
        p = empirical_p(sign * float(change.mean()), sign * others)
        claim = f"colours in {', '.join(map(label, heads))} times {factor:g}: their log-probability"
        found.append(gain(f"{claim} {'rises' if up else 'falls'}", PURSUIT, change, p, up))
    return found


def opinions(model: HeadModel, views: Sequence[str]) -> list[Prompt]:
    told = [(view, TOLD[i % len(TOLD)]) for i, view in enumerate(views)]
    texts = [f"We were at the {each} and everyone {view}. The {each} was" for view, each in told]
    return [Prompt(tuple(model.tokens(text)[0].tolist())) for text in texts]


def part_of(directions: OutputDirections, heads: Sequence[Head]) -> OutputDirections:
    """The directions of some of the heads."""
    facts = directions.facts
    at = [facts.heads.index(head) for head in heads]
    kept = {"heads": tuple(heads), "accuracy": tuple(facts.accuracy[i] for i in at)}
    return OutputDirections(
        directions.theta[at], directions.sigma[at], facts.model_copy(update=kept)
    )


def liking(model: HeadModel) -> list[Finding]:
    every = OutputDirections.train(
        model, opinions(model, LIKED), opinions(model, HATED), count=len(model.heads)
    )
    heads = every.facts.heads[:TRIPLE]
    good, bad = (list(Concept.of(model, words).tokens) for words in (PRAISE, BLAME))
    batch = Batch.of(
        model,
        [f"We were at the {each} and everyone saw it. The {each} was" for each in NEW],
        lambda logp: logp[:, good].logsumexp(-1) - logp[:, bad].logsumexp(-1),
    )
    base = batch.asked(model)

    def moved(directions: OutputDirections) -> np.ndarray:
        return batch.asked(model, ITI(directions, alpha=ALPHA)) - base

    mine = part_of(every, heads)
    change = moved(mine)
    sets = layer_matched_sets(model.heads, heads, SETS)
    others = np.array([moved(part_of(every, each)).mean() for each in sets])
    drawn = np.mean([moved(mine.random(seed)) for seed in range(SETS)], axis=0)
    shares = ", ".join(f"{label(h)} {a:.2f}" for h, a in zip(heads, mine.facts.accuracy,
                                                             strict=True))  # fmt: skip
    print(f"held-out accuracy of the probes: {shares}; log-odds {base.mean():.2f} without a change",
          file=sys.stderr)  # fmt: skip
    claim = f"ITI in {', '.join(map(label, heads))}, alpha {ALPHA:g}: the log-odds of praise rise"
    p = empirical_p(float(change.mean()), others)
    return [
        gain(claim, LI, change, p),
        gain("and by more than along random directions in the same heads", LI, change - drawn),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--train", type=int, default=96, help="prompts that directions learn from")
    options = parser.parse_args(argv)
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    print_findings(
        [
            *concept(model),
            *liking(model),
            *focus(model, options.samples, options.train),
        ]
    )


if __name__ == "__main__":
    main()
