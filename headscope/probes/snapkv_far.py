from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class SnapkvFar(Probe):
    """Attention that the end of the prompt, SnapKV's observation window, sends far back.

    score = mean over the last `window` rows i of sum_{sink <= j < n - recent} A[i, j], n being the
    length of the prompt: what is neither on its first nor on its latest tokens; in [0, 1].
    snapkv_top: votes v_j = sum over the same rows of A[i, j] for the prefix j < n - window; the
    share of all votes that fall on the floor(keep * (n - window)) keys (one at least) whose votes,
    averaged over `kernel` neighbours, are highest. In [0, 1]; about `keep` for a uniform head, 0
    where no row sees the prefix. The first token is a key like others: a sink head scores high.

    A layer with a sliding window scores low here because it cannot see far.

    Source: the window and the pooled votes are SnapKV's (Li et al. 2024, arXiv 2404.14469), which
    keeps the top keys of each head and scores no heads. The far mass is headscope's own
    definition, after a rule proposed for mlx-lm (pull request 1522: first 4 and last 64 tokens
    left out, a retrieval head above 0.35 among the top quarter).

    Attributes:
        window: rows at the end of the prompt, SnapKV's observation window.
        sink, recent: tokens at the start and at the end of the prompt that are not far.
        keep: share of the prefix that SnapKV would keep, for snapkv_top.
        kernel: neighbours that votes are averaged over, an odd number.
    """

    paper = "after Li et al. 2024, arXiv 2404.14469"
    rows = "last"
    scores = {"snapkv_top": "share of the window's votes held by the keys that SnapKV would keep"}  # noqa: RUF012
    prompts: PromptFamily = field(default_factory=Needle)
    window: int = 32
    sink: int = 4
    recent: int = 64
    keep: float = 0.05
    kernel: int = 5

    def __post_init__(self) -> None:
        if min(self.window, self.recent) < 1 or self.sink < 0 or not 0 < self.keep <= 1:
            raise HeadscopeError(
                "The probe 'snapkv_far' needs window and recent of at least 1, sink of at least 0, "
                "and a share keep above 0 and up to 1."
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise HeadscopeError(
                f"The probe 'snapkv_far' pools over an odd number of keys, not {self.kernel}."
            )

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        first = max(self.window, self.sink + self.recent)
        if len(prompt) <= first:
            raise HeadscopeError(
                f"the probe 'snapkv_far' needs more than {first} tokens (its window, and sink + "
                f"recent), and there are {len(prompt)}; use longer prompts or smaller parameters."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        n = len(reading.prompt)
        rows = attended.attention.rows(reading.last_rows(self.window))[0]
        votes = rows.sum(1)  # [head, key]
        far = votes[:, self.sink : n - self.recent].sum(-1) / rows.shape[1]
        prefix = votes[:, : n - self.window]
        pooled = avg_pool1d(prefix, self.kernel, stride=1, padding=self.kernel // 2)
        top = pooled.topk(max(1, int(self.keep * prefix.shape[1]))).indices
        total = prefix.sum(-1)
        held = prefix.gather(-1, top).sum(-1) / total.where(total > 0, 1)
        return {"snapkv_far": far, "snapkv_top": held}
