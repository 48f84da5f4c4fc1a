"""How many prompts do retrieval ranks need? 12 accepted ones against 60, two seeds."""

import numpy as np
from environment import describe

import headscope
from headscope.compare import compare
from headscope.probes.retrieval import Retrieval
from headscope.prompts import Needle


def main() -> None:
    describe()
    model = headscope.load("smollm2")
    maps = {}
    for seed in (0, 1):
        for samples in (12, 60):
            probe = Retrieval(prompts=Needle(lengths=(256, 384, 512)))
            maps[seed, samples] = headscope.scan(model, [probe], samples=samples, seed=seed)
            (family,) = maps[seed, samples].info.families.values()
            share = (maps[seed, samples]["retrieval"].mean() > 0.1).mean()
            print(
                f"seed {seed}, {samples} prompts: {sum(family.accepted)} accepted, "
                f"{share:.1%} of heads above 0.1",
                flush=True,
            )
    print(f"\n{'':38}{'top-10 overlap':>15}{'Spearman':>10}{'largest change':>16}")
    for name, one, other in (
        ("seed 0: 12 against 60", (0, 12), (0, 60)),
        ("seed 1: 12 against 60", (1, 12), (1, 60)),
        ("12 of seed 0 against 60 of seed 1", (0, 12), (1, 60)),
        ("12 of seed 1 against 60 of seed 0", (1, 12), (0, 60)),
        ("60 of seed 0 against 60 of seed 1", (0, 60), (1, 60)),
    ):
        row = compare(maps[one], maps[other], 10).table.iloc[0]
        change = np.abs(maps[one]["retrieval"].mean() - maps[other]["retrieval"].mean()).max()
        print(f"{name:38}{row['overlap']:>15}{row['spearman']:>10.3f}{change:>16.3f}")


if __name__ == "__main__":
    main()
