"""Modules as .onnx files, by both of torch's exporters."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

Exporter = Literal["legacy", "dynamo"]
INPUT = "images"
#: axes of an input that a dynamic export leaves open: the size's name, and what divides it (which
#: torch.export wants to be told)
OpenAxes = Mapping[int, tuple[str, int]]
STEP = 32
OPEN_AXES: OpenAxes = {0: ("batch", 1), 2: ("height", STEP), 3: ("width", STEP)}


def export(
    module: nn.Module,
    shape: Sequence[int],
    path: Path,
    *,
    exporter: Exporter = "legacy",
    opset: int = 17,
    dynamic: bool = False,
    outputs: Sequence[str] = ("output",),
) -> Path:
    """Write ``module`` for an input of ``shape`` to ``path``.

    "legacy" records the module by TorchScript; "dynamo" goes by torch.export and keeps the weights
    in a second file. Both fold a batch normalization into the convolution before it. ``dynamic``
    leaves batch, height and width open.
    """
    return export_inputs(
        module,
        {INPUT: torch.zeros(tuple(shape))},
        path,
        exporter=exporter,
        opset=opset,
        open_axes={INPUT: OPEN_AXES} if dynamic else None,
        outputs=outputs,
    )


def export_inputs(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    path: Path,
    *,
    exporter: Exporter,
    opset: int,
    open_axes: Mapping[str, OpenAxes] | None = None,
    outputs: Sequence[str] = ("output",),
    translations: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Path:
    """``export`` for a module of several inputs, given as examples in the order it takes them.

    ``open_axes`` names for each input what a dynamic export leaves open; ``translations``
    says how the dynamo exporter writes operators that are not torch's.
    """
    names = {
        name: {axis: label for axis, (label, _) in axes.items()}
        for name, axes in (open_axes or {}).items()
    }
    # both exporters report progress and deprecations which are not this project's
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={**{name: {0: "batch"} for name in outputs}, **names}
                if names
                else None,
            )
        else:
            shapes = tuple(_dynamic_shape((open_axes or {}).get(name, {})) for name in inputs)
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes if names else None,
                custom_translation_table=dict(translations or {}),
                verbose=False,
            )
    return path


def _dynamic_shape(axes: OpenAxes) -> dict[int, object]:
    """As torch.export wants it: a size is a whole number of steps."""
    return {
        axis: step * torch.export.Dim(label, min=1, max=64)
        if step > 1
        else torch.export.Dim(label, min=1, max=64)
        for axis, (label, step) in axes.items()
    }
