"""Whether a map is of this model, and prompts are others than those that heads were found on."""

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from headscope.catalog import families
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.headmap import HeadMap
from headscope.model import HeadModel
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.jsonl import Jsonl
from headscope.runinfo import FamilyInfo

_FILES = (Jsonl.name, "own")  # evals whose questions come from files
_SEEN = "These prompts were used to find the heads; test on others (another split or file)."


def check_apart(
    head_map: HeadMap, task: Eval, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse questions on which the heads of a map were found, whatever is known of their spans.

    Spans and answers are part of a prompt's digest, but a model reads tokens alone: the prompts
    of the scan are made again to compare those. Families that make their prompts can only agree
    with their own kind; the lines of a file may have been taken from anywhere.

    Raises:
        HeadscopeError: a prompt was used, the eval draws from the split that finds heads, or both
            are files and that of the scan has changed.
    """
    if task.split == "detect":
        raise HeadscopeError(
            f"The eval {task.title!r} draws from the split 'detect', which is for finding heads; "
            "test them on split='test'."
        )
    digests = {digest for info in head_map.info.families.values() for digest in info.digests}
    if any(prompt.digest in digests for prompt in prompts):
        raise HeadscopeError(_SEEN)
    tokens, own = {prompt.token_ids for prompt in prompts}, task.title in _FILES
    for info in head_map.info.families.values():
        if not own and info.family not in (task.title, Jsonl.name):
            continue
        again = _again(info, tokenizer)
        if any(prompt.token_ids in tokens for prompt in again):
            raise HeadscopeError(_SEEN)
        if info.family == Jsonl.name and own and [p.digest for p in again] != info.digests:
            raise HeadscopeError(
                f"The heads were found on {info.parameters.get('path')!r}, which is not there any "
                "more as it was, so that nobody can tell whether these prompts are others; put it "
                "back, or test on generated prompts."
            )


def check_weights(head_map: HeadMap, model: HeadModel) -> None:
    """Refuse a map of other weights; one from elsewhere says nothing of them but its shape.

    Raises:
        HeadscopeError: the map is of another model.
    """
    info = head_map.info.model
    same = info.fingerprint == model.fingerprint
    if info.fingerprint is None:
        same = (info.layers, info.n_heads) == (model.layers, model.n_heads)
    if not same:
        raise HeadscopeError(
            f"The head map is of {info.name}, with other weights than {model.name}; open the model "
            "it was made with."
        )


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
