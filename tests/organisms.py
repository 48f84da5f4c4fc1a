"""Small models built by hand, whose heads provably do one thing.

Every feature of the residual stream owns a few directions, drawn at random, orthonormal and of
zero mean, so that a LayerNorm is an RMSNorm to them: a large constant, which also keeps the norm
of the stream steady; the code of the token; the codes of the tokens one and two places before,
empty until a head in the first half of the layers has fetched them; and what the unembedding
reads. A head chooses its keys in three ways, each in query and key dimensions of its own:

- by distance: a sum of a_f cos(f (i - j) + phi_f), fitted to the logits wanted at each distance;
- by content: the query's token code against the token, previous or earlier code of the key;
- by the start: a constant query against the code of the start of the sequence.

One key serves all three, so that the query heads of one group may differ. What every head is, and
hence which must score high on which probe, is drawn before any weight is made.
"""

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

Place = tuple[int, int]  # (layer, head)

PAD, BOS, EOS, VOCAB, CONTEXT = 0, 1, 2, 160, 192
SINKS, WINDOW = 1, 8  # of the streaming pattern that the expected table is declared for

_D_HEAD, _PAIRS, _CODE = 128, 24, 24
_CONSTANT = 4.0  # length of the constant, where a code has length 1
_KEY = 20.0  # length of each part of a key: a logit is shared about evenly by query and key
_RANDOM = 4.0  # about the standard deviation of the logits of a noise head
_CODED = ("token", "previous", "earlier")  # what a key is matched by
_FEATURES = {"constant": 1, "position": 2 * _PAIRS} | dict.fromkeys((*_CODED, "output"), _CODE)


@dataclass(frozen=True)
class Kind:
    """How the heads of one kind choose their keys, in logits, and what they write.

    Attributes:
        near: the logit at some distances; others get at most 0, or just 0 if it is negative.
        match: by feature, the logit of a key whose feature is the query's own token.
        start: by feature, the logit of a key whose feature is the start.
        writes: the feature that receives the code of the token attended to.
        copies: whether that code arrives as it is, rather than small and scrambled.
    """

    near: dict[int, float] = field(default_factory=dict)
    match: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    writes: str = "output"
    copies: bool = False


KINDS = {
    "previous_token": Kind(near={1: 20.0}, writes="previous", copies=True),
    "two_back": Kind(near={2: 20.0}, writes="earlier", copies=True),
    "idle_previous_token": Kind(near={1: 20.0}),
    "current_token": Kind(near={0: 20.0}),
    "window": Kind(near=dict.fromkeys(range(WINDOW), 12.0)),
    "sink": Kind(start={"token": 20.0}),
    # The first token is its own previous token, so it has to be taken out again.
    "second_token": Kind(start={"previous": 20.0, "token": -20.0}),
    # Heads that look for content rest on the start while there is nothing to find.
    "duplicate_token": Kind(match={"token": 40.0}, start={"token": 28.0}, near={0: -16.0}),
    "induction": Kind(match={"previous": 40.0}, start={"token": 28.0}, copies=True),
    "late_induction": Kind(match={"earlier": 40.0}, start={"token": 28.0}),
    "weak_induction": Kind(match={"previous": 3.5}),
    "uniform": Kind(),
}
_FETCHING = ["previous_token", "two_back"]
_COMPOSED = ["induction", "induction", "late_induction", "weak_induction", "second_token"]
_ANYWHERE = ["idle_previous_token", "current_token", "uniform"]
_ANYWHERE += 2 * ["duplicate_token", "sink", "window"]

_PREVIOUS = {"previous_token", "idle_previous_token"}
EXPECTED: dict[str, set[str]] = {
    "previous_token": _PREVIOUS,
    "induction": {"induction"},
    "duplicate_token": {"duplicate_token"},
    "sink": {"sink"},
    "streaming": {*_PREVIOUS, "two_back", "current_token", "window", "sink"},
}


