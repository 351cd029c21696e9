"""InferenceSession: a model on a device, shaped like onnxruntime's.

Loading reads, checks and rewrites the graph once. A plan is made for each set of input shapes met
(at load when the model fixes them) and kept in a small cache. Threads may share a session: their
runs take turns, since a plan's memory holds one run at a time.
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
from vkconv.errors import InvalidInputError, NodeProblem, UnsupportedModelError, VkconvError
from vkconv.ir import Array, TensorType, type_of
from vkconv.onnx_reader import read_model
from vkconv.ops.base import is_registered
from vkconv.passes import infer_and_fold, rewrite
from vkconv.placement import Placement, problems
from vkconv.plan import ConstantStore
from vkconv.profiler import Profile
from vkconv.stages import HostNodes, Stage

PLAN_CACHE_SIZE = 8
PRECISIONS = ("fp32",)

_ONNX_TYPES = {"float32": "float", "float64": "double", "float16": "float16"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output as onnxruntime describes it.

    ``shape`` holds ints, names of dynamic dimensions, or None where they have no name.
    """

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
    device: "auto" (discrete, then integrated, then CPU driver), an index or part of a name from
        ``vkconv.devices()``, or "reference" (numpy, slow, for comparison).
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
        graph = self._graph = read_model(model, is_registered)
        if found := problems(graph):
            raise UnsupportedModelError.from_nodes(found)
        self._inputs = [_node_arg(v.name, v.type) for v in graph.inputs]
        self._input_types = [v.known_type for v in graph.inputs]
        declared = [v.type for v in graph.outputs]
        infer_and_fold(graph)
        self._outputs = [
            _node_arg(name, _completed(type_, value.type))
            for name, type_, value in zip(graph.output_names, declared, graph.outputs, strict=True)
        ]
        rewrite(graph)
        self._strict = strict
        self._store = ConstantStore()
        self._stages: OrderedDict[tuple[tuple[int, ...], ...], Stage] = OrderedDict()
        #: held while planning and running; one thread may enter it twice (a warning filter that
        #: looks at the session)
        self._lock = threading.RLock()
        self._warned: set[str] = set()
        self._device: Device | None = open_device(device)
        try:
            if all(t.is_static for t in self._input_types):
                self._stage(tuple(t.dims for t in self._input_types))
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
        graph = self._graph
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
            stage = next(reversed(self._stages.values()), None)
            if stage is not None:
                return stage.placement()
        return [
            Placement(name, op, "deferred", "planned when the input shapes are known")
            for name, op in self._graph.source_nodes
        ]

    def describe_plan(self) -> str:
        """The steps of the plan made last, as text."""
        with self._lock:
            self._open_device()
            stage = next(reversed(self._stages.values()), None)
            if stage is not None:
                return stage.describe()
        return "no plan yet: the model's input shapes are dynamic; run it once"

    # --- running ---------------------------------------------------------------------------------

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Run the model: one submit for a graph without host steps.

        feeds: every input by name, in its ONNX dtype and shape. output_names: those wanted, in that
        order; None or none for all. Returns arrays of their own in the model's dtypes and shapes.
        Raises InvalidInputError on a wrong name, dtype, rank or size, DeviceError when the device
        fails.
        """
        wanted = self._wanted(output_names)
        arrays = self._checked_feeds(feeds)
        with self._lock:
            results = self._stage(tuple(a.shape for a in arrays.values())).run(arrays)
        return [results[i].copy() if i in wanted[:k] else results[i] for k, i in enumerate(wanted)]

    def profile(self, feeds: Mapping[str, Any]) -> Profile:
        """As ``run``, but with the time of every step."""
        arrays = self._checked_feeds(feeds)
        with self._lock:
            stage = self._stage(tuple(a.shape for a in arrays.values()))
            began = time.perf_counter()
            outputs, times = stage.profile(arrays)
            return Profile(self.device.name, times, time.perf_counter() - began, outputs)

    def close(self) -> None:
        """Free everything the session holds, once no run is under way; twice does no harm."""
        with self._lock:
            device, self._device = self._device, None
            if device is None:
                return
            try:
                for stage in self._stages.values():
                    stage.close()
            finally:
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

    # --- inside ----------------------------------------------------------------------------------

    def _open_device(self) -> Device:
        if self._device is None:
            raise VkconvError("the session is closed; open another InferenceSession")
        return self._device

    def _stage(self, shapes: tuple[tuple[int, ...], ...]) -> Stage:
        """The plan for these input shapes, made now unless it is kept. The lock is held."""
        device = self._open_device()
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

    def _report_host_nodes(self, nodes: HostNodes) -> None:
        """One warning names the nodes that run on the host; ``strict`` refuses them."""
        if self._open_device().caps.host_only or not nodes:
            return
        if self._strict:
            listed = "; ".join(f"{node}: {reason}" for node, reason in nodes)
            raise UnsupportedModelError(
                f"strict=True, and these nodes would run on the host: {listed}",
                [NodeProblem(n.name, n.op_type, why, n.opset, "", n.domain) for n, why in nodes],
            )
        new = [(node, reason) for node, reason in nodes if node.name not in self._warned]
        if not new:
            return
        self._warned.update(node.name for node, _ in new)
        listed = "; ".join(f"{node}: {reason}" for node, reason in new)
        # as if from the caller of InferenceSession() or run()
        warnings.warn(f"nodes that run on the host: {listed}", RuntimeWarning, stacklevel=5)

    def _wanted(self, names: Sequence[str] | None) -> list[int]:
        known = [o.name for o in self._outputs]
        if not names:
            return list(range(len(known)))
        if isinstance(names, str):
            raise InvalidInputError(f"output names are a list, as in ['{names}']; None is all")
        for name in names:
            if name not in known:
                listed = ", ".join(known)
                raise InvalidInputError(f"the model has no output '{name}'; its outputs: {listed}")
        return [known.index(name) for name in names]

    def _checked_feeds(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        if not isinstance(feeds, Mapping):
            raise InvalidInputError(
                f"feeds are a dict of arrays by name, not {type(feeds).__name__}"
            )
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
    """The array when it fits the input; ``symbols`` holds the dynamic dimensions met so far."""
    if type_of(array).dtype != type_.dtype:
        raise InvalidInputError(
            f"input '{arg.name}' is {array.dtype.name}, the model takes {type_.dtype}; "
            f"convert it with .astype('{type_.dtype}')"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
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
                f"input '{arg.name}' has size {size} along axis {axis}, the model takes {known} "
                f"(shape {arg.shape})"
            )
    return array


def _completed(declared: TensorType | None, inferred: TensorType | None) -> TensorType | None:
    """The declared type, with what inference knows where it leaves something open."""
    if declared is None or (declared.shape is None and inferred is not None):
        return inferred
    if inferred is None or inferred.shape is None or declared.shape is None:
        return declared
    if len(inferred.shape) != len(declared.shape):
        return inferred
    pairs = zip(declared.shape, inferred.shape, strict=True)
    return TensorType(declared.dtype, tuple(i if isinstance(i, int) else d for d, i in pairs))


def _node_arg(name: str, type_: TensorType | None) -> NodeArg:
    if type_ is None:
        return NodeArg(name, [], "")
    shape = [] if type_.shape is None else list(type_.shape)
    return NodeArg(name, shape, f"tensor({_ONNX_TYPES.get(type_.dtype, type_.dtype)})")
