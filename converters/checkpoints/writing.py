"""A checkpoint as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.exporting import export
from vkconv.converters.exporting.report import ExportReport

__all__ = ["write_onnx"]


def write_onnx(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    batch: int | str = 1,
    classes: Sequence[str] | None = None,
) -> ExportReport:
    """Reparameterize, export, fuse, compare with PyTorch, and write; see ``export``.

    size:     (height, width), multiples of the checkpoint's step; None takes its own.
    batch:    pictures at a time, or "dynamic".
    classes:  names instead of the checkpoint's.

    The file has the input ``images`` and the checkpoint's outputs, and says in its metadata how
    vkconv-run feeds and reads a detector.
    """
    height, width = size or checkpoint.size
    # different pixels everywhere: equal ones would hide what is swapped
    generator = torch.Generator().manual_seed(0)
    pictures = 1 if batch == "dynamic" else int(batch)
    example = torch.rand(pictures, 3, height, width, generator=generator)
    return export(
        checkpoint.module,
        (example,),
        path,
        dynamic="batch" if batch == "dynamic" else None,
        classes=classes if classes is not None else checkpoint.classes,
        head=checkpoint.head or None,
        input_scale=1.0 / 255.0 if checkpoint.head else None,
        input_names=("images",),
        output_names=checkpoint.outputs,
    )
