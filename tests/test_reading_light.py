"""Commands that only read a run wait for no library that they do not use."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_up import a_map


@pytest.mark.parametrize("command", ["show", "agreement", "compare"])
def test_torch_is_not_imported(command: str, tmp_path: Path) -> None:
    a_map().save(tmp_path / "run")
    runs = [str(tmp_path / "run")] * (2 if command == "compare" else 1)
    code = (
        "import sys; from headscope.cli import main\n"
        f"sys.argv = {['headscope', command, *runs]}\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout
