"""How quickly a command begins, and what it does without."""

import subprocess
import sys
import time


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['headscope', '--help']\n"
        "from headscope.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "scan" in done.stdout
    assert time.perf_counter() - start < 5  # a wide net: benchmarks hold it to half a second


def test_a_missing_run_is_said_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['headscope', 'validate', 'nowhere']\n"
        "from headscope.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    print(stop.code)\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"
    assert done.stderr == "headscope: There is no run folder nowhere.\n"
