"""One batch of sequences on its way through a model, over all of its forward passes."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.errors import HeadscopeError

Phase = Literal["prefill", "chunk", "decode", "verify"]
Part = Literal["prefill", "decode", "answer", "all"]


@dataclass(eq=False)
class Run:
    """What all layers and passes of one batch of sequences share.

    A method keeps its per-sequence state in `state`, under itself: it is empty when a sequence
    begins, and gone when the method's scope closes.
    """

    phase: Phase = "prefill"
    step: int = 0  # forward passes since the sequences began; the first is 0
    seen: int = 0  # slots that went through the model, this pass included
    prompt_length: Int[Tensor, " batch"] | None = None  # positions from here on are the answer
    state: dict[Hashable, Any] = field(default_factory=dict)
    followers: list[Any] = field(default_factory=list)  # entries of the stack that were begun
    _tokens: list[Int[Tensor, "batch some"]] | None = field(default_factory=list)

    @property
    def token_ids(self) -> Int[Tensor, "batch seen"]:
        """Every token that went through the model so far, padding included.

        Raises:
            HeadscopeError: the sequence was begun outside headscope's sight, or from embeddings.
        """
        if self._tokens is None:
            raise HeadscopeError(
                "The tokens of this sequence are unknown: its cache was filled, or its first pass "
                "made from embeddings, where headscope did not see it. Begin it within the scope."
            )
        if len(self._tokens) > 1:
            self._tokens = [torch.cat(self._tokens, dim=1)]
        return self._tokens[0]

    def extend(self, token_ids: Int[Tensor, "batch some"] | None, length: int) -> None:
        """Take in the tokens of one more forward pass."""
        self.seen += length
        if token_ids is None:
            self._tokens = None
        elif self._tokens is not None:
            self._tokens.append(token_ids)

    def crop(self, length: int) -> None:
        """Forget all but the first `length` slots."""
        if self._tokens:
            self._tokens = [self.token_ids[:, :length]]
        self.seen = length

    def reorder(self, index: Int[Tensor, " new_batch"]) -> None:
        """Let row i of the batch continue what was row index[i]."""
        if self._tokens:
            self._tokens = [self.token_ids[index.to(self.token_ids.device)]]
        if self.prompt_length is not None:
            self.prompt_length = self.prompt_length[index.to(self.prompt_length.device)]

    def rows_in(
        self, part: Part, positions: Int[Tensor, "batch query"]
    ) -> Bool[Tensor, "batch query"]:
        """Which query rows belong to a part of the sequence.

        "prefill" are the rows of prompt tokens, "decode" those of answer tokens, "answer" those
        that produce an answer token (the last prompt row and every decode row), "all" every row.
        Where nobody said how long the prompt is, "prefill" and "decode" follow the phase.

        Raises:
            HeadscopeError: "answer" is asked for and the length of the prompt is unknown.
        """
        if part == "all":
            return positions >= 0
        if self.prompt_length is None:
            if part == "answer":
                raise HeadscopeError(
                    "To act on the answer, headscope has to know where it starts: use "
                    "model.generate(), or pass prompt_length= to the forward pass."
                )
            return (positions >= 0) & ((self.phase == "decode") == (part == "decode"))
        start = self.prompt_length.to(positions.device)[:, None]
        if part == "prefill":
            return (positions >= 0) & (positions < start)
        return positions >= (start if part == "decode" else start - 1)
