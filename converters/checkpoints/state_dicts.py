"""Weights files into named tensors, and named tensors into a module.

A file is untrusted: no code in it is run (``weights_only=True``), it may not be compressed, and no
tensor may claim to be larger than the numbers that are there. Accepted are ``torch.save``'s files
of a state_dict, also inside a dict as training scripts write it, and safetensors.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from vkconv.converters.checkpoints.safetensors import read_safetensors
from vkconv.errors import InvalidInputError, InvalidModelError

__all__ = ["StateDict", "fill", "read_state_dict"]

StateDict = dict[str, torch.Tensor]

#: where training scripts put weights, the averaged ones first
_PLACES = ("ema", "state_dict", "model", "model_state_dict", "module", "weights", "net")
#: what data parallelism, compilation and averaging put in front of every name
_PREFIXES = ("module.", "_orig_mod.")
_LARGEST_TOTAL = 8 << 30
#: how often numbers may be shared: heads of several levels hold one convolution under three names
_MOST_SHARED = 8
_MOST_TENSORS = 100_000
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Name -> tensor of a weights file, on the CPU, in the file's types, without prefixes.

    Raises InvalidInputError for a file that cannot be read and InvalidModelError for one that
    holds something else than weights, with what to do about it.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        reason = "not a file" if os.path.exists(name) else "no such file"
        raise InvalidInputError(f"cannot read the weights '{name}': {reason}")
    try:
        if name.lower().endswith(".safetensors"):
            return _without_prefixes(_checked(read_safetensors(name), name))
        return _without_prefixes(_checked(_state_in(_loaded(name), name), name))
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInputError(f"cannot read the weights '{name}': {reason}") from error


def _loaded(name: str) -> object:
    """What a torch.save file holds, provided that it is plain data."""
    _refuse_compression(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(name, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidModelError(_remedy(name, str(error))) from None
    except OSError:
        raise
    # A damaged file fails in the zip reader, in the unpickler or in a tensor's constructor.
    except Exception as error:
        raise InvalidModelError(
            f"the weights '{name}' are damaged or not written by torch.save: "
            f"{' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from None


def _refuse_compression(name: str) -> None:
    """torch.save stores without compression: a file that unpacks to more is not its work."""
    try:
        if not zipfile.is_zipfile(name):
            return
        with zipfile.ZipFile(name) as archive:
            entries = archive.infolist()
    except OSError:
        raise
    # damaged directories fail in many ways: BadZipFile, struct.error, UnicodeDecodeError...
    except Exception as error:
        raise InvalidModelError(
            f"the weights '{name}' are a damaged zip file: {' '.join(str(error).split())[:200]}"
        ) from None
    unpacked = sum(entry.file_size for entry in entries)
    if any(
        entry.compress_type != zipfile.ZIP_STORED for entry in entries
    ) or unpacked > os.path.getsize(name):
        raise InvalidModelError(
            f"the weights '{name}' unpack to more than the file holds, which torch.save never "
            "writes; get them from a source you trust"
        )


def _remedy(name: str, message: str) -> str:
    """How to save a state_dict, for a file that holds an object of the training code."""
    found = re.search(r"GLOBAL ([\w.]{1,100})", message)
    if found is None:
        return (
            f"the weights '{name}' are damaged or not written by torch.save; save a state_dict: "
            "torch.save(model.state_dict(), 'weights.pt')"
        )
    kind, file = found[1], os.path.basename(name)
    inside = "['state_dict']" if kind.startswith(("mmengine", "mmcv", "mmdet")) else "['model']"
    state = inside if "state" in inside else f"{inside}.float().state_dict()"
    return (
        f"the weights '{name}' hold a Python object ({kind}), and unpickling it would run code of "
        "the file; where you trust the file and have its training code, save the state_dict alone: "
        f"import torch; state = torch.load('{file}', map_location='cpu', weights_only=False)"
        f"{state}; torch.save(state, '{os.path.splitext(file)[0]}_state.pt')"
    )


def _state_in(loaded: object, name: str) -> Mapping[object, object]:
    """The state_dict in what was loaded: itself, or under one of the usual names."""
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        if any(isinstance(value, torch.Tensor) for value in loaded.values()):
            return loaded
        # an entry may be there and None: a training that does not average
        inner = [loaded[place] for place in _PLACES if isinstance(loaded.get(place), Mapping)]
        loaded = inner[0] if inner else None
    raise InvalidModelError(
        f"the weights '{name}' hold no state_dict, neither by itself nor under "
        f"{', '.join(repr(place) for place in _PLACES)}; save one: "
        "torch.save(model.state_dict(), 'weights.pt')"
    )


def _checked(state: Mapping[Any, object], name: str) -> StateDict:
    """Only plain tensors, none larger than the memory behind it."""
    result: StateDict = {}
    storages: dict[int, int] = {}
    total = 0
    if len(state) > _MOST_TENSORS:
        raise InvalidModelError(f"the weights '{name}' have {len(state)} entries: too many")
    for key, value in state.items():
        if not isinstance(key, str):
            raise InvalidModelError(f"the weights '{name}' have a key that is no text: {key!r:.40}")
        if not isinstance(value, torch.Tensor):
            # numbers and texts beside the weights carry nothing that is needed
            continue
        plain = type(value) in (torch.Tensor, nn.Parameter) and value.layout == torch.strided
        if not plain or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            raise InvalidModelError(
                f"the weights '{name}': '{key}' is no plain tensor ({value.dtype}, {value.layout})"
            )
        size = value.numel() * value.element_size()
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        total += size
        if size > storage.nbytes():
            raise InvalidModelError(f"the weights '{name}': '{key}' is larger than its numbers")
        result[key] = value.detach()
    # what is shared is spread out when it becomes parameters
    if total > min(_LARGEST_TOTAL, _MOST_SHARED * sum(storages.values())):
        raise InvalidModelError(
            f"the weights '{name}' stand for {total >> 20} MiB, which is more than they may"
        )
    return result


def _without_prefixes(state: StateDict) -> StateDict:
    for prefix in _PREFIXES * 2:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def fill(
    module: nn.Module, state: Mapping[str, torch.Tensor], name: str, *, unused: Collection[str] = ()
) -> nn.Module:
    """Give every parameter and buffer of ``module`` its tensor, in float32; returns the module.

    The module may lie on the meta device. ``unused`` are keys it needs no place for; counts of
    batches (``num_batches_tracked``) may be missing. Raises InvalidModelError naming the key that
    is missing, left over, of another shape, or not a finite number; ``name`` is the file's.
    """
    wanted = module.state_dict()
    counts = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = [key for key in wanted if key not in state and key not in counts]
    if missing:
        raise InvalidModelError(
            f"the weights '{name}' lack '{missing[0]}'{_more(missing)}, which the network needs; "
            "give the weights that belong to it"
        )
    surplus = [key for key in state if key not in wanted and key not in unused]
    if surplus:
        raise InvalidModelError(
            f"the weights '{name}' have '{surplus[0]}'{_more(surplus)}, for which the network has "
            "no place; give the weights that belong to it"
        )
    for key, place in wanted.items():
        if key in state and state[key].shape != place.shape:
            raise InvalidModelError(
                f"the weights '{name}': '{key}' has shape {tuple(state[key].shape)}, but the "
                f"network needs {tuple(place.shape)}"
            )
    given = {key: _number(state[key], key, name) for key in wanted if key in state}
    given |= {key: torch.zeros((), dtype=torch.int64) for key in counts}
    # assigned, not copied: the module has no memory of its own yet
    module.load_state_dict(given, assign=True)
    return module.requires_grad_(False)


def _number(value: torch.Tensor, key: str, name: str) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return value
    if value.dtype not in _FLOATS:
        raise InvalidModelError(f"the weights '{name}': '{key}' has type {value.dtype}, not float")
    converted = value.to(torch.float32).contiguous()
    if not bool(torch.isfinite(converted).all()):
        raise InvalidModelError(f"the weights '{name}': '{key}' has numbers that are not finite")
    return converted


def _more(keys: Collection[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""
