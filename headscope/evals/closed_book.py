from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.common_knowledge import KINDS
from headscope.evals.drafting import at_length, before, choices
from headscope.evals.drawing import check_count, third
from headscope.prompts.asking import Draft
from headscope.prompts.base import SPLITS


@dataclass(frozen=True)
class ClosedBook(Eval):
    """A fact that everybody knows and the prompt does not hold, as a control.

    "The capital of France is" is followed by " Paris" rather than by the answers to three other
    questions of the same kind. Kinds are capitals, opposites, young animals and languages; a
    passage of prose stands before the question where a length is asked for.

    Source: closed-book question answering, Roberts et al. 2020, arXiv 2002.08910; as a control of
    masked retrieval heads, Wu et al. 2024, arXiv 2404.15574. The facts are headscope's own list.

    Attributes:
        others: wrong answers to choose from.
    """

    metric = "choice"
    source = "Roberts et al. 2020, arXiv 2002.08910; as a control, Wu et al. 2024, arXiv 2404.15574"
    licence = "none needed: common knowledge"
    in_prompt = False
    others: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        # A third of the shortest kind, less the fact that is asked for.
        most = min(len(kind.facts) for kind in KINDS.values()) // len(SPLITS) - 1
        check_count(self, "others", self.others, 1, most)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        kinds = list(KINDS)
        kind = KINDS[kinds[index % len(kinds)]]
        facts = third(kind.facts, self.split)
        # Every fact of a split once before any comes again.
        order = self.rng("order", kind.sentence).sample(facts, len(facts))
        key, answer = order[index // len(kinds) % len(order)]
        others = [other for k, other in facts if k != key and other != answer]
        wrong = self.rng("others", index).sample(sorted(set(others)), self.others)
        sentence = kind.sentence.format(key=key)

        def draft(words: list[str]) -> Draft:
            text, _ = before(words, sentence)
            known = {"length": self.length(index), "kind": kinds[index % len(kinds)], "key": key}
            return Draft(text, {}, answer, False, known)

        made = at_length(self, index, tokenizer, draft)
        return Item(made.encode(tokenizer), wrong=choices(made, tokenizer, wrong))
