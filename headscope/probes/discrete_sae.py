from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.questions import Questions
from headscope.evals.scoring import Scored, scored
from headscope.model import HeadModel
from headscope.probes.negatives import asked, emptied
from headscope.probes.sparse_autoencoder import Training
from headscope.probes.study import Arrays, Bill, Work, _Study, check_loss, mean_tokens
from headscope.prompts.base import Prompt, PromptFamily

Codes = Int[Tensor, "label pair head"]  # label 0 is positive, 1 its negative
_AFTER = ("subject_1", "described")  # what ioi's and docstring's answers follow from


@dataclass(frozen=True)
class DiscreteSae(_Study):
    """Which heads say on prompts of a behaviour what they never say without it.

    Every prompt is a positive one and has a negative one beside it, that lacks what the answer
    follows from. z of each head at the last row of the prompt, before W_O, is centred over all
    prompts and divided by the root of its mean squared length before that, so that a head counts
    by how much it changes beside how much it says. One sparse autoencoder that all heads share is
    trained on that, of both labels and without them; the code of a head on a prompt is its most
    active feature, or "silent". Codes are read on the prompts that it was trained on.

    With N pairs, u_h is the share of positive prompts whose code head h has on no negative prompt.
    Codes that differ on every prompt make it 1 for a head that knows nothing of labels, so
    score = u_h - e_h, in [-1, 1], where e_h is the mean of u_h over all 2^N ways of swapping the
    labels within pairs: sum over codes c, had by no pair twice, of n_c 2^(-n_c) / N, with n_c
    prompts that have c. It is 0 on average for a head on which labels have no bearing, and at most
    near 1/2 where each positive prompt has a code of its own, at most 1 where they share one.

    Rows are trainings from different seeds. Only pairs count on which the model is right on the
    positive prompt (of a choice: the likeliest answer is a right one; otherwise greedily), and
    surer of its answer there than on the negative one.

    Negatives: prompt i of the family `negatives`; without one, the prompt itself with the spans
    `removed` taken from another prompt (of ioi: a third name in the place of the repeated one, as
    in the ABC prompts of Wang et al. 2022; of docstring: other names than the signature's); where
    it has no such span, its corrupt twin (of greater_than: the year that ends in 01). Where all
    negatives share a token, as that 01, heads that merely read it score too; a twin that only has
    another right answer, as most evals', still shows the behaviour and is a poor negative.

    Source: O'Neill & Bui 2024, arXiv 2405.12522: argmax codes of a sparse autoencoder on outputs
    of heads, the number of codes (of pairs of heads: of code pairs) unique to positive prompts, few
    prompts, ioi, greater-than and docstring. Only its abstract was seen. Headscope's own choices:
    z in the place of other outputs, its scale, sizes and training, shares of prompts, and what they
    are by chance.

    Attributes:
        negatives: a family that has as many prompts as are asked for.
        removed: names of spans; "name" also stands for name_0, name_1, ...
        features, sparsity, steps, batch, lr: see `sparse_autoencoder.Training`.
        repeats: how many autoencoders are trained.
        least: pairs that must count.
        seed: of the autoencoders.
    """

    paper = "after O'Neill & Bui 2024, arXiv 2405.12522"
    answers = "counts prompts that the model answers rightly"
    scores: ClassVar[Mapping[str, str]] = {
        "discrete_sae_unique": "share of positive prompts whose code no negative prompt has, u_h",
        "discrete_sae_codes": "codes that only positive prompts have, over pairs of prompts",
        "discrete_sae_edges": "score of code pairs, mean over all other heads",
    }
    prompts: PromptFamily = field(default_factory=lambda: Questions(samples=32))
    negatives: PromptFamily | None = None
    removed: tuple[str, ...] = _AFTER
    features: int = 200
    sparsity: float = 0.02
    steps: int = 300
    batch: int = 1024
    lr: float = 3e-3
    repeats: int = 5
    least: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.features, self.steps, self.batch, self.repeats, self.least)
        if min(counts) < 1 or self.sparsity < 0 or self.lr <= 0:
            raise HeadscopeError(
                "The probe 'discrete_sae' needs features, steps, batch, repeats and least of at "
                "least 1, lr above 0 and sparsity of at least 0; change that."
            )

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        also = f"{self.repeats} trainings of a small autoencoder of {self.steps} steps"
        return Bill(2 * len(prompts), 0, mean_tokens(prompts), also)

    def check_prompts(self, model: HeadModel, prompts: Sequence[Prompt]) -> None:
        self._enough(sum(negative is not None for _, negative in self._pairs(model, prompts)),
                     len(prompts), "have a negative prompt")  # fmt: skip

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        rows = [_scores(codes) for codes in self.codes(model, prompts, work)]
        return {
            name: rearrange(
                torch.stack([row[name] for row in rows]), "r (l h) -> r l h", h=model.n_heads
            )
            for name in self.score_names()
        }  # fmt: skip

    def codes(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work | None = None
    ) -> list[Codes]:
        """Codes of all heads, layer by layer, from each autoencoder; for `edges`.

        Raises:
            HeadscopeError: too few pairs count, or a loss does not fall.
        """
        work = work or Work()
        pairs = self._pairs(model, prompts)
        usable = [(item, negative) for item, negative in pairs if negative is not None]
        self._enough(len(usable), len(prompts), "have a negative prompt")
        parts = work.each(len(usable), lambda i: _read(model, *usable[i]))
        counted = [part["z"] for part in parts if part["counts"][0]]
        self._enough(
            len(counted), len(prompts),
            "are answered rightly, and less surely without what the answer follows from",
        )  # fmt: skip
        x = scaled(torch.from_numpy(np.stack(counted, 1)).double())
        training = Training(self.features, self.sparsity, self.steps, self.batch, self.lr)
        found: list[Codes] = []
        for repeat in range(self.repeats):
            work.at(repeat, self.repeats)
            kept = work.kept(f"codes-{repeat}")
            if kept is None:
                coder = training.run(x.flatten(0, 2), self.seed + repeat, self._check)
                kept = {"codes": coder.codes(x).numpy()}
                work.keep(f"codes-{repeat}", kept)
            found.append(torch.from_numpy(kept["codes"]))
        work.at(self.repeats, self.repeats)
        return found

    def _check(self, losses: list[float]) -> None:
        check_loss(
            self.name, losses, "the loss of its autoencoder", "use a smaller lr or more steps",
            fall=len(losses) == self.steps > 1,
        )  # fmt: skip

    def _enough(self, count: int, total: int, what: str) -> None:
        if count < self.least:
            raise HeadscopeError(
                f"The probe {self.name!r} compares at least {self.least} prompts with negative "
                f"ones, and {count} of {total} {what}; use more prompts, an easier eval, or a "
                "model that can do it."
            )

    def _pairs(
        self, model: HeadModel, prompts: Sequence[Prompt]
    ) -> list[tuple[Item, Prompt | None]]:
        items = asked(self.prompts, prompts, model.tokenizer)
        if self.negatives is None:
            try:
                return list(zip(items, emptied(items, self.removed), strict=True))
            except HeadscopeError as error:
                raise HeadscopeError(
                    f"The probe {self.name!r} has nothing to hold its prompts against: {error}; "
                    "name a span, or give it a family of negatives."
                ) from error
        family = replace(self.negatives, samples=len(prompts))
        return list(zip(items, family.prompts(model.tokenizer), strict=True))


