"""Whether a model can be opened, found out from its config alone."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from headscope.errors import HeadscopeError
from headscope.loading import check_layers
from headscope.smollm2 import kept_folder
from headscope.sources import KINDS, check_kind, first_line, hub_answers, local_path


@dataclass(frozen=True)
class Checked:
    """What a model's config says, and whether headscope would see its heads.

    Attributes:
        problem: why it cannot be opened; None if it can.
    """

    spec: str
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    context_length: int
    parameters: int
    window: int | None
    problem: str | None


def check_model(spec: str) -> Checked:
    """Build the model without weights and let it run on shapes; nothing but a config is fetched.

    Raises:
        HeadscopeError: there is no such config, or no causal language model is made from it.
    """
    from headscope.backends.hf import HFBackend

    config = _config(spec)
    check_kind(config, spec)
    text = config.get_text_config()
    try:
        with torch.device("meta"):
            hf = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    except Exception as error:  # a config that does not hang together fails anywhere
        raise HeadscopeError(
            f"transformers makes no causal language model from {spec!r}: {first_line(error)}"
        ) from error
    problem = None
    heads = getattr(text, "num_attention_heads", 0)
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    d_head = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
    layers = text.num_hidden_layers
    try:
        with warnings.catch_warnings(action="ignore"):  # of what real passes would take
            backend = HFBackend(hf)
        check_layers(backend)
        found = backend.layers
        layers, d_head = len(found), found[0].d_head
        heads, kv_heads = found[0].n_heads, found[0].n_kv_heads
    except HeadscopeError as error:
        problem = str(error)
    except (RuntimeError, AttributeError, TypeError) as error:
        # Some models look at numbers on their way, and shapes have none.
        problem = (
            f"Whether headscope can open {spec} cannot be told from its config alone "
            f"({first_line(error)[:-1]}); open it with headscope.load to find out."
        )
    return Checked(
        spec=spec,
        architecture=type(hf).__name__,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        d_head=d_head,
        context_length=getattr(text, "max_position_embeddings", 0) or 0,
        parameters=sum(p.numel() for p in hf.parameters()),
        window=getattr(text, "sliding_window", None),
        problem=problem,
    )


def _config(spec: str) -> Any:
    path = local_path(spec) if spec != "smollm2" else kept_folder()
    if path is None and spec == "smollm2":
        raise HeadscopeError(
            "The built-in model is not on this machine yet, and a check fetches no weights; "
            "`headscope scan smollm2` fetches it (93 MB, once)."
        )
    where = {"pretrained_model_name_or_path": spec if path is None else str(path)}
    if path is not None and path.suffix == ".gguf":
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    offline = path is None and not hub_answers()
    try:
        return AutoConfig.from_pretrained(**where, local_files_only=offline)
    except Exception as error:  # a damaged file makes its readers raise almost anything
        why = "it is not in the Hugging Face cache, and the hub cannot be reached."
        why = why if offline and isinstance(error, OSError) else first_line(error)
        advice = f" Give {KINDS}." if path is None else ""
        raise HeadscopeError(f"The config of {spec!r} cannot be read: {why}{advice}") from error
