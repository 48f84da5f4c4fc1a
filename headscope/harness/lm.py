"""An opened model as the harness asks for one."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from lm_eval import utils
from lm_eval.api.model import CacheHook, TemplateLM
from tqdm import tqdm

from headscope.errors import HeadscopeError
from headscope.evals.describing import described
from headscope.harness.generating import answer, greedy
from headscope.harness.scoring import Ids, Said, changed, said
from headscope.interventions.base import Intervention
from headscope.model import HeadModel, check_opened


class HeadscopeLM(TemplateLM):
    """An opened model, on any backend, as `lm_eval.simple_evaluate(model=...)` takes it.

    What is in force on the model is in force for every request, and is told where its answer
    starts: an ablation with part="answer" acts on the rows that produce a continuation or a
    generated text. A request that is longer than the model's context loses its beginning, as with
    the harness's own models, and a warning counts them. Requests are read one by one.

    Attributes:
        model: the opened model.
        share: read a context once for all of its continuations, as long as nothing is in force
            that could read it differently; with False every request is a whole pass.
    """

    def __init__(self, model: HeadModel, *, share: bool = True) -> None:
        check_opened(model)
        super().__init__()
        self.model, self.share = model, share
        self.tokenizer: Any = model.tokenizer
        self._device = model.device

    # ---- facts -----------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise HeadscopeError(
                f"The tokenizer of {self.model.name} has no end-of-text token, which the harness "
                "needs; set its eos_token."
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: the start token, or else the end-of-text token."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else int(start)

    @property
    def max_length(self) -> int:
        """Tokens that the model reads at once."""
        return self.model.context_length

    @property
    def max_gen_toks(self) -> int:
        """New tokens for a task that does not say how many: the harness's own number."""
        return 256

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What the harness keeps under "config" in its results."""
        return {
            "model_spec": self.model.spec,
            "model_revision": self.model.revision,
            "model_backend": self.model.backend.name,
            "model_dtype": str(self.model.dtype),
            "model_num_parameters": sum(p.numel() for p in self.model.backend.parameters()),
            "interventions": [_described(e.around) for e in self.model.stack.chain.entered],
        }

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take part in the harness's store of answers (`use_cache`).

        Raises:
            HeadscopeError: something is in force on the model. The store tells answers apart by
                their requests alone, and would give those of the model as it is.
        """
        if changed(self.model):
            raise HeadscopeError(
                "The harness's use_cache does not know what is in force on the model; leave it "
                "out under an intervention."
            )
        super().set_cache_hook(cache_hook)

    # ---- text ------------------------------------------------------------------------------

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """Token ids, with the tokenizer's own special tokens unless the text begins with them."""
        if add_special_tokens is None:
            start = self.tokenizer.bos_token
            add_special_tokens = not (start and string.startswith(start))
        return list(self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"])

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Turns in the model's chat template, up to the start of an answer.

        Args:
            add_generation_prompt: False where the last turn is the start of the answer.

        Raises:
            HeadscopeError: there is no template, or it refuses a turn.
        """
        if not self.tokenizer.chat_template:
            raise HeadscopeError(f"{self.model.spec} has no chat template; evaluate without one.")
        try:
            text = self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        except TemplateError as error:
            raise HeadscopeError(
                f"The chat template of {self.model.spec} refuses these turns ({error}); evaluate "
                "without a system instruction, or without the template."
            ) from error
        return str(text)

    # ---- requests --------------------------------------------------------------------------

    @torch.no_grad()
    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
    ) -> list[Said]:
        """Nats of continuations, and whether greedy decoding would have said them.

        Args:
            requests: the two texts, for the store of answers; token ids of both.

        Raises:
            HeadscopeError: a continuation has no token of its own, or does not fit.
        """
        pairs = [self._fitted(context, continuation) for _, context, continuation in requests]
        self._warn(sum(len(p[0]) < len(r[1]) for p, r in zip(pairs, requests, strict=True)))
        found: dict[int, Said] = {}
        steps = said(self.model, pairs, self.share)
        for index, score in tqdm(steps, "Log-likelihoods", len(pairs), disable=disable_tqdm):
            found[index] = score
            if (texts := requests[index][0]) is not None:
                self.cache_hook.add_partial("loglikelihood", texts, score)
        return [found[index] for index in range(len(pairs))]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Nats of whole texts, in windows as long as the model's context."""
        windows = list[tuple[None, list[int], list[int]]]()
        counts = list[int]()
        for request in requests:
            each = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows += [(None, *utils.make_disjoint_window(window)) for window in each]
            counts.append(len(windows) - sum(counts))
        scores = iter(self._loglikelihood_tokens(windows, disable_tqdm))
        totals = [sum((next(scores)[0] for _ in range(count)), 0.0) for count in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    @torch.no_grad()
    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model says, greedily, up to the first of the strings that end it.

        Raises:
            HeadscopeError: a request asks for sampling, or for more tokens than fit.
        """
        jobs = list[tuple[list[int], int, list[str]]]()
        for request in requests:
            until, tokens = greedy(request.args[1], self.max_gen_toks)
            if tokens >= self.max_length:
                raise HeadscopeError(
                    f"{tokens} new tokens leave no room for a prompt in the {self.max_length} that "
                    f"{self.model.name} was made for; set a lower max_gen_toks in the task."
                )
            ids = self.tok_encode(request.args[0]) or [self.prefix_token_id]
            jobs.append((ids, tokens, until))
        self._warn(sum(len(ids) + tokens > self.max_length for ids, tokens, _ in jobs))
        texts = list[str]()
        for ids, tokens, until in tqdm(jobs, "Generating", disable=disable_tqdm):
            texts.append(answer(self.model, ids[-(self.max_length - tokens) :], tokens, until))
            self.cache_hook.add_partial("generate_until", requests[len(texts) - 1].args, texts[-1])
        return texts

    def _fitted(self, context: list[int], continuation: list[int]) -> tuple[Ids, Ids]:
        if not 0 < len(continuation) <= self.max_length:
            raise HeadscopeError(
                f"A continuation has {len(continuation)} tokens, where {self.model.name} can score "
                f"1 to {self.max_length}; mend the task's answers."
            )
        room = self.max_length + 1 - len(continuation)  # its last token is foretold, not read
        return tuple(context[-room:]), tuple(continuation)

    def _warn(self, cut: int) -> None:
        if cut:
            warnings.warn(
                f"{cut} requests do not fit into the {self.max_length} tokens that "
                f"{self.model.name} was made for; the beginning of their contexts was left out.",
                stacklevel=3,
            )


def _described(around: Any) -> str:
    method = getattr(around, "__self__", None)
    if isinstance(method, Intervention):
        return described(method)
    return str(getattr(around, "__qualname__", type(around).__name__))
