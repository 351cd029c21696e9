"""``export``: a trained module -> one fused .onnx file that is known to compute the same.

    module --reparameterize--> --torch.onnx--> --vkconv.fuse--> --compare with the module--> file

Every step may only keep what the module computes, and the last one looks: the file's outputs are
compared with those of the module as it was given, on the example inputs, on random numbers in their
range and, where sizes stay open, on inputs of twice the size. A file that differs is not written.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vkconv.converters.exporting.arguments import (
    FlatModule,
    OpenAxes,
    Signature,
    larger,
    named_outputs,
    open_axes,
    signature,
)
from vkconv.converters.exporting.operators import legacy_symbols, translations
from vkconv.converters.exporting.report import ExportReport, metadata
from vkconv.converters.exporting.verification import verify_export
from vkconv.converters.reparameterization import check_frozen, reparameterized
from vkconv.errors import InvalidInputError, UnsupportedModelError
from vkconv.fusion import fuse
from vkconv.onnx_reader import open_model

__all__ = ["export"]

OPSET = 20
"""The newest that both exporters write; it has DeformConv."""

_LARGEST_WEIGHTS = 1_900_000_000
"""Bytes of weights above which they go into a file of their own: ONNX files end at 2 GiB."""


def export(
    module: nn.Module,
    example_inputs: Any,
    path: Any,
    *,
    dynamic: Any = None,
    classes: Sequence[str] | None = None,
    head: str | None = None,
    input_scale: float | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    exporter: Literal["dynamo", "legacy"] | None = None,
    verify: bool = True,
) -> ExportReport:
    """Write ``module`` as a fused ONNX file; what was done, as a report that prints.

    module          in eval mode; it is left as it is
    example_inputs  a tensor, a tuple of arguments, or a dict of named ones
    path            the file, written whole or not at all; weights beyond 2 GB go to ``path.data``
    dynamic         sizes that stay open: "batch" for the first axis of every input; axes with
                    names, {0: "batch", 2: "height", 3: "width"}; or such axes by input name
    classes         names of a detector's classes, in order (metadata vkconv.classes)
    head            how ``vkconv-run`` is to read the output, "yolov7" for one (vkconv.head)
    input_scale     what brings 0..255 to what the module takes, 1/255 for one (vkconv.input_scale)
    input_names     otherwise as forward calls its arguments
    output_names    otherwise the keys of a dict, "output", or "output_0"...
    exporter        torch's "dynamo" or "legacy" (TorchScript) one; None tries them in this order
    verify          compare the file with the module; without, nothing is known of it

    Raises InvalidInputError for arguments that do not fit and for a module in training mode,
    UnsupportedModelError where neither exporter of torch can write the module, FusionError where
    the file's outputs differ.
    """
    check_frozen(module, "export")
    if exporter not in (None, "dynamo", "legacy"):
        raise InvalidInputError(f"exporter={exporter!r} is neither 'dynamo' nor 'legacy'")
    entries = metadata(classes, head, input_scale)
    _check_target(path)
    taken = signature(module, example_inputs, input_names)
    axes = open_axes(dynamic, taken)
    wanted = _run(module, taken, taken.tensors, output_names, "the example inputs")
    if axes:
        size = "inputs of twice the size along the open axes"
        grown = _run(module, taken, larger(taken, axes), output_names, size)
    else:
        grown = wanted
    fused_module, notes = reparameterized(module, example_inputs=example_inputs)
    outputs = _varying_axes(wanted, grown, axes)
    with tempfile.TemporaryDirectory(prefix="vkconv-") as folder:
        raw = Path(folder) / "model.onnx"
        written_by, failures = _write(fused_module, taken, axes, outputs, raw, exporter)
        notes += [f"torch's {name} exporter cannot write it: {why}" for name, why in failures]
        _describe(raw, axes, taken, entries)
        sizes = {name: tuple(x.shape) for name, x in zip(taken.names, taken.tensors, strict=True)}
        fused = fuse(str(raw), shapes=_inputs_left(raw, sizes), prove=False)
        checks = verify_export(module, taken, axes, fused, list(outputs)) if verify else ()
        fused.save(path, overwrite=True)
    return ExportReport(str(path), written_by, OPSET, fused.report, tuple(notes), tuple(checks))


@torch.no_grad()
def _run(
    module: nn.Module,
    taken: Signature,
    tensors: Sequence[torch.Tensor],
    output_names: Sequence[str] | None,
    what: str,
) -> dict[str, torch.Tensor]:
    args, kwargs = taken.arguments([tensor.clone() for tensor in tensors])
    try:
        result = module(*args, **kwargs)
    except Exception as error:
        raise InvalidInputError(
            f"the module does not run on {what}: {_first_line(error)}"
        ) from error
    return named_outputs(result, output_names)


def _varying_axes(
    wanted: Mapping[str, torch.Tensor], grown: Mapping[str, torch.Tensor], axes: OpenAxes
) -> OpenAxes:
    """The axes of each output whose size follows the inputs', named; all outputs are listed."""
    batches = {label for chosen in axes.values() for axis, label in chosen.items() if axis == 0}
    outputs: OpenAxes = {}
    for name, tensor in wanted.items():
        sizes = zip(tensor.shape, grown[name].shape, strict=True)
        varying = [axis for axis, (one, other) in enumerate(sizes) if one != other]
        outputs[name] = {
            axis: next(iter(batches)) if axis == 0 and len(batches) == 1 else f"{name}_{axis}"
            for axis in varying
        }
    return outputs


