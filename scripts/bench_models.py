"""The models that ``scripts/bench`` measures: nets of tests/models as ONNX, any ONNX as ncnn's."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
Array = NDArray[Any]
#: nets of tests/models that ``--net`` knows: module, function, size
NETS = {
    "yolov7-tiny": ("tests.models.yolov7_tiny", "yolov7_tiny", 320),
    "resnet18": ("tests.models.resnet", "resnet18", 224),
    "vgg16": ("tests.models.vgg", "vgg16", 224),
    "unet": ("tests.models.unet", "unet", 256),
}


class NotMeasured(Exception):
    """Why a runtime cannot be measured, in words for the table."""


def make_net(name: str) -> Any:
    """The torch module that ``--net`` names."""
    module, function, _ = NETS[name]
    sys.path.insert(0, str(ROOT))
    return getattr(importlib.import_module(module), function)()


def export_net(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write the net as ONNX to ``job["model"]``."""
    net = make_net(job["net"])
    torch = importlib.import_module("torch")
    export = importlib.import_module("tests.models.export").export
    with torch.inference_mode():
        outputs = net(torch.zeros(job["shape"]))
    count = len(outputs) if isinstance(outputs, tuple) else 1
    names = [f"output{i}" for i in range(count)]
    export(net, job["shape"], Path(job["model"]), opset=17, outputs=names)
    return {}


def convert_for_ncnn(job: Mapping[str, Any]) -> dict[str, Any]:
    """Have pnnx convert ``job["model"]``; returns the two files that ncnn reads."""
    program = shutil.which("pnnx", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if program is None:
        raise NotMeasured("pnnx, which converts models for ncnn, is not installed")
    folder = Path(job["folder"])
    model = Path(shutil.copy(job["model"], folder / "net.onnx"))
    shape = str(list(job["shape"])).replace(" ", "")
    done = subprocess.run(
        [program, model.name, f"inputshape={shape}", "fp16=0"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    files = [folder / "net.ncnn.param", folder / "net.ncnn.bin"]
    if done.returncode or not all(file.is_file() for file in files):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise NotMeasured(f"pnnx cannot convert the model: {last[0]}")
    return {"files": [str(file) for file in files]}


def image_input(model: Path, batch: int, size: int) -> tuple[str, list[int]]:
    """Name and concrete shape of the model's input; open dims are the batch, or the size.

    Raises ValueError unless it is one float32 tensor.
    """
    onnx = importlib.import_module("onnx")
    errors = importlib.import_module("google.protobuf.message")
    try:
        graph = onnx.load(model, load_external_data=False).graph
    except errors.DecodeError as error:
        raise ValueError(f"{model} is no ONNX model ({error})") from None
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        names = ", ".join(value.name for value in inputs)
        raise ValueError(f"{model}: only models with one float32 input are measured, not: {names}")
    dims = inputs[0].type.tensor_type.shape.dim
    shape = [d.dim_value or (size if axis else batch) for axis, d in enumerate(dims)]
    return inputs[0].name, shape


def make_feeds(path: Path, name: str, shape: Sequence[int]) -> None:
    """Store reproducible pixels in [0, 1) as the input ``name``."""
    pixels = np.random.default_rng(0).random(tuple(shape), np.float32)
    np.savez(path, **{name: pixels})


def worst_nmse(actual: Path, expected: Path) -> float:
    """The largest NMSE of the stored outputs; infinite when they do not fit each other at all."""
    with np.load(actual) as left, np.load(expected) as right:
        if len(left) != len(right):
            return float("inf")
        return max((_nmse(left[name], right[name]) for name in right), default=0.0)


def _nmse(actual: Array, expected: Array) -> float:
    if actual.size != expected.size or not np.isfinite(actual).all():
        return float("inf")
    error = actual.reshape(-1).astype(np.float64) - expected.reshape(-1)
    power = float(np.sum(np.square(expected, dtype=np.float64)))
    return float(np.sum(error * error)) / max(power, float(np.finfo(np.float32).tiny))
