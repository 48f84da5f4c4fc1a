"""Where models come from: names, folders, files and the hub, and what their readers complain of."""

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
from transformers import PreTrainedConfig

from headscope.errors import HeadscopeError

KINDS = "'smollm2', a Hugging Face id, a model folder or a .gguf file"
_LONG = 240  # characters of a library's message


def local_path(spec: str) -> Path | None:
    """The model folder or GGUF file that a spec names; None where it is an id of the hub.

    Raises:
        HeadscopeError: there is no such folder or file, or it holds no model.
    """
    if not spec.strip():
        raise HeadscopeError(f"Name a model: {KINDS}.")
    path = Path(os.path.expanduser(spec))  # leaves the home of somebody unknown as it is
    if path.suffix == ".gguf":
        if not path.is_file():
            raise HeadscopeError(f"There is no file {path}.")
        return path
    if not path.is_dir():
        if path.is_absolute() or spec.startswith((".", "~")):
            raise HeadscopeError(f"There is no folder {path}.")
        return None
    config = path / "config.json"
    if not config.is_file():
        raise HeadscopeError(f"{path} holds no config.json, so it is no transformers model.")
    try:
        whole = isinstance(json.loads(config.read_bytes()), dict)
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise HeadscopeError(f"{config} is damaged: it is no JSON object; get the model again.")
    return path


def check_kind(config: PreTrainedConfig, spec: str) -> None:
    """Refuse what transformers would open without its encoder.

    Raises:
        HeadscopeError: the config is that of an encoder with a decoder.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise HeadscopeError(
            f"{spec!r} is an encoder with a decoder ({config.model_type}); headscope reads causal "
            "language models only."
        )


def hub_answers() -> bool:
    """Whether the hub can be reached at all: its client would try for most of a minute."""
    if HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True  # a proxy may reach what a plain connection does not
    host = urlsplit(ENDPOINT)
    try:
        with socket.create_connection((host.hostname, host.port or 443), timeout=5):
            return True
    except OSError:
        return False


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or two where it ends in a colon.

    The rest is advice on its own options.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    some = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    some = some if len(some) <= _LONG else some[:_LONG].rsplit(" ", 1)[0] + " …"
    return (some or type(error).__name__).rstrip(".,:") + "."