def _write(
    module: nn.Module,
    taken: Signature,
    axes: OpenAxes,
    outputs: OpenAxes,
    path: Path,
    chosen: str | None,
) -> tuple[str, list[tuple[str, str]]]:
    """Write the raw model; the exporter that did, and why those before it could not."""
    module = module if taken.is_plain else FlatModule(module, taken)
    # sizes of 1 are taken as fixed by torch.export
    tensors = larger(taken, axes, minimum=2)
    weights = sum(x.numel() * x.element_size() for x in module.parameters())
    options: dict[str, dict[str, Any]] = {
        "dynamo": {
            "dynamo": True,
            "dynamic_shapes": _dynamic_shapes(taken, axes),
            "custom_translation_table": translations(),
            "external_data": weights > _LARGEST_WEIGHTS,
            "verbose": False,
        },
        "legacy": {"dynamo": False, "dynamic_axes": {**axes, **outputs} if axes else None},
    }
    failures: list[tuple[str, str]] = []
    for exporter in options if chosen is None else [chosen]:
        try:
            with _quiet(), legacy_symbols():
                torch.onnx.export(
                    module,
                    tensors,
                    str(path),
                    input_names=list(taken.names),
                    output_names=list(outputs),
                    opset_version=OPSET,
                    **options[exporter],
                )
        except Exception as error:
            failures.append((exporter, _first_line(error)))
        else:
            return exporter, failures
    reasons = "; ".join(f"{name}: {why}" for name, why in failures)
    raise UnsupportedModelError(f"torch cannot export {type(module).__name__}: {reasons}")


def _dynamic_shapes(taken: Signature, axes: OpenAxes) -> Any:
    if not axes:
        return None
    shapes = tuple(
        dict.fromkeys(axes.get(name, {}), torch.export.Dim.DYNAMIC) for name in taken.names
    )
    return shapes if taken.is_plain else (shapes,)


def _describe(path: Path, axes: OpenAxes, taken: Signature, entries: Mapping[str, str]) -> None:
    """Add metadata to the raw model and call its open sizes as the caller does.

    The dynamo exporter's notes for debugging go: stack traces, with lines of the user's source and
    the paths of their files.
    """
    model = open_model(path).model
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info,
                 *graph.initializer):  # fmt: skip
        kept = [p for p in part.metadata_props if not p.key.startswith("pkg.torch.")]
        del part.metadata_props[:]
        part.metadata_props.extend(kept)
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)
    renamed = {}
    for value in model.graph.input:
        for axis, label in axes.get(value.name, {}).items():
            dim = value.type.tensor_type.shape.dim[axis]
            renamed[dim.dim_param] = label
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]
    path.write_bytes(model.SerializeToString())


def _inputs_left(path: Path, sizes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Sizes of those inputs that the exporter kept: one the module does not read may be gone."""
    kept = {value.name for value in open_model(path).model.graph.input}
    return {name: shape for name, shape in sizes.items() if name in kept}


def _check_target(path: Any) -> None:
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise InvalidInputError(f"cannot write to '{target}': give a file in a folder that exists")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress reports and advice out of the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    """An exporter's error in a line: the one that began it, without the steps that led there."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= 200 else text[:197] + "..."
