"""What the kernels of statistics share: which pairs are seen, and sums along a row."""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def seen_pairs(own, columns, n_keys, window, WINDOW: tl.constexpr):
    """Which rows see which keys; `own` is the index of each row's own key."""
    behind = own[:, None] - columns[None, :]
    seen = (behind >= 0) & (columns < n_keys)[None, :]
    if WINDOW:
        seen = seen & (behind < window)
    return seen


@triton.jit
def fold_sum(x, M: tl.constexpr, N: tl.constexpr, SPREAD: tl.constexpr):
    """Sums of every SPREAD-th column: those that one thread holds, so that none are exchanged."""
    if SPREAD == 1:
        out = tl.sum(x, 1)[:, None]
    else:
        out = tl.sum(tl.reshape(x, (M, N // SPREAD, SPREAD)), 1)
    return out


@triton.jit
def fold_max(x, M: tl.constexpr, N: tl.constexpr, SPREAD: tl.constexpr):
    """The same with the largest of each."""
    if SPREAD == 1:
        out = tl.max(x, 1)[:, None]
    else:
        out = tl.max(tl.reshape(x, (M, N // SPREAD, SPREAD)), 1)
    return out
