"""Small models built by hand, whose heads provably do one thing.

Every feature of the residual stream owns a few directions, drawn at random, orthonormal and of
zero mean, so that a LayerNorm is an RMSNorm to them: a large constant, which also keeps the norm
of the stream steady; the code of the token; its tag, which is a topic or the number of a title; the
codes of the tokens one and two places before, empty until a head in the first half of the layers
has fetched them; how early a token stands, counted by another such head; and what the unembedding
reads. A head chooses its keys in three ways, each in query and key dimensions of its own:

- by distance: a sum of a_f cos(f (i - j) + phi_f), fitted to the logits wanted at each distance;
- by content: what the query is, its token or its tag, against one feature of the key;
- by what the key is: a constant query against one dimension of a feature.

One key serves all three, so that the query heads of one group may differ. What every head is, and
hence which must score high on which probe, is drawn before any weight is made: the kinds stand in
`organism_kinds`, what probes must make of them in `organism_truths`.
"""

import math
from dataclasses import dataclass

import torch
from organism_clock import D_HEAD, PAIRS, Clock
from organism_kinds import (
    BOS,
    CODE,
    CONTEXT,
    EOS,
    EVERY_KIND,
    FEW_KINDS,
    FILLER,
    KINDS,
    NEWLINE,
    NEWLINE_CODE,
    PAD,
    SINKS,
    SMALL,
    START,
    STOP,
    STOP_CODE,
    TAGS,
    TITLES,
    TOPICS,
    VOCAB,
    WINDOW,
    Kind,
    Roster,
    organism_tokenizer,
    topic_words,
)
from organism_truths import TRUTHS
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize, one_hot, pad
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

__all__ = [
    "BOS", "FILLER", "SINKS", "VOCAB", "WINDOW", "Organism", "Place", "learned_position_organism",
    "organism_tokenizer", "rope_organism", "whole_organism",
]  # fmt: skip

Place = tuple[int, int]  # (layer, head)

