from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count, invented, numbers
from headscope.evals.hiding import Hidden, hide
from headscope.evals.several import listed, several
from headscope.prompts.asking import Asked

_TASK = """In the text, variables get a value from a number or from another variable. Follow them.

Example: {example}
Question: {question}
Answer: {answer}

Text:"""


@dataclass(frozen=True)
class VariableTracking(Eval):
    """Which variables hold a number, given to the first and passed on from one to the next.

    The text hides "VAR BAK = 12345.", "VAR DOF = VAR BAK.", ...; a chain's own order is kept and
    chains are mixed. After a worked example the forced answer is "From first to last, 12345 is
    held by the variables BAK, DOF and GUL". Names count, commas and "and" do not. Spans:
    "answer_0", ... (each name where it gets its value) and "needle_0", ... (that sentence).

    Source: "vt" in RULER (Hsieh et al. 2024, arXiv 2404.06654), one chain of four hops. Wording,
    names of three letters and prose are headscope's own.

    Attributes:
        chains: how many; one is asked for.
        hops: how often a chain's value is passed on.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    chains: int = field(default=1, kw_only=True)
    hops: int = field(default=2, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "chains", self.chains, 1, 5)
        check_count(self, "hops", self.hops, 1, 8)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, each = self.rng(index), self.hops + 1
        # The example is one more chain, and the last.
        names = invented(rng, self.split, each * (self.chains + 1), letters=3)
        names = [name.upper() for name in names]
        chains = [names[i : i + each] for i in range(0, len(names), each)]
        values = numbers(rng, self.split, len(chains))
        *texts, example = map(_assigned, chains, values)
        sentences = list[Hidden]()
        for i, (chain, text) in enumerate(zip(chains, texts, strict=False)):
            depths = sorted(rng.random() for _ in text)
            for j, (depth, name, sentence) in enumerate(zip(depths, chain, text, strict=True)):
                sentences.append(
                    Hidden(depth, sentence, f"chain_{i}_{j}")
                    if i
                    else Hidden(depth, sentence, f"needle_{j}", name, f"answer_{j}")
                )
        task = _TASK.format(
            example=" ".join(example),
            question=_question(each, values[-1]),
            answer=f"{_lead(values[-1])} {listed(chains[-1])}.",
        )
        asked = Asked(
            task, _question(each, values[0]), _lead(values[0]), listed(chains[0]), self.chat
        )
        facts = {"key": values[0], "chains": self.chains, "hops": self.hops}
        draft = hide(self, index, tokenizer, asked, sentences, facts)
        return several(draft, chains[0], tokenizer)


def _assigned(chain: list[str], value: str) -> list[str]:
    sources = [value, *(f"VAR {name}" for name in chain)]
    return [f"VAR {name} = {source}." for name, source in zip(chain, sources, strict=False)]


def _question(count: int, value: str) -> str:
    return f"Which {count} variables hold {value}, from first to last?"


def _lead(value: str) -> str:
    return f"From first to last, {value} is held by the variables"
