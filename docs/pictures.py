"""Make the pictures of README and docs again, each from the run or the results that it shows.

    headscope scan smollm2 --probes all --out runs/all
    headscope scan smollm2 --probes duo_gate --out runs/duo
    headscope pareto runs/duo --budgets kv=0.2,kv=0.3,kv=0.5 --questions 10 --randoms 4 \\
        --lengths 512 --samples 8 --out runs/pareto.json
    python docs/pictures.py --run runs/all --pareto runs/pareto.json

What is not given is left as it is; the picture of kernels comes from `benchmarks/results`.
"""

import argparse
from pathlib import Path

from headscope import storage
from headscope.bench.result import Bench
from headscope.headmap import HeadMap
from headscope.sparsity import Pareto
from headscope.viz.figures import kernel_speed, pareto
from headscope.viz.head_map import head_map_svg

DOCS = Path(__file__).parent
BENCH = DOCS.parent / "benchmarks" / "results" / "kernels_prefill.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="a scan with all probes")
    parser.add_argument("--pareto", type=Path, help="what headscope pareto kept")
    asked = parser.parse_args()
    made = {"kernels_h100.svg": kernel_speed(_as_dispatched(Bench.load(BENCH))).svg()}
    if asked.run is not None:
        # Scores of every head would treble a file that README shows as a picture.
        made["head_map_smollm2.svg"] = head_map_svg(HeadMap.load(asked.run), tooltips="role")
    if asked.pareto is not None:
        made["pareto_smollm2.svg"] = pareto(Pareto.load(asked.pareto), 0).svg()
    for name, drawn in made.items():
        storage.write(DOCS / name, drawn.encode())
        print(DOCS / name)


def _as_dispatched(found: Bench) -> Bench:
    """Without the rows in which another dispatch was asked for, to compare."""
    rows = [row for row in found.prefill if row.asked == "auto"]
    return found.model_copy(update={"prefill": rows})


if __name__ == "__main__":
    main()
