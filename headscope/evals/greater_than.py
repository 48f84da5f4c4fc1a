from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item, TokenIds
from headscope.evals.changing import behind_prose, changed
from headscope.evals.drawing import third
from headscope.prompts.asking import Draft
from headscope.prompts.base import Prompt, Range, encode

# What lasts for years.
_NOUNS = tuple(
    """
    strike siege drought war reign voyage expedition alliance blockade plague boycott campaign feud
    dispute famine occupation partnership pilgrimage truce revolt mission exile friendship journey
    project trial marriage festival experiment rivalry apprenticeship negotiation
    construction rebellion treaty embargo
    """.split()
)
_ENDS = tuple(f"{end:02}" for end in range(100))


@dataclass(frozen=True)
class GreaterThan(Eval):
    """The last two digits of a year, which have to be above those of an earlier one.

    "The siege lasted from the year 1732 to the year 17": two digits above 32 are right, all others
    wrong. `answer_ids` are one of the right ones, drawn, so that the margin says more than their
    nats. In the corrupt prompt the first year ends in 01, and "02" follows. Spans: "start" (the
    first year) and "digits" (its last two).

    Where a tokenizer joins digits of a year, the last two are taken as it writes them alone.

    Source: Hanna et al. 2023, "How does GPT-2 compute greater-than?" (arXiv 2305.00586). Nouns are
    headscope's own choice.
    """

    metric = "choice"
    source = "Hanna et al. 2023, arXiv 2305.00586"
    licence = "none stated"
    in_prompt = False

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng(index)
        noun, century = rng.choice(third(_NOUNS, self.split)), rng.randint(11, 18)
        first = rng.randint(2, 98)
        year = f"{century}{first:02}"
        text = f"The {noun} lasted from the year {year} to the year {century}"
        at = text.index(year)
        spans = {"start": (at, at + 4), "digits": (at + 2, at + 4)}
        answer, facts = rng.choice(_ENDS[first + 1 :]), {"length": self.length(index)}
        facts["year"] = int(year)

        def plain(whole: str, found: Mapping[str, Range]) -> Draft:
            return Draft(whole, found, answer, False, facts)

        draft = behind_prose(self, index, tokenizer, text, spans, plain)
        prompt, ends = _continued(draft, tokenizer)
        corrupt, same = _continued(changed(draft, {"digits": "01"}, "02"), tokenizer)
        fits = len(corrupt) == len(prompt) and same["02"] == ends["02"]
        return Item(
            prompt,
            right=tuple(ends[end] for end in _ENDS[first + 1 :] if end != answer),
            wrong=tuple(ends[end] for end in _ENDS[: first + 1]),
            corrupt=corrupt if fits else None,
        )


def _continued(
    draft: Draft, tokenizer: PreTrainedTokenizerBase
) -> tuple[Prompt, dict[str, TokenIds]]:
    """A draft that digits follow without a space, and the tokens of every two digits behind it."""
    prompt = encode(tokenizer, draft.text, draft.spans, facts=draft.facts)
    try:
        whole = {end: encode(tokenizer, draft.text, answer=end) for end in _ENDS}
        split = all(made.token_ids == prompt.token_ids for made in whole.values())
    except HeadscopeError:  # a token straddles the end of the prompt
        whole, split = {}, False
    if split:
        ends = {end: made.answer_ids for end, made in whole.items()}
    else:
        alone = {end: tokenizer(end, add_special_tokens=False)["input_ids"] for end in _ENDS}
        ends = {end: tuple(ids) for end, ids in alone.items()}
    if len(set(ends.values())) < len(_ENDS):
        raise HeadscopeError("The tokenizer does not tell years apart; use another eval with it.")
    return replace(prompt, answer=draft.answer, answer_ids=ends[draft.answer]), ends
