"""An exported model against the module it was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vkconv.converters.exporting.arguments import OpenAxes, Signature, larger, named_outputs
from vkconv.errors import FusionError
from vkconv.fusion import Comparison, FusedModel
from vkconv.fusion.engines import (
    has_onnxruntime,
    run_on_device,
    run_on_onnxruntime,
    run_on_reference,
)
from vkconv.fusion.proof import compare
from vkconv.onnx_reader import open_model

__all__ = ["verify_export"]

Tensors = tuple[torch.Tensor, ...]


def verify_export(
    module: nn.Module,
    taken: Signature,
    axes: OpenAxes,
    fused: FusedModel,
    output_names: Sequence[str],
) -> list[Comparison]:
    """Each output of ``fused`` against ``module``'s, on inputs as :func:`trial_inputs` has them.

    Raises FusionError, naming the output, where they differ, or where nothing could run the model.
    """
    checks: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="vkconv-") as folder:
        path = Path(folder) / "fused.onnx"
        fused.save(path)
        kept = {value.name for value in open_model(path).model.graph.input}
        for rounds in trial_inputs(taken, axes):
            wanted = [_outputs(module, taken, tensors, output_names) for tensors in rounds]
            feeds = [_feeds(taken, tensors, kept) for tensors in rounds]
            try:
                engine, found = _run(path, feeds)
            except _CannotRun as reasons:
                raise FusionError(_refusal(feeds[0], bool(checks), str(reasons))) from None
            for name in output_names:
                pairs = [(w[name], np.asarray(f[name])) for w, f in zip(wanted, found, strict=True)]
                checks.append(compare(name, engine, pairs))
                _refuse_difference(checks[-1], feeds[0])
    return [
        max((check for check in checks if check.output == name), key=lambda check: check.nmse)
        for name in output_names
    ]


def trial_inputs(taken: Signature, axes: OpenAxes) -> list[list[Tensors]]:
    """The example inputs and random ones in their range; where sizes are open, larger ones too.

    Whole numbers stay as they are: what they may be, only the caller knows.
    """
    generator = torch.Generator().manual_seed(7)

    def random(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        low, high = float(tensor.min()), float(tensor.max())
        if low == high:
            low, high = 0.0, 1.0
        drawn = torch.rand(tensor.shape, generator=generator).to(tensor)
        return drawn * (high - low) + low

    rounds = [[taken.tensors, tuple(map(random, taken.tensors))]]
    if axes:
        rounds.append([tuple(map(random, larger(taken, axes)))])
    return rounds


@torch.no_grad()
def _outputs(
    module: nn.Module, taken: Signature, tensors: Tensors, names: Sequence[str]
) -> dict[str, Any]:
    args, kwargs = taken.arguments([tensor.clone() for tensor in tensors])
    result = named_outputs(module(*args, **kwargs), names)
    return {name: tensor.cpu().numpy() for name, tensor in result.items()}


def _feeds(taken: Signature, tensors: Tensors, kept: set[str]) -> dict[str, Any]:
    arrays = (tensor.detach().cpu().numpy() for tensor in tensors)
    return {name: x for name, x in zip(taken.names, arrays, strict=True) if name in kept}


def _run(path: Path, feeds: Sequence[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """An engine's name and its outputs: onnxruntime's, else this package's own."""
    reasons = []
    engines = [("vkconv (device)", run_on_device("auto")), ("vkconv (numpy)", run_on_reference)]
    if has_onnxruntime():
        engines.insert(0, ("onnxruntime", run_on_onnxruntime))
    for name, engine in engines:
        try:
            return name, engine(str(path), feeds)
        except Exception as error:  # onnxruntime raises kinds of its own
            reasons.append(f"{name}: {' '.join(str(error).split())[:160]}")
    raise _CannotRun("; ".join(reasons))


class _CannotRun(Exception):
    """No engine runs the model; why, for each."""


def _refusal(feeds: dict[str, Any], runs_elsewhere: bool, reasons: str) -> str:
    if not runs_elsewhere:
        return f"the exported model cannot be compared with the module: {reasons}"
    return (
        f"the exported model is not written: unlike the module, it runs on the example inputs only "
        f"and not on {_sizes(feeds)}; the module's code makes numbers of sizes, so leave them out "
        f"of 'dynamic' ({reasons})"
    )


def _refuse_difference(check: Comparison, feeds: dict[str, Any]) -> None:
    if not check.holds:
        raise FusionError(
            f"the exported model is not written: its output '{check.output}' differs from the "
            f"module's for inputs of size {_sizes(feeds)}: NMSE {check.nmse:.1e} on "
            f"{check.engine}, {check.limit:g} is allowed"
        )


def _sizes(feeds: dict[str, Any]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, x.shape))}" for name, x in feeds.items())
