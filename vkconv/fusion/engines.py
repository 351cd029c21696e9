"""What a proof runs models on: always without fusions, which are what is to be proven.

reference    every operator by numpy, one after the other
device       the kernels, each node by its own
onnxruntime  where it is installed, its graph optimisations off
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vkconv.capabilities import DeviceChoice
from vkconv.device import open_device
from vkconv.errors import InvalidInputError, VkconvError
from vkconv.ir import Array, Graph, TensorType, Value
from vkconv.onnx_reader import read_model
from vkconv.ops.operator import as_tuple
from vkconv.ops.registry import create, is_registered
from vkconv.passes import finish, infer_and_fold, unresolved
from vkconv.plan import ConstantStore, make_plan

__all__ = [
    "Engine",
    "Feeds",
    "has_onnxruntime",
    "run_on_device",
    "run_on_onnxruntime",
    "run_on_reference",
]

Feeds = Mapping[str, Array]
#: outputs by name, of a model (its path or its bytes), for each of these inputs, which are of the
#: same shapes
Engine = Callable[[Any, Sequence[Feeds]], list[dict[str, Any]]]


def run_on_reference(model: Any, feeds: Sequence[Feeds]) -> list[dict[str, Any]]:
    """By the operators' ``reference``."""
    graph = _resolved(model, feeds[0])
    return [_evaluate(graph, given) for given in feeds]


def _evaluate(graph: Graph, feeds: Feeds) -> dict[str, Any]:
    """The outputs, node by node; a value is let go when its last reader has run."""
    known = {value: feeds[value.name] for value in graph.inputs}
    readers = {value: len(nodes) for value, nodes in graph.uses().items()}
    for value in graph.outputs:
        readers[value] = readers.get(value, 0) + 1

    def array_of(value: Value) -> Array:
        return np.asarray(value.array) if value.is_constant else known[value]

    for node in graph.nodes:
        given = [None if value is None else array_of(value) for value in node.inputs]
        try:
            with np.errstate(all="ignore"):
                results = as_tuple(create(node).reference(*given))
        except VkconvError as error:
            raise type(error)(f"{node}: {error}") from None
        known.update(zip(node.outputs, map(np.asarray, results), strict=False))
        for value in node.present_inputs:
            readers[value] -= 1
            if not readers[value]:
                known.pop(value, None)
    arrays = map(array_of, graph.outputs)
    return dict(zip(graph.output_names, arrays, strict=True))


def run_on_device(choice: DeviceChoice) -> Engine:
    """An engine on a Vulkan device, as InferenceSession takes it."""

    def run(model: Any, feeds: Sequence[Feeds]) -> list[dict[str, Any]]:
        graph = _resolved(model, feeds[0])
        if waiting := unresolved(graph):
            raise InvalidInputError(f"the size of what {waiting[0]} gives is known in a run only")
        device = open_device(choice)
        try:
            finish(graph, device.caps)
            executable = device.prepare(make_plan(graph, device.caps, ConstantStore()))
            try:
                results = [executable.run(given) for given in feeds]
            finally:
                executable.close()
        finally:
            device.close()
        return [dict(zip(graph.output_names, arrays, strict=True)) for arrays in results]

    return run


def has_onnxruntime() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def run_on_onnxruntime(model: Any, feeds: Sequence[Feeds]) -> list[dict[str, Any]]:
    """By onnxruntime's processor kernels, node by node as the model has them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # what it keeps for a second run is memory this one run does without
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names: Sequence[str] = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, dict(given)), strict=True)) for given in feeds]


def _resolved(model: Any, feeds: Feeds) -> Graph:
    """The graph at the sizes of the feeds: types and constants known, and nothing fused."""
    graph = read_model(model, is_registered)
    for value in graph.inputs:
        if value.type is not None:
            value.type = TensorType(value.type.dtype, feeds[value.name].shape)
    infer_and_fold(graph)
    graph.keep_live()
    return graph
