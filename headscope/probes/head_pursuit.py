from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.norms import Linear
from headscope.probes.readout import token_directions
from headscope.probes.study import Arrays, Bill, Work, _Study, mean_tokens
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.concept_questions import ConceptQuestions
from headscope.pursuit import pursue
from headscope.words import alike, concept, tokens_of, tokens_of_concept
from headscope.written import head_writes

Positions = Literal["last", "mentions", "all"]


@dataclass(frozen=True)
class HeadPursuit(_Study):
    """How much more of what a head writes a concept's words explain than other words do.

    Row n of H is what the head writes at one position, z_n W_O (behind the norm of its outputs
    where there is one, as in Gemma 2 and 3), less its mean over rows. D has a row of length 1 for
    each word of the concept: its row of the unembedding times the gain of the final norm; where
    that norm centres, H and D are centred too. So it does not matter whether a gain stands in the
    norm or in the unembedding, nor what heads write that no logit sees. Simultaneous orthogonal
    matching pursuit chooses `atoms` rows S of D, or all if they are fewer: p = argmax_j
    ||D_j R^T||_1 joins S, and R = H - H_S, with H_S the projection of H onto the span of D_S.

        explained = ||H_S||_F^2 / ||H||_F^2, in [0, 1];
        chance = mean of that over `controls` sets of as many other words of the vocabulary;
        score = explained - chance, in [-1, 1], about 0 for a head that has no concept.

    A head that writes nothing has 0. The mean over rows of scores, one row a prompt, is exactly
    this; row r of explained is s + (e_r - s t_r) / mean(t), with e_r and t_r the prompt's parts of
    both sums and s their ratio, and may lie outside of [0, 1]: the bootstrap over rows is then
    that of a ratio of sums, to first order and with the chosen words kept. Words are chosen on the
    rows that they explain, which is why explained is above 0 for any head, and so is chance.

    Chance also takes off what all words have in common: vectors in the cone of embeddings, as
    heads of the first layer write them where embeddings are tied, are explained by any words. With
    the mean over rows goes what a head says on every prompt, such as the value of a sink or one
    word over and over; a head that says the concept on all of these prompts alike is only found
    with centred=False.

    To change what is found: RescaleConcept(heads, Concept.of(model, words), factor) scales those
    words' part of what heads write, or all of it with whole=True, as the paper does.

    Source: H, D restricted to a concept's tokens, the pursuit and `explained` are those of "Head
    Pursuit", arXiv 2510.21518, of which only the project page was seen; plain=True with
    centred=False is its formula. Headscope's own: chance and what is left beside it, the mean,
    norms and their gains, positions, prompts, words, and the number of atoms. The logit lens is
    one atom on one position.

    Attributes:
        concept: name of a concept, one of `headscope.words.concepts()`; words that are several
            tokens for the model are left out. Questions as prompts ask for it.
        words: words of one's own in its place, each one token behind a space, or token ids.
        atoms: how many words are chosen at most.
        positions: the "last" row of every prompt; "mentions", rows whose next token is one of the
            words, the start of the answer included; or "all".
        most: rows in all, about; as many are drawn from each prompt.
        centred: whether the mean over rows is taken off H.
        plain: whether D is plain rows of the unembedding, without the final norm.
        controls: sets of other words. They look alike: behind a space or not, of letters or not.
        seed: of the controls and of rows.
    """

    paper = "after Head Pursuit 2025, arXiv 2510.21518"
    scores: ClassVar[Mapping[str, str]] = {
        "head_pursuit_explained": "share of what the head writes that the concept's words explain",
        "head_pursuit_chance": "the same of as many other words, mean over sets that are drawn",
    }
    prompts: PromptFamily = field(default_factory=ConceptQuestions)
    concept: str = "colours"
    words: tuple[str | int, ...] = ()
    atoms: int = 16
    positions: Positions = "last"
    most: int = 2048
    centred: bool = True
    plain: bool = False
    controls: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.atoms, self.controls) < 1 or self.most < 2:
            raise HeadscopeError(
                f"The probe {self.name!r} needs atoms and controls of at least 1 and most of at "
                f"least 2, not atoms={self.atoms}, controls={self.controls}, most={self.most}."
            )
        if self.positions not in ("last", "mentions", "all"):
            raise HeadscopeError(
                f"The probe {self.name!r} reads positions 'last', 'mentions' or 'all', not "
                f"{self.positions!r}."
            )
        if not self.words:
            concept(self.concept)
        if isinstance(self.prompts, ConceptQuestions):
            asked = replace(self.prompts, concept=self.concept, words=self.words)
            object.__setattr__(self, "prompts", asked)

    # ---- what it refuses ---------------------------------------------------------------------

    def check_model(self, model: HeadModel) -> None:
        tokens = self._tokens(model)
        others = len(alike(model, tokens))
        if others < len(tokens):
            raise HeadscopeError(
                f"the probe {self.name!r} compares the {len(tokens)} words with as many others, "
                f"and {model.name} has {others}; give it fewer words."
            )
        for layer in model.layers:
            weights = model.weights(layer)
            if weights.output_gate:
                raise HeadscopeError(
                    f"the probe {self.name!r} takes what heads write for z W_O, and {model.name} "
                    f"gates or normalises z before W_O in layer {layer}; leave the probe out."
                )
            if weights.W_O.shape[-1] != len(model.unembed):
                raise HeadscopeError(
                    f"the probe {self.name!r} compares what heads write with rows of the "
                    f"unembedding, and in {model.name} those are {len(model.unembed)} wide and "
                    f"outputs {weights.W_O.shape[-1]}; leave the probe out."
                )
        if not self.plain:
            try:
                _ = model.final_norm
            except HeadscopeError as error:
                raise HeadscopeError(
                    f"the probe {self.name!r} reads words through the final norm: {error} Or give "
                    "it plain=True."
                ) from error

    def check_prompts(self, model: HeadModel, prompts: Sequence[Prompt]) -> None:
        count = sum(len(rows) for rows in self._rows(model, prompts))
        if count < 2:
            raise HeadscopeError(
                f"The probe {self.name!r} needs at least 2 rows, and of these prompts it reads "
                f"{count} (positions={self.positions!r}); use more prompts"
                + (", or positions='last'." if self.positions == "mentions" else ".")
            )

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        words = len(self._tokens(model))
        of = f"{words} words" if self.words else f"{words} words of {self.concept!r}"
        return Bill(
            len(prompts), 0, mean_tokens(prompts), f"a matching pursuit of each head over {of}"
        )

    # ---- what it measures --------------------------------------------------------------------

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "prompt layer head"]]:
        rows = self._rows(model, prompts)
        read = [index for index, some in enumerate(rows) if some]
        parts = work.each(len(read), lambda at: _outputs(model, prompts[read[at]], rows[read[at]]))
        owner = torch.tensor([at for at, index in enumerate(read) for _ in rows[index]])
        atoms, norm = self._atoms(model)
        found = []
        for layer, writes in zip(model.layers, head_writes(model), strict=True):
            z = torch.from_numpy(np.concatenate([part[str(layer)] for part in parts]))
            # Not every device has float64.
            place = writes.W.device if writes.W.is_cuda else torch.device("cpu")
            vectors = writes.scaled(z.to(writes.W.device)).to(place).double()
            W = writes.W.to(place).double()
            W = W if norm is None else norm.moved(W)
            found.append(self._shares(vectors, W, atoms.to(place), owner.to(place)))
        explained, chance = torch.stack(found, 2)
        return {
            "head_pursuit": explained - chance,
            "head_pursuit_explained": explained,
            "head_pursuit_chance": chance,
        }

    def _shares(
        self,
        vectors: Float[Tensor, "n head d"],
        W: Float[Tensor, "head d model"],
        atoms: Float[Tensor, "set atom model"],
        owner: Int[Tensor, " n"],
    ) -> Float[Tensor, "kind prompt head"]:
        """Explained and chance of one layer's heads; the first set of atoms is the concept's."""
        if self.centred:
            vectors = vectors - vectors.mean(0)
        total = einsum(vectors, W @ W.mT, vectors, "n head d, head d e, n head e -> head n")
        shares = []
        for some in atoms:
            explained = pursue(vectors, W @ some.T, some @ some.T, self.atoms).explained
            shares.append(_by_prompt(explained, total, owner))
        return torch.stack((shares[0], torch.stack(shares[1:]).mean(0))).cpu()

    def _atoms(self, model: HeadModel) -> tuple[Float[Tensor, "set atom model"], Linear | None]:
        """The concept's words and as many others for each control; the final norm if it counts."""
        tokens = self._tokens(model)
        others = torch.tensor(alike(model, tokens))
        generator = torch.Generator().manual_seed(self.seed)
        sets = [torch.tensor(tokens)]
        for _ in range(self.controls):
            sets.append(others[torch.randperm(len(others), generator=generator)[: len(tokens)]])
        rows = model.unembed.T
        chosen = torch.stack(sets).to(rows.device)
        if self.plain:
            return normalize(rows[chosen].double().cpu(), dim=-1), None
        words = token_directions(model, chosen.flatten())
        atoms = rearrange(words, "(set atom) model -> set atom model", set=len(sets))
        return normalize(atoms.double().cpu(), dim=-1), Linear.of(model.final_norm, rows)

    def _tokens(self, model: HeadModel) -> tuple[int, ...]:
        if not self.words:
            return tokens_of_concept(model, self.concept)
        return tokens_of(model, self.words)

    def _rows(self, model: HeadModel, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Which rows of each prompt are read."""
        wanted = {*self._tokens(model)} if self.positions == "mentions" else set()
        share = max(1, self.most // len(prompts))
        generator = torch.Generator().manual_seed(self.seed)
        found = []
        for prompt in prompts:
            rows = [len(prompt) - 1]
            if self.positions != "last":
                after = (*prompt.token_ids[1:], *prompt.answer_ids[:1])
                rows = [row for row, token in enumerate(after) if token in wanted]
            if self.positions == "all":
                rows = list(range(len(prompt)))
            order = torch.randperm(len(rows), generator=generator)[:share].sort().values
            found.append([rows[at] for at in order])
        return found


def _outputs(model: HeadModel, prompt: Prompt, rows: list[int]) -> Arrays:
    """z of all heads at some rows, by layer, [row, head, d]."""
    found: Arrays = {}

    def keep(attended: Attended) -> None:
        z = attended.z[0, :, rows].transpose(0, 1)
        found[str(attended.attention.layer)] = z.detach().float().cpu().contiguous().numpy()

    with model.observed(keep):
        model.forward(prompt.token_ids, last=1)
    return found


def _by_prompt(
    explained: Float[Tensor, "head n"], total: Float[Tensor, "head n"], owner: Int[Tensor, " n"]
) -> Float[Tensor, "prompt head"]:
    """For each prompt a number, whose mean is the share that is explained of all prompts."""
    count = int(owner.max()) + 1
    e, t = (x.new_zeros(len(x), count).index_add_(1, owner, x) for x in (explained, total))
    mean = t.mean(1, keepdim=True).clamp(min=torch.finfo(t.dtype).tiny)
    share = (e.mean(1, keepdim=True) / mean).clamp(max=1)
    return (share + (e - share * t) / mean).T
