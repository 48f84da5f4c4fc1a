"""Opening models: by name, folder, GGUF file, or already in memory."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from headscope.backends.base import Backend
from headscope.backends.discover import check_decoder
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.selftest import self_test
from headscope.smollm2 import kept_folder, smollm2_folder
from headscope.sources import KINDS, check_kind, first_line, hub_answers, local_path

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_SPREADS = ("auto", "balanced", "balanced_low_0", "sequential", "disk")
BackendName = Literal["hf", "nnsight", "lens"]


def load(
    spec: Any,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    backend: BackendName | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    quantization: Any = None,
    revision: str | None = None,
) -> HeadModel:
    """Open a causal language model.

    Args:
        spec: "smollm2" (built in), a Hugging Face id, a local folder, a `.gguf` file, or a model
            in memory: a transformers model, a TransformerBridge or an nnsight model, which is
            given back unchanged. For the backends "nnsight" and "lens" a transformers model is
            copied without its weights, which the copy shares.
        tokenizer: the tokenizer, where `spec` is a transformers model in memory; elsewhere, one to
            use instead of the model's own.
        backend: "hf", "nnsight" or "lens"; where `spec` is a model in memory, its own.
        dtype: bfloat16 on a GPU and float32 on a CPU if left out.
        device: where to; a GPU if there is one. Not together with `device_map`.
        device_map: transformers' own, to spread a model over several devices.
        quantization: a transformers quantization config, handed on as it is.
        revision: the branch, tag or commit of a Hugging Face id; its main branch if left out.

    A model in memory stays as it is: of the last five it takes what it has already.

    Raises:
        HeadscopeError: there is no such model, device or backend, a file is damaged, or headscope
            cannot see all of its attention.
    """
    if backend not in (None, *get_args(BackendName)):
        raise HeadscopeError(f"There is no backend {backend!r}; use hf, nnsight or lens.")
    if tokenizer is not None and not callable(tokenizer):
        raise HeadscopeError(
            "Pass the tokenizer itself, such as AutoTokenizer.from_pretrained(name), instead of "
            f"{tokenizer!r}."
        )
    if not isinstance(spec, str | Path):
        opened = _adopt(spec, tokenizer, backend)
        _check_as_it_is(opened.hf, dtype, device, device_map, quantization, revision)
        return opened
    if device is not None and device_map is not None:
        raise HeadscopeError("Give device or device_map, not both.")
    options = (dtype, device, device_map, quantization, revision)
    hf, tokenizer, found = _read(str(spec), tokenizer, *options)
    return _open(hf, tokenizer, str(spec), found, backend or "hf", owned=True)


def _adopt(
    model: Any, tokenizer: PreTrainedTokenizerBase | None, backend: BackendName | None
) -> HeadModel:
    kind = type(model).__module__.split(".")[0]
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise HeadscopeError("Pass the model's tokenizer too: load(model, tokenizer).")
        spec = model.config._name_or_path or type(model).__name__
        revision = getattr(model.config, "_commit_hash", None)
        return _open(model, tokenizer, spec, revision, backend or "hf", owned=False)
    own: dict[str, BackendName] = {"nnsight": "nnsight", "transformer_lens": "lens"}
    if kind not in own:
        raise HeadscopeError(
            f"A {type(model).__name__} is no model that headscope knows: pass a name, a folder, a "
            ".gguf file, a transformers model, a TransformerBridge or an nnsight model."
        )
    if backend not in (None, own[kind]):
        raise HeadscopeError(f"A {type(model).__name__} runs on the {own[kind]} backend only.")
    opened = _open(model, tokenizer or model.tokenizer, "", None, own[kind], owned=False)
    opened.spec = opened.hf.config._name_or_path or type(opened.hf).__name__
    return opened


def _check_as_it_is(
    hf: PreTrainedModel, dtype: Any, device: Any, device_map: Any, quantization: Any, revision: Any
) -> None:
    """Refuse options that only the reading of a model can follow, where they are not so already."""
    given = {
        "dtype": (dtype, lambda: _dtype(dtype, "") == hf.dtype),
        "device": (device, lambda: _is_on(hf.device, device)),
        "device_map": (device_map, lambda: device_map == getattr(hf, "hf_device_map", None)),
        "quantization": (
            quantization,
            lambda: quantization == getattr(hf.config, "quantization_config", None),
        ),
        "revision": (revision, lambda: revision == getattr(hf.config, "_commit_hash", None)),
    }
    for name, (value, agrees) in given.items():
        if value is not None and not agrees():
            raise HeadscopeError(
                f"This {type(hf).__name__} is in memory already, and {name}={str(value)!r} is not "
                "what it has: leave it out, and convert the model before it is opened."
            )


def _is_on(there: torch.device, wanted: Any) -> bool:
    _check_device(wanted)
    place = torch.device(wanted)
    return place.type == there.type and place.index in (None, there.index)


def read_gguf(
    path: Path, dtype: torch.dtype = torch.float32, tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer from a GGUF file, dequantised.

    Args:
        tokenizer: one to use instead.

    Raises:
        HeadscopeError: the file is no GGUF file that transformers can read.
    """
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with _quiet():
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(**where)
            hf = AutoModelForCausalLM.from_pretrained(**where, dtype=dtype)
    except Exception as error:  # a damaged file makes its readers raise almost anything
        raise HeadscopeError(
            f"{path} cannot be read as a GGUF model: {first_line(error)}"
        ) from error
    # What is in memory is plain now; transformers would refuse to save it as quantised.
    vars(hf.config).pop("quantization_config", None)
    vars(hf).update(hf_quantizer=None, is_quantized=False)
    return hf, tokenizer


