"""Modules as .onnx files, by both of torch's exporters."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

Exporter = Literal["legacy", "dynamo"]
INPUT = "images"
#: axes that a dynamic export leaves open
DYNAMIC_AXES = {0: "batch", 2: "height", 3: "width"}
#: what the maps of a dynamic export divide by: torch.export wants to be told
STEP = 32


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
    example = torch.zeros(tuple(shape))
    # both exporters report progress and deprecations which are not this project's
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            axes = {name: {0: "batch"} for name in outputs} | {INPUT: DYNAMIC_AXES}
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes=axes if dynamic else None,
            )
        else:
            batch, rows, columns = (
                torch.export.Dim(name, min=1, max=64) for name in ("batch", "rows", "columns")
            )
            open_axes = {0: batch, 2: STEP * rows, 3: STEP * columns}
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=(open_axes,) if dynamic else None,
                verbose=False,
            )
    return path
