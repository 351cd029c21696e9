"""One runtime in a process of its own: what ``scripts/bench`` starts for every block of runs.

    python scripts/bench_runtimes.py '{"runtime": "vkconv", "model": "model.onnx", ...}'

The last line of stdout is JSON: times, memory, versions, or why there are none. The class of
a runtime loads a model and turns numpy arrays into numpy arrays: conversions it needs for that
count as its time. A library is imported by the one class that needs it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench_models import NotMeasured, convert_for_ncnn, export_net, make_net

Array = NDArray[Any]


class Runtime(Protocol):
    """What a class below offers. ``load`` ends when the first ``run`` can start."""

    #: packages whose versions are printed
    packages: tuple[str, ...]

    def load(self, job: Mapping[str, Any], feeds: Mapping[str, Array]) -> None: ...

    def run(self) -> Sequence[Array]: ...

    def device(self) -> dict[str, str]: ...


class Vkconv:
    packages = ("vkconv",)

    def __init__(self) -> None:
        import vkconv

        self._open = vkconv.InferenceSession

    def load(self, job: Mapping[str, Any], feeds: Mapping[str, Array]) -> None:
        self._feeds = feeds
        self._session = self._open(job["model"], device=job["device"])

    def run(self) -> Sequence[Array]:
        return self._session.run(None, self._feeds)

    def device(self) -> dict[str, str]:
        info = self._session.device
        return {"name": info.name, "driver": f"{info.driver}, Vulkan {info.api_version}"}


class Torch:
    """The module itself in eager mode, as its users run it: torch does not read ONNX."""

    packages = ("torch",)

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def load(self, job: Mapping[str, Any], feeds: Mapping[str, Array]) -> None:
        if job["net"] is None:
            raise NotMeasured("torch does not read ONNX; it is measured with --net")
        if job["threads"]:
            self._torch.set_num_threads(job["threads"])
        self._net = make_net(job["net"])
        (self._image,) = feeds.values()

    def run(self) -> Sequence[Array]:
        with self._torch.inference_mode():
            outputs = self._net(self._torch.from_numpy(self._image))
        return [y.numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def device(self) -> dict[str, str]:
        return {"name": "CPU", "driver": f"{self._torch.get_num_threads()} threads"}


class OnnxRuntime:
    packages = ("onnxruntime",)

    def __init__(self) -> None:
        import onnxruntime

        self._library = onnxruntime

    def load(self, job: Mapping[str, Any], feeds: Mapping[str, Array]) -> None:
        self._feeds = dict(feeds)
        options = self._library.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.log_severity_level = 3
        self._session = self._library.InferenceSession(
            job["model"], options, providers=["CPUExecutionProvider"]
        )

    def run(self) -> Sequence[Array]:
        return self._session.run(None, self._feeds)

    def device(self) -> dict[str, str]:
        return {"name": "CPU"}


class Ncnn:
    """The Vulkan backend of ncnn. pnnx calls the input in0, the outputs out0, out1, ..."""

    packages = ("ncnn", "pnnx")
    fp32 = True

    def __init__(self) -> None:
        import ncnn

        self._library = ncnn

    def load(self, job: Mapping[str, Any], feeds: Mapping[str, Array]) -> None:
        (image,) = feeds.values()
        if image.shape[0] != 1:
            raise NotMeasured("ncnn runs one image at a time; use --batch 1")
        self._image = image[0]
        param, weights = job["ncnn_files"]
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
            raise NotMeasured("ncnn cannot load what pnnx wrote")

    def _device_index(self, name: str) -> int:
        """The number that ncnn gives to the device that vkconv used."""
        names = [
            self._library.get_gpu_info(i).device_name()
            for i in range(self._library.get_gpu_count())
        ]
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

    def device(self) -> dict[str, str]:
        return {"name": self._library.get_gpu_info(self._index).device_name()}


class NcnnDefaults(Ncnn):
    """As ncnn sets itself up, with half precision where the device has it."""

    fp32 = False


class OpenCV:
    """OpenCV's DNN module with its Vulkan target, which few builds contain."""

    packages = ("opencv-python-headless", "opencv-python", "opencv-contrib-python")

    def __init__(self) -> None:
        import cv2

        self._library = cv2

    def load(self, job: Mapping[str, Any], feeds: Mapping[str, Array]) -> None:
        dnn = self._library.dnn
        # setPreferableBackend would fall back to the CPU without an error
        if dnn.DNN_TARGET_VULKAN not in dnn.getAvailableTargets(dnn.DNN_BACKEND_VKCOM):
            raise NotMeasured("this build of OpenCV has no Vulkan target")
        (self._image,) = feeds.values()
        self._net = dnn.readNetFromONNX(job["model"])
        self._net.setPreferableBackend(dnn.DNN_BACKEND_VKCOM)
        self._net.setPreferableTarget(dnn.DNN_TARGET_VULKAN)
        self._names = self._net.getUnconnectedOutLayersNames()

    def run(self) -> Sequence[Array]:
        self._net.setInput(self._image)
        return list(self._net.forward(self._names))

    def device(self) -> dict[str, str]:
        return {"name": "OpenCV's choice"}


RUNTIMES: dict[str, type[Runtime]] = {
    "vkconv": Vkconv,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "ncnn": Ncnn,
    "ncnn-defaults": NcnnDefaults,
    "opencv": OpenCV,
}


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load and run once (the time to the first result), warm up, note the time of each run."""
    with np.load(job["feeds"]) as stored:
        feeds = dict(stored)
    try:
        runtime = RUNTIMES[job["runtime"]]()
    except ImportError as error:
        raise NotMeasured(f"{error.name} is not installed") from None
    clock = time.perf_counter
    began = clock()
    runtime.load(job, feeds)
    outputs = runtime.run()
    first = clock() - began
    np.savez(job["outputs"], *outputs)
    until = clock() + job["warm_up"]
    for _ in range(2):
        runtime.run()
    while clock() < until:
        runtime.run()
    times: list[float] = []
    until = clock() + job["seconds"]
    while len(times) < job["least_runs"] or clock() < until:
        began = clock()
        runtime.run()
        times.append(clock() - began)
    versions = {name: version(name) for name in runtime.packages}
    return {
        "first": first,
        "times": times,
        "peak": peak_memory(),
        "device": runtime.device(),
        "versions": {name: v for name, v in versions.items() if v},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def peak_memory() -> int:
    """The most bytes this process held. On Linux ru_maxrss starts with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main() -> None:
    job = json.loads(sys.argv[1])
    work = {"export": export_net, "pnnx": convert_for_ncnn}.get(job["runtime"], measure)
    try:
        reply = work(job)
    except NotMeasured as error:
        reply = {"reason": str(error)}
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        reply = {"reason": f"{type(error).__name__}: {first_line}"}
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
    # without the destructors of the libraries measured, some of which abort at exit
    os._exit(0)
