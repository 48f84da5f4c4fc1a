"""Execute the notebooks of this folder, each in a kernel of its own.

    python examples/run.py [NAME ...] [--small] [--out examples/executed]

Prints the seconds of each and stops at the first error. The executed copies, with outputs, are what
the documentation shows; the notebooks themselves are kept without outputs.
"""

import argparse
import os
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

FOLDER = Path(__file__).parent
# What no other user of the machine hears.
PRIVATE = Config() if sys.platform == "win32" else Config(ConnectionFileMixin={"transport": "ipc"})
WITH = ("torch", "transformers", "numpy")


def execute(path: Path, out: Path, small: bool) -> float:
    """Run one notebook and write its executed copy; the seconds that it took."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["HEADSCOPE_SMALL"] = "1" if small else ""
    start = time.perf_counter()
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", config=PRIVATE)
    client.execute()
    seconds = time.perf_counter() - start
    notebook.metadata["headscope"] = {
        "small": small,
        "seconds": seconds,
        "date": date.today().isoformat(),
        "with": " · ".join(f"{name} {version(name)}" for name in ("headscope", *WITH)),
    }
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / path.name)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="notebooks; all of them if left out")
    parser.add_argument("--small", action="store_true", help="at the sizes of CI")
    parser.add_argument(
        "--out", type=Path, default=FOLDER / "executed", help="folder of the executed copies"
    )
    asked = parser.parse_args()
    paths = sorted(FOLDER.glob("*.ipynb"))
    chosen = [path for path in paths if not asked.names or path.stem in asked.names]
    unknown = set(asked.names) - {path.stem for path in paths}
    if unknown:
        known = ", ".join(path.stem for path in paths)
        print(f"There is no notebook {min(unknown)!r}; there are: {known}.", file=sys.stderr)
        return 2
    total = 0.0
    for path in chosen:
        try:
            seconds = execute(path, asked.out, asked.small)
        except CellExecutionError as error:
            print(f"{path.name} stopped at an error:\n{error}", file=sys.stderr)
            return 1
        total += seconds
        print(f"{seconds:6.1f} s  {path.stem}", flush=True)
    print(f"{total:6.1f} s  in all; executed copies are in {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
