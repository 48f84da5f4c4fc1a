"""Build the documentation: `python docs/build.py [FOLDER]`, with warnings as errors.

Pages of methods and results are made from the code and from `benchmarks/results`, those of
notebooks from what `examples/run.py` executed, if it did. No network is used.
"""

import os
import subprocess
import sys
from pathlib import Path

from making.site import assemble

ROOT = Path(__file__).parents[1]


def main() -> int:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()
    config = assemble(ROOT / "build" / "docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([*command, "-f", config, "-d", site], env=os.environ | quiet)
    if done.returncode == 0:
        print(f"Documentation: {site / 'index.html'}")
        print(f"With its search: {Path(sys.executable).name} -m http.server -b 127.0.0.1 -d {site}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