_CONSTANT = 6.0  # length of the constant, where a code has length 1
_KEY = 20.0  # length of each part of a key: a logit is shared about evenly by query and key
_VALUE = 2.0  # length of a value, so that noise does not hide what values say
_WRITTEN = 2.0  # length of a code in the stream: noise in what heads write is small next to it
_RANDOM = 4.0  # about the standard deviation of the logits of a noise head
# What a key is known by, each with the feature of the query that it is held against.
_MATCHED = {
    "token": "token", "previous": "token", "earlier": "token", "tag": "tag", "early": "early",
    "age": "age",
}  # fmt: skip
_FEATURES = {
    "constant": 1, "position": 2 * PAIRS, "token": CODE, "previous": CODE, "earlier": CODE,
    "tag": TAGS, "early": 1, "age": 1, "output": CODE,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Organism:
    """A model whose heads are known.

    Attributes:
        kinds: what each head was built as; "noise" if its weights are random.
        roles: by probe, the heads that must score high on it, also where it is not what they were
            built for; `streaming` is declared for SINKS first tokens and a window of WINDOW.
        either: by probe, the heads of which it is not said.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    kinds: dict[Place, str]
    roles: dict[str, frozenset[Place]]
    either: dict[str, frozenset[Place]]

    def others(self, probe: str) -> frozenset[Place]:
        """The heads that must score low on a probe."""
        return frozenset(self.kinds) - self.roles[probe] - self.either[probe]

    def auc(self, probe: str, score: Tensor) -> float | None:
        """Share of pairs of a head that must score high and one that must not, in right order.

        Args:
            score: [layer, head]; ties count half.

        Returns:
            The area under the ROC curve, or nothing if no two heads may be compared.
        """
        right = [
            float(score[high] > score[low]) + 0.5 * float(score[high] == score[low])
            for high in self.roles[probe]
            for low in self.others(probe)
            if high[0] == low[0] or not TRUTHS[probe].within_layers
        ]
        return sum(right) / len(right) if right else None


@torch.no_grad()
def rope_organism(seed: int, noise: float = 0.1) -> Organism:
    """A Llama of 4 layers, 8 query heads and 4 KV heads: a few kinds, for quick tests.

    See `whole_organism`.
    """
    return _llama(seed, noise, (4, 8, 4), SMALL)


@torch.no_grad()
def whole_organism(seed: int, noise: float = 0.1) -> Organism:
    """A Llama of 6 layers, 10 query heads and 5 KV heads with heads of every kind.

    It reads distances off the rotation. Fast pairs of dimensions hold constants and see nothing
    but distance; slow pairs hold codes and hardly turn within the context. The start is known by
    its token, so prompts need BOS.

    Args:
        seed: of the places, the codes, the directions and the noise.
        noise: Gaussian noise of standard deviation noise / sqrt(d_model) is added to every
            weight, which moves every output of a projection by about `noise`.
    """
    return _llama(seed, noise, (6, 10, 5), EVERY_KIND)


def _llama(seed: int, noise: float, shape: tuple[int, int, int], roster: Roster) -> Organism:
    theta, d_model = 1e11, 240
    layers, heads, kv_heads = shape
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=d_model, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=D_HEAD,
        tie_word_embeddings=False, max_position_embeddings=CONTEXT, pad_token_id=PAD,
        bos_token_id=BOS, eos_token_id=EOS,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )  # fmt: skip
    hf = _blank(LlamaForCausalLM(config))
    plan = _Plan(seed, shape, d_model, roster)
    plan.codes[BOS] = plan.start
    clock = Clock(
        frequencies=theta ** (-torch.arange(PAIRS) / (D_HEAD // 2)),
        rows=torch.eye(2)[0].repeat(PAIRS)[:, None] * plan.reads("constant") / PAIRS**0.5,
        # Llama turns dimension t together with dimension t + d/2.
        order=torch.arange(D_HEAD).reshape(2, -1).T.flatten(),
    )
    hf.model.embed_tokens.weight.copy_(plan.embedding())
    hf.lm_head.weight.copy_(plan.unembedding())
    for layer, block in enumerate(hf.model.layers):
        at = block.self_attn
        for module, weight in zip(
            (at.q_proj, at.k_proj, at.v_proj, at.o_proj), plan.weights(layer, clock), strict=True
        ):
            module.weight.copy_(weight)
    return plan.grown(hf, noise)


@torch.no_grad()
def learned_position_organism(seed: int, noise: float = 0.1) -> Organism:
    """A GPT-2 of 4 layers and 6 heads that reads distances off its position embeddings.

    Positions are codes of sines and cosines in directions of their own. The start is known by its
    position, whatever its token. It has not heads of every kind.

    Args:
        seed: of the places, the codes, the directions and the noise.
        noise: Gaussian noise of standard deviation noise / sqrt(d_model) is added to every
            weight, which moves every output of a projection by about `noise`.
    """
    d_model = 6 * D_HEAD
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=d_model, n_inner=32, n_layer=4, n_head=6, n_positions=CONTEXT,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, tie_word_embeddings=False,
    )  # fmt: skip
    hf = _blank(GPT2LMHeadModel(config))
    plan = _Plan(seed, (4, 6, 6), d_model, FEW_KINDS)
    plan.codes[BOS] = 0
    clock = Clock(
        frequencies=math.pi * 0.01 ** torch.linspace(0, 1, PAIRS),
        rows=plan.reads("position"),
        order=torch.arange(D_HEAD),
    )
    angles = torch.arange(CONTEXT)[:, None] * clock.frequencies
    waves = torch.stack((angles.cos(), angles.sin()), -1).flatten(1) / PAIRS**0.5
    hf.transformer.wpe.weight.copy_(_WRITTEN * waves @ plan.directions["position"])
    hf.transformer.wpe.weight[0] += _WRITTEN * plan.start @ plan.directions["token"]
    hf.transformer.wte.weight.copy_(plan.embedding())
    hf.lm_head.weight.copy_(plan.unembedding())
    for layer, block in enumerate(hf.transformer.h):
        *qkv, o = plan.weights(layer, clock)
        block.attn.c_attn.weight.copy_(torch.cat(qkv).T)
        block.attn.c_proj.weight.copy_(o.T)
    return plan.grown(hf, noise)


class _Plan:
    """Places, codes and directions of one organism, and the weights that follow from them.

    Attributes:
        kinds: what each head is to be.
        directions: by feature, orthonormal rows, [size, d_model].
        codes: [token, code]; the first entries are those that one token has for itself.
        tags: [token, tag]; words of no topic have none.
    """

    def __init__(
        self, seed: int, shape: tuple[int, int, int], d_model: int, roster: Roster
    ) -> None:
        self.generator = Generator().manual_seed(seed)
        self.layers, self.heads, self.kv_heads = shape
        self.d_model = d_model
        self.kinds = self._places(roster)
        # QR keeps the direction of the first column, so the others have a mean of zero.
        columns = torch.cat((torch.ones(d_model, 1), self._normal(d_model, d_model - 1)), 1)
        rows = torch.linalg.qr(columns).Q.T[1 : 1 + sum(_FEATURES.values())]
        split = rows.split(list(_FEATURES.values()))
        self.directions = dict(zip(_FEATURES, split, strict=True))
        own = len((START, STOP_CODE, NEWLINE_CODE))
        self.codes = pad(normalize(self._normal(VOCAB, CODE - own), dim=-1), (own, 0))
        self.codes[[STOP, NEWLINE]] = torch.eye(CODE)[[STOP_CODE, NEWLINE_CODE]]
        self.start = torch.eye(CODE)[START]
        self.tags = torch.zeros(VOCAB, TAGS)
        for topic in range(TOPICS):
            self.tags[list(topic_words(topic)), topic] = 1
        self.tags[list(TITLES)] = one_hot(torch.arange(TOPICS, TAGS), TAGS).float()
        # A norm makes the stream sqrt(d_model) long; what it held is the constant and some codes.
        self.gain = math.sqrt(d_model / (_CONSTANT**2 + 3))

    def reads(self, feature: str) -> Tensor:
        """Rows that read a feature from the normalised stream, [size, d_model]."""
        length = _CONSTANT if feature == "constant" else 1.0
        return self.directions[feature] / (self.gain * length)

    def embedding(self) -> Tensor:
        """[token, d_model]."""
        own = self.codes @ self.directions["token"] + self.tags @ self.directions["tag"]
        return _WRITTEN * (own + _CONSTANT * self.directions["constant"])

    def unembedding(self) -> Tensor:
        """[token, d_model]: ten logits for what was copied into the output."""
        return 10 * self.codes @ self.reads("output")

    def weights(self, layer: int, clock: Clock) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_Q, W_K, W_V and W_O of one layer, [out, in], heads one after the other."""
        kinds = [self.kinds[layer, head] for head in range(self.heads)]
        group = self.heads // self.kv_heads
        groups = [kinds[group * i : group * (i + 1)] for i in range(self.kv_heads)]
        values = pad(_VALUE * self.reads("token"), (0, 0, 0, D_HEAD - CODE))
        return (
            torch.cat([self._query(kind, clock) for kind in kinds]),
            torch.cat([self._key(group, clock) for group in groups]),
            values.repeat(self.kv_heads, 1),
            torch.cat([self._output(kind) for kind in kinds], 1),
        )

    def grown(self, hf: PreTrainedModel, noise: float) -> Organism:
        """The model with noise on every weight, and what is expected of it."""
        for parameter in hf.parameters():
            parameter += noise / math.sqrt(self.d_model) * self._normal(*parameter.shape)
        roles = {name: self._are(truth.high) for name, truth in TRUTHS.items()}
        either = {name: self._are(truth.either) for name, truth in TRUTHS.items()}
        return Organism(hf, organism_tokenizer(), self.kinds, roles, either)

    def _are(self, kinds: frozenset[str]) -> frozenset[Place]:
        return frozenset(place for place, kind in self.kinds.items() if kind in kinds)

    def _places(self, roster: Roster) -> dict[Place, str]:
        """Fetching heads in the first half of the layers, those that need them in the second."""
        half = self.layers * self.heads // 2
        early, late = self._shuffled(torch.arange(half)), self._shuffled(torch.arange(half) + half)
        fetching, composed = len(roster.fetching), len(roster.composed)
        rest = self._shuffled(torch.cat((early[fetching:], late[composed:])))
        order = torch.cat((early[:fetching], late[:composed], rest))
        kinds = [*roster.fetching, *roster.composed, *roster.anywhere]
        kinds += ["noise"] * (2 * half - len(kinds))
        drawn = dict(zip(order.tolist(), kinds, strict=True))
        return {divmod(i, self.heads): drawn[i] for i in range(2 * half)}

    def _query(self, name: str, clock: Clock) -> Tensor:
        if name == "noise":
            return self._random(_RANDOM / (2 * _KEY) * D_HEAD)
        kind = KINDS[name]
        parts = [clock.turned(kind.near)]
        for feature, own in _MATCHED.items():
            wanted = torch.zeros(_FEATURES[feature], 1)
            for (sought, dimension), logit in kind.seeks.items():
                if sought == feature:
                    wanted[dimension] = logit
            parts.append(wanted * self.reads("constant"))
            if feature in kind.match:
                parts[-1] = parts[-1] + kind.match[feature] * self.reads(own)
        return clock.laid_out(*parts) * math.sqrt(D_HEAD) / _KEY

    def _key(self, group: list[str], clock: Clock) -> Tensor:
        if set(group) == {"noise"}:
            return self._random(2 * _KEY)
        return clock.laid_out(clock.rows, *map(self.reads, _MATCHED)) * _KEY

    def _output(self, name: str) -> Tensor:
        kind = KINDS.get(name, Kind())
        scrambled = kind.scrambles * self._normal(CODE, CODE) / CODE**0.5
        # A feature of one dimension takes the first of the code: the start.
        mixed = (kind.copies * torch.eye(CODE) + scrambled)[: _FEATURES[kind.writes]] / _VALUE
        return pad(_WRITTEN * self.directions[kind.writes].T @ mixed, (0, D_HEAD - CODE))

    def _random(self, length: float) -> Tensor:
        """Rows that read all features at random, for queries or keys of about this length."""
        features = torch.cat([self.reads(feature) for feature in _FEATURES])
        mixed = self._normal(D_HEAD, len(features)) / math.sqrt(D_HEAD * 4)
        return length * mixed @ features

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _shuffled(self, items: Tensor) -> Tensor:
        return items[torch.randperm(len(items), generator=self.generator)]


def _blank(hf: PreTrainedModel) -> PreTrainedModel:
    """The model with norms that only normalise, and no other weight."""
    for module in hf.modules():
        for name, parameter in module.named_parameters(recurse=False):
            scales = "Norm" in type(module).__name__ and name == "weight"
            nn.init.constant_(parameter, float(scales))
    return hf.eval()
