"""InferenceSession: a model on a device, shaped like onnxruntime's.

Loading reads, checks and rewrites the graph once. A plan is made for each set of input shapes met (at load when the
model fixes them) and kept in a small cache.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from vkconv.capabilities import DeviceInfo
from vkconv.device import open_device
from vkconv.device.base import Device
from vkconv.errors import InvalidInputError, UnsupportedModelError, VkconvError
from vkconv.ir import Array, Graph, TensorType
from vkconv.onnx_reader import read_model
from vkconv.passes import infer_and_fold, rewrite
from vkconv.placement import Placement, problems
from vkconv.plan import ConstantStore
from vkconv.profiler import Profile
from vkconv.stages import Stage

PLAN_CACHE_SIZE = 8
PRECISIONS = ("fp32",)

_ONNX_TYPES = {"float32": "float", "float64": "double", "float16": "float16"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output as onnxruntime describes it: ``shape`` holds ints, names of dynamic dims, or None."""

    name: str
    shape: list[int | str | None]
    type: str


@dataclass(frozen=True)
class ModelMetadata:
    """What the exporter wrote beside the graph."""

    custom_metadata_map: dict[str, str]
    producer_name: str
    graph_name: str
    opset: int


class InferenceSession:
    """A model, planned and ready to run.

    model: path of an .onnx file, its bytes, or an onnx.ModelProto.
    device: "auto" (discrete, then integrated, then CPU driver), an index or part of a name from ``vkconv.devices()``,
        or "reference" (numpy, slow, for comparison).
    precision: "fp32".
    strict: refuse models of which a node would run on the host.

    Raises InvalidModelError, UnsupportedModelError (lists every node concerned), DeviceError.
    """

    def __init__(
        self,
        model: Any,
        *,
        device: str | int = "auto",
        precision: str = "fp32",
        strict: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise InvalidInputError(
                f"precision '{precision}' is not one of: {', '.join(PRECISIONS)}"
            )
        self._graph = read_model(model)
        self._check_supported()
        self._inputs = [_node_arg(v.name, v.type) for v in self._graph.inputs]
        self._outputs = [
            _node_arg(n, v.type)
            for n, v in zip(self._graph.output_names, self._graph.outputs, strict=True)
        ]
        self._input_types = [v.known_type for v in self._graph.inputs]
        self._strict = strict
        self._store = ConstantStore()
        self._stages: OrderedDict[tuple[tuple[int, ...], ...], Stage] = OrderedDict()
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._device: Device | None = open_device(device)
        try:
            if all(t.is_static for t in self._input_types):
                self._stage(tuple(t.dims for t in self._input_types))
            else:
                infer_and_fold(self._graph)
                rewrite(self._graph)
        except BaseException:
            self.close()
            raise

    # --- what the model is ------------------------------------------------------------------------------------

    def get_inputs(self) -> list[NodeArg]:
        """Inputs that ``run`` needs, in the model's order (initializers are not among them)."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        return list(self._outputs)

    def get_modelmeta(self) -> ModelMetadata:
        graph = self._graph
        return ModelMetadata(
            dict(graph.metadata), graph.producer, graph.name, graph.opsets.get("", 0)
        )

    @property
    def device(self) -> DeviceInfo:
        return self._open_device().info

    @property
    def placement(self) -> list[Placement]:
        """Where each node of the model runs, in its order: for the shapes planned last."""
        with self._lock:
            stage = next(reversed(self._stages.values()), None)
        if stage is None:
            return [
                Placement(name, op, "deferred", "planned when the input shapes are known")
                for name, op in self._graph.source_nodes
            ]
        return stage.placement()

    def describe_plan(self) -> str:
        """The steps of the plan made last, as text."""
        with self._lock:
            stage = next(reversed(self._stages.values()), None)
        return (
            stage.describe()
            if stage
            else "no plan yet: the model's input shapes are dynamic; run it once"
        )

    # --- running ----------------------------------------------------------------------------------------------

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Run the model: one submit for a graph without host steps.

        feeds: every input by name, in its ONNX dtype and shape. output_names: those wanted, in that order; None
        for all. Returns arrays of their own in the model's dtypes and shapes. Raises InvalidInputError on a wrong
        name, dtype, rank or size, DeviceError when the device fails.
        """
        wanted = self._wanted(output_names)
        arrays = self._checked_feeds(feeds)
        stage = self._stage(tuple(a.shape for a in arrays.values()))
        results = stage.run(arrays)
        return [results[i] for i in wanted]

    def profile(self, feeds: Mapping[str, Any]) -> Profile:
        """As ``run``, but with the time of every step."""
        arrays = self._checked_feeds(feeds)
        stage = self._stage(tuple(a.shape for a in arrays.values()))
        began = time.perf_counter()
        outputs, times = stage.profile(arrays)
        return Profile(self.device.name, times, time.perf_counter() - began, outputs)

    def close(self) -> None:
        """Free everything the session holds; more than once does no harm."""
        device, self._device = self._device, None
        if device is None:
            return
        with self._lock:
            for stage in self._stages.values():
                stage.close()
            self._stages.clear()
        device.close()

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------------------------------

    def _open_device(self) -> Device:
        if self._device is None:
            raise VkconvError("the session is closed; open another InferenceSession")
        return self._device

    def _check_supported(self) -> None:
        found = problems(self._graph)
        if found:
            raise UnsupportedModelError.from_nodes(found)

    def _stage(self, shapes: tuple[tuple[int, ...], ...]) -> Stage:
        device = self._open_device()
        with self._lock:
            if shapes in self._stages:
                self._stages.move_to_end(shapes)
                return self._stages[shapes]
            graph = self._graph.copy()
            for value, type_, shape in zip(graph.inputs, self._input_types, shapes, strict=True):
                value.type = TensorType(type_.dtype, shape)
            stage = Stage(graph, device, self._store, self._report_host_nodes)
            self._stages[shapes] = stage
            while len(self._stages) > PLAN_CACHE_SIZE:
                self._stages.popitem(last=False)[1].close()
            return stage

    def _report_host_nodes(self, graph: Graph) -> None:
        """One warning names the nodes that run on the host; ``strict`` refuses them."""
        if self._open_device().caps.host_only:
            return
        nodes = [n for n in graph.nodes if n.host_reason and n.name not in self._warned]
        if not nodes:
            return
        self._warned.update(n.name for n in nodes)
        listed = "; ".join(f"{n}: {n.host_reason}" for n in nodes)
        if self._strict:
            raise UnsupportedModelError(
                f"strict=True, and these nodes would run on the host: {listed}"
            )
        warnings.warn(f"nodes that run on the host: {listed}", RuntimeWarning, stacklevel=4)

    def _wanted(self, names: Sequence[str] | None) -> list[int]:
        known = [o.name for o in self._outputs]
        if names is None:
            return list(range(len(known)))
        for name in names:
            if name not in known:
                raise InvalidInputError(
                    f"the model has no output '{name}'; its outputs: {', '.join(known)}"
                )
        return [known.index(name) for name in names]

    def _checked_feeds(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        surplus = [name for name in feeds if name not in {i.name for i in self._inputs}]
        if surplus:
            names = ", ".join(i.name for i in self._inputs)
            raise InvalidInputError(f"the model has no input '{surplus[0]}'; its inputs: {names}")
        symbols: dict[str, int] = {}
        arrays: dict[str, Array] = {}
        for arg, type_ in zip(self._inputs, self._input_types, strict=True):
            if arg.name not in feeds:
                raise InvalidInputError(
                    f"input '{arg.name}' ({arg.type}, shape {arg.shape}) is missing"
                )
            arrays[arg.name] = _checked(arg, type_, np.asarray(feeds[arg.name]), symbols)
        return arrays


def _checked(arg: NodeArg, type_: TensorType, array: Array, symbols: dict[str, int]) -> Array:
    """The array when it fits the input's dtype, rank and size; ``symbols`` holds the dynamic dims met so far."""
    is_text = type_.dtype == "string" and array.dtype.kind in "OSU"
    if array.dtype.name != type_.dtype and not is_text:
        raise InvalidInputError(
            f"input '{arg.name}' is {array.dtype.name}, the model takes {type_.dtype}; convert it with "
            f".astype('{type_.dtype}')"
        )
    if type_.shape is None:
        return array
    if array.ndim != len(type_.shape):
        raise InvalidInputError(
            f"input '{arg.name}' has rank {array.ndim} (shape {array.shape}), the model takes rank "
            f"{len(type_.shape)} (shape {arg.shape})"
        )
    for axis, (size, dim) in enumerate(zip(array.shape, type_.shape, strict=True)):
        known = symbols.setdefault(dim, size) if isinstance(dim, str) else dim
        if known is not None and size != known:
            raise InvalidInputError(
                f"input '{arg.name}' has size {size} along axis {axis}, the model takes {known} (shape {arg.shape})"
            )
    return array


def _node_arg(name: str, type_: TensorType | None) -> NodeArg:
    if type_ is None:
        return NodeArg(name, [], "")
    shape = [] if type_.shape is None else list(type_.shape)
    return NodeArg(name, shape, f"tensor({_ONNX_TYPES.get(type_.dtype, type_.dtype)})")
