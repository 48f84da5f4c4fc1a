from definitions import Case
from definitions.marked import MARKED

N, WINDOW, SINK, RECENT, KEEP, KERNEL = 38, 8, 2, 12, 0.2, 3
PARAMETERS = {
    "prompts": MARKED, "window": WINDOW, "sink": SINK, "recent": RECENT, "keep": KEEP,
    "kernel": KERNEL,
}  # fmt: skip


def define(case: Case) -> dict[str, list[float]]:
    far, top = [], []
    late, prefix = range(N - WINDOW, N), range(N - WINDOW)
    for p in case.pattern.tolist():
        far.append(sum(p[i][j] for i in late for j in range(SINK, N - RECENT)) / WINDOW)
        votes = [sum(p[i][j] for i in late) for j in prefix]
        pooled = [sum(votes[max(0, j - 1) : j + 2]) / KERNEL for j in prefix]
        kept = sorted(prefix, key=lambda j, by=pooled: -by[j])[: int(KEEP * len(prefix))]
        top.append(sum(votes[j] for j in kept) / sum(votes) if sum(votes) > 0 else 0.0)
    return {"snapkv_far": far, "snapkv_top": top}