@dataclass(frozen=True, eq=False)
class Organism:
    """A model whose heads are known.

    Attributes:
        kinds: what each head was built as; "noise" if its weights are random.
        roles: by probe, the heads that must score high on it, also where it is not what they were
            built for; `streaming` is declared for SINKS first tokens and a window of WINDOW.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    kinds: dict[Place, str]
    roles: dict[str, frozenset[Place]]


@torch.no_grad()
def rope_organism(seed: int, noise: float = 0.1) -> Organism:
    """A Llama of 4 layers, 8 query heads and 4 KV heads that reads distances off the rotation.

    Fast pairs of dimensions hold constants and see nothing but distance; slow pairs hold codes
    and hardly turn within the context. The start is known by its token, so prompts need BOS.

    Args:
        seed: of the places, the codes, the directions and the noise.
        noise: Gaussian noise of standard deviation noise / sqrt(d_model) is added to every
            weight, which moves every output of a projection by about `noise`.
    """
    theta, d_model = 1e8, 160
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=d_model, intermediate_size=32, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, head_dim=_D_HEAD, tie_word_embeddings=False,
        max_position_embeddings=CONTEXT, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )  # fmt: skip
    hf = _blank(LlamaForCausalLM(config))
    plan = _Plan(seed, (4, 8, 4), d_model)
    plan.codes[BOS] = plan.start
    clock = _Clock(
        frequencies=theta ** (-torch.arange(_PAIRS) / (_D_HEAD // 2)),
        rows=torch.eye(2)[0].repeat(_PAIRS)[:, None] * plan.reads("constant") / _PAIRS**0.5,
        # Llama turns dimension t together with dimension t + d/2.
        order=torch.arange(_D_HEAD).reshape(2, -1).T.flatten(),
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
    position, whatever its token.

    Args:
        seed: of the places, the codes, the directions and the noise.
        noise: Gaussian noise of standard deviation noise / sqrt(d_model) is added to every
            weight, which moves every output of a projection by about `noise`.
    """
    d_model = 6 * _D_HEAD
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=d_model, n_inner=32, n_layer=4, n_head=6, n_positions=CONTEXT,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, tie_word_embeddings=False,
    )  # fmt: skip
    hf = _blank(GPT2LMHeadModel(config))
    plan = _Plan(seed, (4, 6, 6), d_model)
    plan.codes[BOS] = 0
    clock = _Clock(
        frequencies=math.pi * 0.01 ** torch.linspace(0, 1, _PAIRS),
        rows=plan.reads("position"),
        order=torch.arange(_D_HEAD),
    )
    angles = torch.arange(CONTEXT)[:, None] * clock.frequencies
    waves = torch.stack((angles.cos(), angles.sin()), -1).flatten(1) / _PAIRS**0.5
    hf.transformer.wpe.weight.copy_(waves @ plan.directions["position"])
    hf.transformer.wpe.weight[0] += plan.start @ plan.directions["token"]
    hf.transformer.wte.weight.copy_(plan.embedding())
    hf.lm_head.weight.copy_(plan.unembedding())
    for layer, block in enumerate(hf.transformer.h):
        *qkv, o = plan.weights(layer, clock)
        block.attn.c_attn.weight.copy_(torch.cat(qkv).T)
        block.attn.c_proj.weight.copy_(o.T)
    return plan.grown(hf, noise)


@dataclass(frozen=True)
class _Clock:
    """How one architecture tells distance.

    Attributes:
        frequencies: [pair], the angle between the clocks of one position and the next.
        rows: [2 * pair, d_model], what reads a clock of unit length from the stream.
        order: [d_head], the dimension of a head that each built row goes to.
    """

    frequencies: Tensor
    rows: Tensor
    order: Tensor

    def turned(self, near: dict[int, float]) -> Tensor:
        """Rows of a query whose product with the clock of a key is as `Kind.near` says."""
        waves = _PAIRS * _waves(tuple(self.frequencies.tolist()), tuple(near.items()))
        a, b = waves[:, :, None].unbind(1)
        even, odd = self.rows.reshape(_PAIRS, 2, -1).unbind(1)
        return torch.stack((a * even - b * odd, b * even + a * odd), 1).flatten(0, 1)

    def laid_out(self, *parts: Tensor) -> Tensor:
        """Rows in their places in a head, [d_head, d_model]."""
        rows = torch.cat(parts)
        weight = torch.zeros(_D_HEAD, rows.shape[1])
        weight[self.order[: len(rows)]] = rows
        return weight


