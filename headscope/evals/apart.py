"""Whether prompts are others than those that heads were found on."""

from collections.abc import Iterator, Sequence

from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from headscope.catalog import families
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.jsonl import Jsonl
from headscope.runinfo import FamilyInfo

_SEEN = "These prompts were used to find the heads; test on others (another split or file)."


def check_apart(
    head_map: HeadMap,
    family: PromptFamily,
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse prompts on which the heads of a map were found, whatever is known of their spans.

    Spans and answers are part of a prompt's digest, but a model reads tokens alone: the prompts
    of the scan are made again to compare those. Families that make their prompts can only agree
    with their own kind; the lines of a file may have been taken from anywhere.

    Raises:
        HeadscopeError: a prompt was used, or both are files and that of the scan has changed.
    """
    digests = {digest for info in head_map.info.families.values() for digest in info.digests}
    if any(prompt.digest in digests for prompt in prompts):
        raise HeadscopeError(_SEEN)
    tokens = {prompt.token_ids for prompt in prompts}
    for info in _alike(head_map, family):
        again = _again(info, tokenizer)
        if any(prompt.token_ids in tokens for prompt in again):
            raise HeadscopeError(_SEEN)
        from_files = info.family == Jsonl.name and isinstance(family, Jsonl)
        if from_files and [prompt.digest for prompt in again] != info.digests:
            raise HeadscopeError(
                f"The heads were found on {info.parameters.get('path')!r}, which is not there any "
                "more as it was, so that nobody can tell whether these prompts are others; put it "
                "back, or test on generated prompts."
            )


def _alike(head_map: HeadMap, family: PromptFamily) -> Iterator[FamilyInfo]:
    """Families of a scan that may hold the same tokens as another one."""
    for info in head_map.info.families.values():
        if isinstance(family, Jsonl) or info.family in (family.name, Jsonl.name):
            yield info


def _again(info: FamilyInfo, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """The prompts of a scan; none where they cannot be made any more."""
    kind = families().get(info.family)
    if kind is None:
        return []
    try:
        made: PromptFamily = TypeAdapter(kind).validate_python(info.parameters)
        return made.prompts(tokenizer)
    except (HeadscopeError, ValidationError):
        return []