def _read(
    spec: str,
    tokenizer: PreTrainedTokenizerBase | None,
    dtype: Any,
    device: Any,
    device_map: Any,
    quantization: Any,
    revision: str | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str | None]:
    where = device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = _dtype(dtype, str(where))
    for place in device_map.values() if isinstance(device_map, dict) else (device_map or where,):
        if place not in _SPREADS:
            _check_device(place)
    path = smollm2_folder() if spec == "smollm2" else local_path(spec)
    if path is not None and revision is not None:
        raise HeadscopeError(f"{spec} is no Hugging Face id, so it has no revision {revision!r}.")
    if path is not None and path.suffix == ".gguf":
        hf, tokenizer = read_gguf(path, dtype, tokenizer)
        return _placed(hf, where).eval(), tokenizer, None
    source = spec if path is None else str(path)
    offline = path is None and not hub_answers()
    common: dict[str, Any] = {"local_files_only": offline}
    if revision is not None:
        common["revision"] = revision
    options: dict[str, Any] = {"dtype": dtype}
    if quantization is not None:
        options["quantization_config"] = quantization
    if device_map is not None:
        options["device_map"] = device_map
    try:
        with _quiet():
            check_kind(AutoConfig.from_pretrained(source, **common), spec)
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(source, **common)
            read: Any = AutoModelForCausalLM.from_pretrained(
                source, **common, **options, output_loading_info=True
            )
            hf, found = read  # the second because of output_loading_info
    except HeadscopeError:
        raise
    except Exception as error:  # a damaged file makes its readers raise almost anything
        advice = f" Give {KINDS}." if path is None else ""
        raise HeadscopeError(
            f"{spec!r} cannot be opened: {_why(error, offline, path)}{advice}"
        ) from error
    if found["missing_keys"]:
        raise HeadscopeError(
            f"{spec!r} cannot be opened: it holds no weights for {min(found['missing_keys'])} of a "
            f"{type(hf).__name__}, so that it is no causal language model, or not all of one."
        )
    if device_map is None and quantization is None:
        hf = _placed(hf, where)
    return hf.eval(), cast(Any, tokenizer), getattr(hf.config, "_commit_hash", None)


def _why(error: Exception, offline: bool, path: Path | None) -> str:
    if offline and isinstance(error, OSError):
        return "it is not in the Hugging Face cache, and the hub cannot be reached."
    again = f"delete {path} and get the model again."
    if isinstance(error, SafetensorError | json.JSONDecodeError):
        what = "weights are" if isinstance(error, SafetensorError) else "tokenizer or config is"
        again = again if path == kept_folder() else "get the model again."
        return f"its {what} damaged ({first_line(error)[:-1]}); {again}"
    if path is not None and path == kept_folder():
        return f"its files are not whole ({first_line(error)[:-1]}); {again}"
    return first_line(error)


