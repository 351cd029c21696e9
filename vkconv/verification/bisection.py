"""The smallest part of a model that still fails, in a folder that can be attached to a bug report.

model.onnx     the part, of the model's own nodes
inputs.npz     what it is fed with: the values that the run had there
expected.npz   what the reference makes of them
tuning.json    the part of the tuning record that chose its kernels, where one did
README.md      versions, device, the command that shows the fault
"""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vkconv
from vkconv.errors import InvalidInputError, InvalidModelError, VkconvError
from vkconv.files import write_bytes
from vkconv.fusion.engines import run_on_reference
from vkconv.ir import Array, TensorType, type_of
from vkconv.onnx_reader import Source, open_model, without_functions
from vkconv.onnx_writer import StoredModel
from vkconv.onnx_writer.extraction import sub_model
from vkconv.ops.registry import is_registered
from vkconv.verification.checks import NodeCheck
from vkconv.verification.results import Verification

__all__ = ["Bisection", "bisect"]

#: the tuning record's part, in the folder
RECORD = "tuning.json"
#: how many nodes the parts that are tried reach back from the one that differs
_DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128)

#: runs and compares a model on these inputs; of the values named, those that the run has are kept
Verify = Callable[[Any, Mapping[str, Array], Iterable[str]], Verification]


@dataclass(frozen=True)
class Bisection:
    """What was written.

    nodes: how many the part has. reproduces: whether the fault shows in the part alone; where it
    does not show in any part, the folder holds the whole model.
    """

    folder: str
    nodes: int
    reproduces: bool
    verdict: str


@dataclass(frozen=True)
class _Part:
    stored: StoredModel
    feeds: dict[str, Array]
    nodes: int


def bisect(model: Any, found: Verification, folder: str, verify: Verify) -> Bisection:
    """Write the smallest part of ``model`` that differs as ``found`` does to ``folder``, which is
    made unless it is there and empty.

    verify: runs a model as ``found`` was made. Raises InvalidInputError where nothing differs, or
    the folder cannot be written.
    """
    if found.holds:
        raise InvalidInputError("nothing differs, so there is no part to export")
    check_folder(folder)
    source = without_functions(open_model(model), is_registered)
    if found.first is not None:
        for part in _parts(source, model, found, verify):
            try:
                again = verify(part.stored.to_bytes(), part.feeds, ())
            except VkconvError:
                continue
            if not again.holds:
                return _write(folder, part, again, True)
    part = _whole(source, found)
    return _write(folder, part, found, False)


def check_folder(folder: str) -> None:
    """Raises InvalidInputError unless files can be written to ``folder``, which may not exist
    yet."""
    path = Path(folder)
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InvalidInputError(
                f"'{folder}' is there and not an empty folder; name another for the sub-model"
            )
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"the folder '{folder}' cannot be made: {error.strerror or error}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidInputError(f"no permission to write to '{folder}'")


# --- parts, smallest first ---------------------------------------------------------------------


def _parts(source: Source, model: Any, found: Verification, verify: Verify) -> Iterable[_Part]:
    """Parts that end at the first node that differs, and reach back ever farther."""
    first = found.first
    assert first is not None
    checks = {check.node: check for check in found.checks}
    producer = {name: check for check in checks.values() for name in check.outputs}
    borders = [_border(first, producer, depth) for depth in _DEPTHS]
    names = {name for border in borders for name in border} | set(first.outputs)
    known = dict(verify(model, found.feeds, names).kept) | dict(found.feeds)
    seen: set[frozenset[str]] = set()
    for border in borders:
        inputs = {n: known[n] for n in (*border, *found.feeds) if n in known}
        outputs = {n: type_of(known[n]) for n in first.outputs if n in known}
        key = frozenset(border)
        if key in seen or not outputs:
            continue
        seen.add(key)
        try:
            yield _part(source, inputs, outputs)
        except InvalidModelError:
            continue


def _border(first: NodeCheck, producer: Mapping[str, NodeCheck], depth: int) -> list[str]:
    """Names of the values that ``depth`` nodes before (and with) the first one start from."""
    border = dict.fromkeys(first.inputs)
    for _ in range(depth - 1):
        wider: dict[str, None] = {}
        for name in border:
            made_by = producer.get(name)
            wider.update(dict.fromkeys(made_by.inputs if made_by is not None else (name,)))
        border = wider
    return list(border)


def _part(source: Source, inputs: Mapping[str, Array], outputs: dict[str, TensorType]) -> _Part:
    types = {name: type_of(array) for name, array in inputs.items()}
    stored, given = sub_model(source, types, outputs)
    if not stored.is_one_file:
        raise InvalidModelError("the part does not fit one file")
    return _Part(stored, {name: inputs[name] for name in given}, len(stored.to_proto().graph.node))


def _whole(source: Source, found: Verification) -> _Part:
    stored = StoredModel(source.model, source.folder)
    return _Part(stored, dict(found.feeds), len(source.model.graph.node))


# --- the folder --------------------------------------------------------------------------------


def _write(folder: str, part: _Part, again: Verification, reproduces: bool) -> Bisection:
    path = Path(folder)
    part.stored.save(str(path / "model.onnx"))
    write_bytes(str(path / "inputs.npz"), _npz(part.feeds), "the inputs")
    try:
        expected = run_on_reference(str(path / "model.onnx"), [part.feeds])[0]
        write_bytes(str(path / "expected.npz"), _npz(expected), "the expected outputs")
    except VkconvError:
        expected = {}
    if again.record:
        write_bytes(str(path / RECORD), again.record.encode(), "the tuning record")
    made = Bisection(folder, part.nodes, reproduces, again.verdict)
    write_bytes(str(path / "README.md"), _readme(made, again, bool(expected)).encode(), "the notes")
    return made


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    # an array's name may be that of savez's own parameter
    named = {("file_" if name == "file" else name): array for name, array in arrays.items()}
    np.savez(buffer, **named)  # type: ignore[arg-type]
    return buffer.getvalue()


def _readme(made: Bisection, found: Verification, has_expected: bool) -> str:
    first = found.first
    kernels = ", ".join(first.kernels) if first is not None else ""
    if first is not None and first.tuned:
        kernels += f" (chosen by tuning: {', '.join(first.tuned.values())})"
    rows = [
        ("result", made.verdict),
        ("nodes", str(made.nodes)),
        ("shows alone", "yes" if made.reproduces else "no: this is the whole model"),
        ("kernel", kernels or "-"),
        ("device", f"{found.device.name} [{found.device.kind}]"),
        ("driver", f"{found.device.driver}, Vulkan {found.device.api_version}"),
        ("vkconv", vkconv.__version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("numpy", np.__version__),
    ]
    rows += [(k, v) for k, v in sorted(os.environ.items()) if k in SWITCHES]
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in rows)
    expected = (
        "`expected.npz` holds what the reference (numpy) makes of `inputs.npz`.\n"
        if has_expected
        else ""
    )
    record = f" --tuning {RECORD}" if found.record else ""
    return (
        "# A model that gives wrong results\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n{expected}"
        "To see the fault, in this folder:\n\n"
        f"```\nvkconv verify model.onnx --inputs inputs.npz{record}\n```\n"
    )


#: of the environment, what changes results and tells nothing about the user
SWITCHES = ("VKCONV_DEVICE", "VKCONV_DISABLE", "VKCONV_LIMITS", "VKCONV_TIMEOUT")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
