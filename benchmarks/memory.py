"""Peak memory of a scan with every probe, by prompt length."""

import subprocess
import sys

import torch
from environment import describe, memory_now, memory_peak, reset_peak
from stretching import stretched

import headscope
from headscope.catalog import probes

LENGTHS = (1024, 2048, 4096, 8128)


def measure(length: int) -> None:
    """One length, in a process of its own: peaks of one length must not hide those of the next."""
    model = headscope.load("smollm2", dtype=torch.float32)
    before = memory_now()
    reset_peak()
    chosen = [kind(prompts=stretched(kind().prompts, length)) for kind in probes().values()]
    head_map = headscope.scan(model, chosen, samples=1)
    peak = memory_peak()
    seconds = sum(family.seconds for family in head_map.info.families.values())
    print(
        f"{length:>8}{peak / 2**30:>12.2f}{before / 2**30:>12.2f}{(peak - before) / 2**30:>12.2f}"
        f"{seconds:>10.1f}",
        flush=True,
    )


def main() -> None:
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        return
    describe()
    print(
        f"{'tokens':>8}{'peak GiB':>12}{'loaded GiB':>12}{'scan GiB':>12}{'seconds':>10}",
        flush=True,
    )
    for length in LENGTHS:
        subprocess.run([sys.executable, __file__, str(length)], check=True)


if __name__ == "__main__":
    main()