def _check_device(device: Any) -> None:
    """Refuse a device that this machine does not have, before a model is read for it."""
    try:
        torch.zeros(1, device=device).item()  # a device without numbers, "meta", raises too
    except (RuntimeError, AssertionError, TypeError) as error:
        raise HeadscopeError(
            f"There is no device {str(device)!r} on this machine; use cpu, or cuda where there is "
            "a GPU."
        ) from error


def _placed(hf: PreTrainedModel, device: Any) -> PreTrainedModel:
    return cast(Any, hf).to(device)  # transformers' own wrapper of it hides its signature


def _open(
    hf: Any,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    revision: str | None,
    backend: BackendName,
    owned: bool,
) -> HeadModel:
    made = _backend(hf, tokenizer, backend, owned)
    check_layers(made)
    self_test(made)
    return HeadModel(made, tokenizer, spec, revision)


def check_layers(backend: Backend) -> None:
    """Refuse a model whose attention, as far as it was found, is not what headscope is about.

    Raises:
        HeadscopeError: no layer has heads, or a layer attends in both directions.
    """
    name = type(backend.hf).__name__
    if not backend.layers:
        raise HeadscopeError(f"{name} has no softmax attention, so that there are no heads.")
    for found in backend.layers:
        if not getattr(found.module, "is_causal", True):
            raise HeadscopeError(
                f"{name}, layer {found.layer} uses attention in both directions; headscope reads "
                "causal language models only."
            )


def _backend(hf: Any, tokenizer: Any, name: BackendName, owned: bool) -> Backend:
    if name == "hf":
        from headscope.backends.hf import HFBackend

        return HFBackend(hf)
    if isinstance(hf, PreTrainedModel):
        check_decoder(hf)  # each of the others fails on what is none in a way of its own
    try:
        if name == "nnsight":
            from nnsight import TransformersModel

            from headscope.backends.nnsight import NNsightBackend

            if isinstance(hf, PreTrainedModel):
                # nnsight leaves its own forward and state in the modules of the model it wraps.
                hf = hf if owned else _sharing(hf)
                hf = TransformersModel(hf, tokenizer=tokenizer, task="text-generation")
            return NNsightBackend(hf)
        from transformer_lens.model_bridge import TransformerBridge

        from headscope.backends.lens import LensBackend
    except ImportError as error:
        raise HeadscopeError(
            f"The {name} backend needs a package that is not installed ({error.name}); "
            f"pip install 'headscope[{name}]'."
        ) from error
    if isinstance(hf, PreTrainedModel):
        # TransformerLens replaces the attention modules of the model it is given.
        hf = hf if owned else _sharing(hf)
        hf = _boot(TransformerBridge, hf, tokenizer)
    return LensBackend(hf)


def _sharing(hf: PreTrainedModel) -> PreTrainedModel:
    """A copy with modules and configs of its own, on the very same weights and buffers."""
    return copy.deepcopy(
        hf, {id(tensor): tensor for tensor in chain(hf.parameters(), hf.buffers())}
    )


def _boot(bridge: Any, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    """A bridge around a model; TransformerLens wants names even where it is given the objects."""
    name = hf.config._name_or_path or type(hf).__name__
    if not hf.config.architectures:
        hf.config.architectures = [type(hf).__name__]
    with TemporaryDirectory() as folder:
        if not tokenizer.init_kwargs.get("name_or_path"):
            tokenizer.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
        try:
            return bridge.boot_transformers(name, hf_model=hf, tokenizer=tokenizer)
        except (ValueError, AttributeError, RuntimeError) as error:
            raise HeadscopeError(
                f"TransformerLens cannot open {name}: {first_line(error)} Use backend='hf'."
            ) from error


def _dtype(dtype: torch.dtype | str | None, device: str) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not (isinstance(found, torch.dtype) and found in _DTYPES):
        raise HeadscopeError(f"{dtype!r} is no dtype; use float32, bfloat16 or float16.")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bars."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