class _Plan:
    """Places, codes and directions of one organism, and the weights that follow from them.

    Attributes:
        kinds: what each head is to be.
        directions: by feature, orthonormal rows, [size, d_model].
        codes: [token, code]; the first entry of a code is kept free for the start.
    """

    def __init__(self, seed: int, shape: tuple[int, int, int], d_model: int) -> None:
        self.generator = Generator().manual_seed(seed)
        self.layers, self.heads, self.kv_heads = shape
        self.d_model = d_model
        self.kinds = self._places()
        # QR keeps the direction of the first column, so the others have a mean of zero.
        columns = torch.cat((torch.ones(d_model, 1), self._normal(d_model, d_model - 1)), 1)
        rows = torch.linalg.qr(columns).Q.T[1 : 1 + sum(_FEATURES.values())]
        split = rows.split(list(_FEATURES.values()))
        self.directions = dict(zip(_FEATURES, split, strict=True))
        self.codes = pad(normalize(self._normal(VOCAB, _CODE - 1), dim=-1), (1, 0))
        self.start = torch.eye(_CODE)[0]
        # A norm makes the stream sqrt(d_model) long; what it held is the constant and some codes.
        self.gain = math.sqrt(d_model / (_CONSTANT**2 + 3))

    def reads(self, feature: str) -> Tensor:
        """Rows that read a feature from the normalised stream, [size, d_model]."""
        length = _CONSTANT if feature == "constant" else 1.0
        return self.directions[feature] / (self.gain * length)

    def embedding(self) -> Tensor:
        """[token, d_model]."""
        return self.codes @ self.directions["token"] + _CONSTANT * self.directions["constant"]

    def unembedding(self) -> Tensor:
        """[token, d_model]: ten logits for what was copied into the output."""
        return 10 * self.codes @ self.reads("output")

    def weights(self, layer: int, clock: _Clock) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_Q, W_K, W_V and W_O of one layer, [out, in], heads one after the other."""
        kinds = [self.kinds[layer, head] for head in range(self.heads)]
        group = self.heads // self.kv_heads
        groups = [kinds[group * i : group * (i + 1)] for i in range(self.kv_heads)]
        values = pad(self.reads("token"), (0, 0, 0, _D_HEAD - _CODE))
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
        roles = {
            role: frozenset(place for place, kind in self.kinds.items() if kind in expected)
            for role, expected in EXPECTED.items()
        }
        return Organism(hf, organism_tokenizer(), self.kinds, roles)

    def _places(self) -> dict[Place, str]:
        """Fetching heads in the first half of the layers, those that need them in the second."""
        half = self.layers * self.heads // 2
        early, late = self._shuffled(torch.arange(half)), self._shuffled(torch.arange(half) + half)
        fetching, composed = len(_FETCHING), len(_COMPOSED)
        rest = self._shuffled(torch.cat((early[fetching:], late[composed:])))
        order = torch.cat((early[:fetching], late[:composed], rest))
        kinds = _FETCHING + _COMPOSED + _ANYWHERE
        kinds += ["noise"] * (2 * half - len(kinds))
        drawn = dict(zip(order.tolist(), kinds, strict=True))
        return {divmod(i, self.heads): drawn[i] for i in range(2 * half)}

    def _query(self, name: str, clock: _Clock) -> Tensor:
        if name == "noise":
            return self._random(_RANDOM / (2 * _KEY) * _D_HEAD)
        kind = KINDS[name]
        parts = [clock.turned(kind.near)]
        for feature in _CODED:
            start = self.start[:, None] * self.reads("constant")
            own = self.reads("token")
            parts.append(kind.start.get(feature, 0) * start + kind.match.get(feature, 0) * own)
        return clock.laid_out(*parts) * math.sqrt(_D_HEAD) / _KEY

    def _key(self, group: list[str], clock: _Clock) -> Tensor:
        if set(group) == {"noise"}:
            return self._random(2 * _KEY)
        return clock.laid_out(clock.rows, *map(self.reads, _CODED)) * _KEY

    def _output(self, name: str) -> Tensor:
        kind = KINDS.get(name, Kind())
        mixed = torch.eye(_CODE) if kind.copies else 0.1 * self._normal(_CODE, _CODE) / _CODE**0.5
        return pad(self.directions[kind.writes].T @ mixed, (0, _D_HEAD - _CODE))

    def _random(self, length: float) -> Tensor:
        """Rows that read all features at random, for queries or keys of about this length."""
        features = torch.cat([self.reads(feature) for feature in _FEATURES])
        mixed = self._normal(_D_HEAD, len(features)) / math.sqrt(_D_HEAD * 4)
        return length * mixed @ features

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _shuffled(self, items: Tensor) -> Tensor:
        return items[torch.randperm(len(items), generator=self.generator)]


@cache
def _waves(frequencies: tuple[float, ...], near: tuple[tuple[int, float], ...]) -> Tensor:
    """Waves a cos(f distance) - b sin(f distance) whose sum is as `Kind.near` says.

    Fitted by least squares, again and again: where a logit may be lower than 0, the next round
    wants it where the last one left it.

    Returns:
        a and b, [pair, 2].
    """
    wanted = dict(near)
    at, logits = list(wanted), torch.tensor(list(wanted.values()), dtype=torch.float64)
    angles = torch.arange(CONTEXT)[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    terms = torch.stack((angles.cos(), -angles.sin()), -1).flatten(1)
    # Softmax does not see a constant, so the fit may have one.
    terms = pad(terms, (0, 1), value=1.0)
    weight = torch.ones(CONTEXT, dtype=torch.float64)
    weight[at] = 5.0
    ridge = math.sqrt(0.1) * torch.eye(terms.shape[1], dtype=torch.float64)[:-1]
    solve = torch.linalg.pinv(torch.cat((terms * weight[:, None], ridge)))[:, :CONTEXT] * weight
    found = torch.zeros(CONTEXT, dtype=torch.float64)
    for _ in range(100):
        target = found.clamp(max=0) if (logits > 0).all() else torch.zeros_like(found)
        target[at] = logits
        amplitudes = solve @ target
        found = terms @ amplitudes
    return amplitudes[:-1].reshape(-1, 2).float()


def _blank(hf: PreTrainedModel) -> PreTrainedModel:
    """The model with norms that only normalise, and no other weight."""
    for module in hf.modules():
        for name, parameter in module.named_parameters(recurse=False):
            scales = "Norm" in type(module).__name__ and name == "weight"
            nn.init.constant_(parameter, float(scales))
    return hf.eval()


@cache
def organism_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: <pad>, <bos>, <eos> and w3 to w159."""
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    words = [*special.values(), *(f"w{i}" for i in range(len(special), VOCAB))]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>")
    tokenizer = Tokenizer(level)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<pad>", **special)
