"""The runtimes, each behind three methods. Only the process that measures one makes its class.

A class loads a model and turns numpy arrays into numpy arrays: conversions it needs for that count
as its time. Its library is imported when it is made.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from vkconv.ir import Array

__all__ = ["CLASSES", "NotMeasured", "Runtime"]

Job = Mapping[str, Any]


class NotMeasured(Exception):
    """Why a runtime cannot be measured, in words for the table."""


class Runtime(Protocol):
    """``load`` ends when the first ``run`` can start."""

    #: packages whose versions are shown
    packages: ClassVar[tuple[str, ...]]

    def load(self, job: Job, feeds: Mapping[str, Array]) -> None: ...

    def run(self) -> Sequence[Array]: ...

    def device(self) -> str: ...


class Vkconv(Runtime):
    packages = ("vkconv",)

    def __init__(self) -> None:
        import vkconv

        self._open = vkconv.InferenceSession

    def load(self, job: Job, feeds: Mapping[str, Array]) -> None:
        self.feeds = feeds
        self.session = self._open(job["model"], device=job["device"])

    def run(self) -> Sequence[Array]:
        return self.session.run(None, self.feeds)

    def device(self) -> str:
        info = self.session.device
        return f"{info.name}, {info.driver}, Vulkan {info.api_version}"


class Torch(Runtime):
    """The module itself in eager mode, as its users run it: torch does not read ONNX."""

    packages = ("torch",)

    def __init__(self) -> None:
        self._torch = importlib.import_module("torch")

    def load(self, job: Job, feeds: Mapping[str, Array]) -> None:
        if not job["torch"]:
            raise NotMeasured("torch does not read ONNX: it needs the torch module, by --torch")
        if job["threads"]:
            self._torch.set_num_threads(job["threads"])
        sys.path[:0] = job["paths"]
        name, _, function = job["torch"].partition(":")
        self._net = getattr(importlib.import_module(name), function)().eval()
        self._inputs = [self._torch.from_numpy(array) for array in feeds.values()]

    def run(self) -> Sequence[Array]:
        with self._torch.inference_mode():
            outputs = self._net(*self._inputs)
        listed = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return [y.numpy() for y in listed]

    def device(self) -> str:
        return f"CPU, {self._torch.get_num_threads()} threads"


class OnnxRuntime(Runtime):
    packages = ("onnxruntime",)

    def __init__(self) -> None:
        self._library = importlib.import_module("onnxruntime")

    def load(self, job: Job, feeds: Mapping[str, Array]) -> None:
        self._feeds = dict(feeds)
        options = self._library.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.log_severity_level = 4
        self._session = self._library.InferenceSession(
            job["model"], options, providers=["CPUExecutionProvider"]
        )

    def run(self) -> Sequence[Array]:
        results: Sequence[Array] = self._session.run(None, self._feeds)
        return results

    def device(self) -> str:
        return "CPU"


class Ncnn(Runtime):
    """The Vulkan backend of ncnn. pnnx calls the input in0, the outputs out0, out1, ..."""

    packages = ("ncnn", "pnnx")
    fp32 = True

    def __init__(self) -> None:
        self._library = importlib.import_module("ncnn")

    def load(self, job: Job, feeds: Mapping[str, Array]) -> None:
        if "reason" in job["ncnn"]:
            raise NotMeasured(job["ncnn"]["reason"])
        image = next(iter(feeds.values()))
        if len(feeds) != 1 or image.shape[0] != 1:
            raise NotMeasured("ncnn is measured on models with one input, one image at a time")
        self._image = image[0]
        param, weights = job["ncnn"]["files"]
        lines = Path(param).read_text().splitlines()
        self._outputs = sum("out" in name[:3] for line in lines for name in line.split()[2:])
        self._net = net = self._library.Net()
        net.opt.use_vulkan_compute = True
        if job["threads"]:
            net.opt.num_threads = job["threads"]
        if self.fp32:
            net.opt.use_fp16_packed = net.opt.use_fp16_storage = False
            net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
        if not self._library.get_gpu_count():
            raise NotMeasured("ncnn finds no Vulkan device")
        self._index = self._device_index(job["device_name"])
        net.set_vulkan_device(self._index)
        if net.load_param(param) or net.load_model(weights):
            raise NotMeasured(self._lacking(lines[2:]))
        self._elsewhere = sorted({x.type for x in net.layers() if not x.support_vulkan})

    def _lacking(self, lines: Sequence[str]) -> str:
        """Why a net of these layers cannot be loaded."""
        kinds = sorted({line.split()[0] for line in lines if line.strip()})
        lacking = [kind for kind in kinds if self._library.layer_to_index(kind) < 0]
        if not lacking:
            return "ncnn cannot load what pnnx wrote"
        return f"ncnn has no layer {', '.join(lacking)}, which pnnx leaves as it is"

    def _device_index(self, name: str) -> int:
        """The number that ncnn gives to the device that vkconv used."""
        count = range(self._library.get_gpu_count())
        names = [self._library.get_gpu_info(i).device_name() for i in count]
        if name and name not in names:
            raise NotMeasured(f"ncnn does not offer the device {name}, only {', '.join(names)}")
        return names.index(name) if name else 0

    def run(self) -> Sequence[Array]:
        extractor = self._net.create_extractor()
        extractor.input("in0", self._library.Mat(self._image))
        results = [extractor.extract(f"out{i}") for i in range(self._outputs)]
        if any(status for status, _ in results):
            raise NotMeasured("ncnn fails in a layer that pnnx made")
        return [np.array(mat)[None] for _, mat in results]

    def device(self) -> str:
        name = str(self._library.get_gpu_info(self._index).device_name())
        return name + "".join(f", {kind} on the CPU" for kind in self._elsewhere)


class NcnnDefaults(Ncnn):
    """As ncnn sets itself up, with half precision where the device has it."""

    fp32 = False


class OpenCV(Runtime):
    """OpenCV's DNN module with its Vulkan target, which few builds contain."""

    packages = ("opencv-python-headless", "opencv-python", "opencv-contrib-python")

    def __init__(self) -> None:
        self._library = importlib.import_module("cv2")

    def load(self, job: Job, feeds: Mapping[str, Array]) -> None:
        dnn = self._library.dnn
        # setPreferableBackend would fall back to the CPU without an error
        if dnn.DNN_TARGET_VULKAN not in dnn.getAvailableTargets(dnn.DNN_BACKEND_VKCOM):
            raise NotMeasured("this build of OpenCV has no Vulkan target")
        self._inputs = dict(feeds)
        self._net = dnn.readNetFromONNX(job["model"])
        self._net.setPreferableBackend(dnn.DNN_BACKEND_VKCOM)
        self._net.setPreferableTarget(dnn.DNN_TARGET_VULKAN)
        self._names = self._net.getUnconnectedOutLayersNames()

    def run(self) -> Sequence[Array]:
        for name, array in self._inputs.items():
            self._net.setInput(array, name)
        return list(self._net.forward(self._names))

    def device(self) -> str:
        return "OpenCV's choice"


CLASSES: dict[str, type[Runtime]] = {
    "vkconv": Vkconv,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "ncnn": Ncnn,
    "ncnn-defaults": NcnnDefaults,
    "opencv": OpenCV,
}