def _read(model: HeadModel, item: Item, negative: Prompt) -> Arrays:
    """Outputs of all heads at the last row, [label, head, d], and whether the pair counts."""
    prompt = replace(negative, answer_ids=item.prompt.answer_ids)
    z, right = _outputs(model, item)
    without, other = _outputs(model, replace(item, prompt=prompt, corrupt=None))
    if right.margin is None or other.margin is None:
        surer = right.logp > other.logp
    else:
        surer = right.margin > other.margin
    return {"z": torch.stack((z, without)).numpy(), "counts": np.array([right.exact and surer])}


def _outputs(model: HeadModel, item: Item) -> tuple[Float[Tensor, "head d"], Scored]:
    """z at the last row of the prompt, of the passes that score its answers.

    Narrower layers are filled up with zeros.
    """
    found, last = dict[int, Tensor](), len(item.prompt) - 1

    def keep(attended: Attended) -> None:
        rows = (attended.attention.query_positions[0] == last).nonzero()
        if len(rows):
            found[attended.attention.layer] = attended.z[0, :, rows[0, 0]].float().cpu()

    with model.observed(keep):
        (score,) = scored(model, item)
    width = max(z.shape[-1] for z in found.values())
    each = [pad(found[layer], (0, width - found[layer].shape[-1])) for layer in model.layers]
    return torch.cat(each), score


def scaled(z: Float[Tensor, "label pair head d"]) -> Float[Tensor, "label pair head d"]:
    """Each head's outputs less their mean, in units of the root of their mean squared length."""
    size = z.square().sum(-1).mean((0, 1)).sqrt()
    centred = z - z.mean((0, 1))
    return centred / size.clamp(min=torch.finfo(z.dtype).tiny)[:, None]


def edges(codes: Codes) -> Float[Tensor, "head head"]:
    """Of pairs of heads, the score of `DiscreteSae` with pairs of codes in the place of codes.

    Pairs of a head with itself are the head alone. Heads are in the order of their codes.
    """
    unique, chance = _shares(codes)
    return unique - chance


def _scores(codes: Codes) -> dict[str, Float[Tensor, " head"]]:
    unique, chance = _shares(codes)
    excess = unique - chance
    others = max(1, len(excess) - 1)
    return {
        "discrete_sae": excess.diagonal(),
        "discrete_sae_unique": unique.diagonal(),
        "discrete_sae_codes": _count(codes),
        "discrete_sae_edges": (excess.sum(1) - excess.diagonal()) / others,
    }


def _count(codes: Codes) -> Float[Tensor, " head"]:
    """Distinct codes that only positive prompts have, over the number of pairs."""
    positive, negative = codes.tolist()
    heads = zip(zip(*positive, strict=True), zip(*negative, strict=True), strict=True)
    only = [len({*ours} - {*theirs}) for ours, theirs in heads]
    return torch.tensor(only).double() / codes.shape[1]


def _shares(codes: Codes) -> tuple[Float[Tensor, "head head"], Float[Tensor, "head head"]]:
    """u and e of all pairs of heads.

    Two prompts have the same pair of codes where both heads have the same: a product of two
    matrices counts such prompts for all pairs of heads at once.
    """
    n, heads = codes.shape[1:]
    flat = codes.flatten(0, 1)
    unique, chance = codes.new_zeros(2, heads, heads).float()
    for prompt in range(2 * n):
        same = (flat == flat[prompt]).float()  # [prompt, head]
        twice = same[:n] * same[n:]
        # 2^(-n_c) for each prompt that has c adds up to n_c 2^(-n_c).
        often = same.T @ same
        chance += torch.where(twice.T @ twice > 0, 0, 0.5**often)
        if prompt < n:
            unique += same[n:].T @ same[n:] == 0
    return unique / n, chance / n
