"""The process that owns the model: patterns of any text, one request at a time."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from headscope_app.answering import OutOfMemory, answer, dies_first, limit_memory

dies_first()

import torch  # noqa: E402

from headscope import load  # noqa: E402
from headscope.errors import HeadscopeError  # noqa: E402
from headscope.heads import check_heads  # noqa: E402
from headscope.model import HeadModel  # noqa: E402
from headscope_app.passes import Passes  # noqa: E402
from headscope_app.picture import picture  # noqa: E402

_SHORT = 2**20


class Owner:
    """The model that was asked about last, and what its passes left."""

    def __init__(self) -> None:
        self._subject: dict[str, Any] | None = None
        self._passes: Passes | None = None

    def handle(self, request: dict[str, Any]) -> tuple[Any, Sequence[np.ndarray]]:
        """The answer to one request of `headscope_app.live.Live`."""
        try:
            return self._patterns(request)
        except Exception as error:
            if _of_memory(error):
                raise OutOfMemory from error
            raise

    @torch.no_grad()
    def _patterns(self, request: dict[str, Any]) -> tuple[Any, Sequence[np.ndarray]]:
        passes = self._opened(request["model"])
        model, heads = passes.model, [tuple(head) for head in request["heads"]]
        check_heads(heads, model.layers, model.n_heads, model.name)
        ids = _tokens(model, request["text"], request["chat"])
        found, arrays = [], []
        for layer, head in heads:
            queries, keys = _window(request["window"], len(ids))
            drawn = picture(
                passes.attention(ids, layer).head(head),
                queries, keys, request["exact"], request["widest"],
            )  # fmt: skip
            found.append(
                {
                    "layer": layer,
                    "head": head,
                    "window": {"queries": queries, "keys": keys},
                    "factor": drawn.factor,
                    "pairs": drawn.pairs,
                    "elsewhere": drawn.elsewhere,
                }
            )
            arrays.append(drawn.weights)
        tokens = [model.tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in ids]
        return {"tokens": tokens, "pictures": found, "passes": passes.run}, arrays

    def _opened(self, subject: dict[str, Any]) -> Passes:
        if self._passes is not None and subject == self._subject:
            return self._passes
        self._passes = self._subject = None  # two models need not fit at once
        model = load(
            subject["spec"],
            backend=subject["backend"],
            dtype=subject["dtype"],
            revision=subject["revision"],
        )
        if subject["fingerprint"] not in (None, model.fingerprint):
            raise HeadscopeError(
                f"{subject['spec']} has other weights now than those that this run was measured "
                "on, so that its heads are others too; scan it again into a new run."
            )
        self._subject, self._passes = subject, Passes(model)
        return self._passes


def _tokens(model: HeadModel, text: str, chat: bool) -> tuple[int, ...]:
    ids = model.tokens(text, chat)[0].tolist()
    if not ids:
        raise HeadscopeError("The text has no tokens; type something else.")
    if len(ids) > model.context_length:
        raise HeadscopeError(
            f"The text has {len(ids):,} tokens, more than the {model.context_length:,} that "
            f"{model.name} was made for; shorten it."
        )
    return tuple(ids)


def _window(asked: dict[str, Any] | None, n: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(queries, keys), cut to the text."""
    if asked is None:
        return (0, n), (0, n)
    queries, keys = (
        (max(0, min(int(first), n - 1)), max(1, min(int(last), n)))
        for first, last in (asked["queries"], asked["keys"])
    )
    if queries[0] >= queries[1] or keys[0] >= keys[1]:
        raise HeadscopeError("A window of a pattern has a token at least on each side.")
    return queries, keys


def _of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is about memory: libraries have names of their own
    for it, and readers of files take it for damage."""
    while error is not None:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if known or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count > _SHORT else f"{count} bytes"


def main() -> None:
    """Serve; the first argument, if there is one, is how many bytes may be allocated on a CPU."""
    where = "on the GPU"
    if not torch.cuda.is_available():  # CUDA reserves more than it uses, and has limits of its own
        where = f"within {_size(limit_memory(int(sys.argv[1]) if sys.argv[1:] else None))}"
    answer(
        Owner().handle,
        f"There was not enough memory for this {where}; try a shorter text or a smaller model. "
        "The process starts again with the next request.",
    )


if __name__ == "__main__":
    main()
