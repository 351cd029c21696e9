"""InferenceSession: a model on a device, shaped like onnxruntime's.

Loading reads, checks and rewrites the graph once. A plan is made for each set of input shapes met
(at load when the model fixes them) and kept in a small cache. Threads may share a session: their
runs take turns, since a plan's memory holds one run at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vkconv.arguments import (
    ModelMetadata,
    NodeArg,
    arranged,
    checked_feeds,
    node_arg,
    positions,
    zeros,
)
from vkconv.async_runs import AsyncRuns
from vkconv.capabilities import DeviceChoice, DeviceInfo
from vkconv.device import open_device
from vkconv.device.base import Device
from vkconv.errors import DeviceError, InvalidInputError, VkconvError
from vkconv.host_report import HostReport
from vkconv.image_inputs import ImageInput, ImageInputs, describe
from vkconv.io_binding import IOBinding
from vkconv.ir import Array
from vkconv.loading import ModelSource
from vkconv.memory_report import MemoryReport, report_memory
from vkconv.profiler import Profile
from vkconv.stage_cache import Shapes, StageCache
from vkconv.stages import Stage
from vkconv.tuning import TunedChoices, Tuning

if TYPE_CHECKING:
    from vkconv.placement import Placement

PRECISIONS = ("fp32",)


class InferenceSession:
    """A model, planned and ready to run.

    model: path of an .onnx file, its bytes, or an onnx.ModelProto.
    device: "auto" (discrete, then integrated, then CPU driver), one of ``vkconv.devices()``, its
        index or part of its name, "reference" (numpy, slow, for comparison), or "kompute" (kp).
    precision: "fp32".
    strict: refuse models of which a node would run on the host.
    images: inputs that are fed with pixels, uint8 (N, H, W, C), and converted on the device: an
        ImageInput for each by name, or one for all inputs that take images.
    tune: time the kernels there are for each layer shape that the tuning record does not know, and
        keep what is found in it: True (up to two minutes), or a Tuning. Without it nothing is
        timed.
    tuning: the tuning record's file, instead of VKCONV_TUNING or the user's own.

    Raises InvalidModelError, UnsupportedModelError (lists every node concerned), DeviceError.
    """

    def __init__(
        self,
        model: Any,
        *,
        device: DeviceChoice = "auto",
        precision: str = "fp32",
        strict: bool = False,
        images: ImageInput | Mapping[str, ImageInput] | None = None,
        tune: bool | Tuning = False,
        tuning: str | os.PathLike[str] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise InvalidInputError(
                f"precision '{precision}' is not one of: {', '.join(PRECISIONS)}"
            )
        source = ModelSource(model, describe(images))
        search = Tuning() if tune is True else tune or None
        if search is not None:
            source.check_tunable()
        host_report = HostReport(strict)
        #: held while planning and running; one thread may enter it twice (a warning filter that
        #: looks at the session)
        self._lock = threading.RLock()
        self._async_runs = AsyncRuns()
        #: what ``close`` gives back, the last first
        self._held = ExitStack()
        self._device: Device | None = None
        try:
            opened = open_device(device)
        except DeviceError:
            source.check()  # what is wrong with the model comes first
            raise
        self._device = opened
        self._held.callback(opened.close)
        try:
            host_report.expected = opened.caps.host_only
            self._tuned = TunedChoices(opened, tuning, writes=search is not None)
            loaded = source.load(opened, None if search else self._tuned.digest)
            self._loaded = loaded
            self._images = ImageInputs(images, loaded.inputs, loaded.normalisation)
            loaded.images = self._images.model_types
            fed = [(name, self._images.type_of(name, type_)) for name, type_ in loaded.inputs]
            self._inputs = [node_arg(name, type_) for name, type_ in fed]
            self._input_types = [type_ for _, type_ in fed]
            self._outputs = [node_arg(name, type_) for name, type_ in loaded.outputs]
            self._stages = StageCache(
                loaded,
                self._input_types,
                self._images,
                opened,
                host_report,
                self._tuned,
                search,
            )
            self._held.callback(self._stages.close)
            if loaded.is_static:
                self._stages.find(tuple(t.dims for t in self._input_types))
        except BaseException:
            self.close()
            raise

    # --- what the model is -----------------------------------------------------------------------

    def get_inputs(self) -> list[NodeArg]:
        """Inputs that ``run`` needs, in the model's order (initializers are not among them)."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        return list(self._outputs)

    def get_modelmeta(self) -> ModelMetadata:
        graph = self._loaded.graph
        opset = graph.opsets.get("", 0)
        return ModelMetadata(dict(graph.metadata), graph.producer, graph.name, opset)

    @property
    def device(self) -> DeviceInfo:
        return self._open_device().info

    @property
    def placement(self) -> list[Placement]:
        """Where each node of the model runs, in its order: for the shapes planned last."""
        with self._lock:
            self._open_device()
            stage = self._stages.latest
            if stage is not None:
                return stage.placement()
        from vkconv.placement import Placement

        return [
            Placement(name, op, "deferred", "planned when the input shapes are known")
            for name, op in self._loaded.graph.source_nodes
        ]

    def describe_plan(self) -> str:
        """The steps of the plan made last, as text."""
        with self._lock:
            self._open_device()
            stage = self._stages.latest
            if stage is not None:
                return stage.describe()
        return "no plan yet: the model's input shapes are dynamic; run it once"

    @property
    def image_inputs(self) -> dict[str, NodeArg]:
        """Inputs that take pixels and are converted on the device, as the model itself has them."""
        return {name: node_arg(name, type_) for name, type_ in self._images.model_types.items()}

    def set_image_input(self, name: str, image: ImageInput) -> None:
        """Other numbers to normalise an input's pixels by, from the next run on. The input is one
        that the session was opened with as an image."""
        with self._lock:
            self._images.change(name, image)

    # --- running ---------------------------------------------------------------------------------

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Run the model: one submit for a graph without host steps.

        feeds: every input by name, in its ONNX dtype and shape. output_names: those wanted, in that
        order; None or none for all. Returns arrays of their own in the model's dtypes and shapes.
        Raises InvalidInputError on a wrong name, dtype, rank or size, DeviceError when the device
        fails.
        """
        wanted = positions(output_names, self._outputs)
        targets: dict[int, Array | None] = dict.fromkeys(wanted)
        arrays, shapes = self._checked(feeds)
        with self._lock:
            results = self._stage(shapes).run(arrays, targets)
        return arranged(wanted, results)

    def run_async(
        self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]
    ) -> Future[list[Array]]:
        """As ``run``, without waiting: the result, or the error, is the future's.

        Runs are made, and their futures end, in the order of the calls. Two are under way at a
        time: while the device computes one, the next is uploaded and the one before is fetched. The
        feeds must not be written to until then. A future can be cancelled until its run begins.
        """
        self._open_device()

        def start(drain: Callable[[], None]) -> Callable[[], list[Array]]:
            return self._start(output_names, feeds, drain)

        return self._async_runs.submit(start)

    def io_binding(self) -> IOBinding:
        """Arrays for inputs and outputs, to be used by any number of runs."""
        return IOBinding(self._inputs, self._outputs)

    def run_with_iobinding(self, binding: IOBinding) -> None:
        """Run the model on bound inputs, into bound outputs: no tensor is allocated.

        Raises InvalidInputError where an input is not bound or no output is, and as ``run``.
        """
        if not binding.outputs:
            raise InvalidInputError("no output is bound; call bind_output first")
        wanted = positions(list(binding.outputs), self._outputs)
        targets = dict(zip(wanted, binding.outputs.values(), strict=True))
        arrays, shapes = self._checked(binding.inputs)
        with self._lock:
            binding.keep(self._stage(shapes).run(arrays, targets))

    def profile(self, feeds: Mapping[str, Any]) -> Profile:
        """As ``run``, but with the time of every step."""
        arrays, shapes = self._checked(feeds)
        with self._lock:
            stage = self._stage(shapes)
            began = time.perf_counter()
            outputs, times = stage.profile(arrays)
            return Profile(self.device.name, times, time.perf_counter() - began, outputs)

    def warmup(self, feeds: Mapping[str, Any] | None = None) -> None:
        """Run once for nobody: afterwards all is planned, compiled and allocated for these shapes.

        Zeros are fed where ``feeds`` holds no input; an input whose shape is open needs one. Raises
        as ``run``.
        """
        given = dict(feeds or {})
        for arg, type_ in zip(self._inputs, self._input_types, strict=True):
            if arg.name not in given:
                given[arg.name] = zeros(arg, type_)
        self.run(None, given)

    @property
    def memory(self) -> MemoryReport:
        """What the session takes of memory, in bytes; print it."""
        with self._lock:
            self._open_device()
            stages = [s for stage in self._stages.values() for s in stage.stages]
            return report_memory(stages, self._loaded.graph)

    def close(self) -> None:
        """Free everything the session holds, once no run is under way; twice does no harm.

        Of the runs asked for with ``run_async``, those under way come to their end; those that wait
        are cancelled.
        """
        self._async_runs.close()
        with self._lock:
            self._device = None
            self._held.close()

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------

    def _checked(self, feeds: Mapping[str, Any]) -> tuple[dict[str, Array], Shapes]:
        """What the plan takes of the feeds, and their shapes, which choose the plan."""
        arrays = checked_feeds(feeds, self._inputs, self._input_types)
        return self._images.feeds(arrays), tuple(a.shape for a in arrays.values())

    def _start(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Any],
        drain: Callable[[], None],
    ) -> Callable[[], list[Array]]:
        """The first half of an asynchronous run; ``drain`` finishes those before it.

        It does so before this thread waits for the lock: who has that may wait for their lanes.
        """
        wanted = positions(output_names, self._outputs)
        targets: dict[int, Array | None] = dict.fromkeys(wanted)
        arrays, shapes = self._checked(feeds)
        if not self._lock.acquire(blocking=False):
            drain()
            self._lock.acquire()
        try:
            if shapes not in self._stages:
                drain()  # the new plan may take the place of one that they use
            finish = self._stage(shapes).start(arrays, targets, drain)
        finally:
            self._lock.release()

        return lambda: arranged(wanted, finish())

    def _open_device(self) -> Device:
        """The device. Raises VkconvError once the session is closed."""
        if self._device is None:
            raise VkconvError("the session is closed; open another InferenceSession")
        return self._device

    def _stage(self, shapes: Shapes) -> Stage:
        """The stage for these input shapes, planned now unless it is kept. The lock is held."""
        self._open_device()
        return self._stages.find(shapes)
