"""Small models by hand, for the tests of the reader, the passes, the plan and the session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from vkconv.ir import Array

Shape = Sequence[int | str | None] | None
#: name -> shape of a float32 tensor, or (dtype, shape)
Types = Mapping[str, Any]


def node(op_type: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> Any:
    """A node; names are separated by blanks, "-" is an omitted one. It is named as its output."""

    def names(text: str) -> list[str]:
        return ["" if n == "-" else n for n in text.split()]

    domain = attributes.pop("domain", "")
    return helper.make_node(
        op_type,
        names(inputs),
        names(outputs),
        name=name or f"{op_type}:{names(outputs)[0]}",
        domain=domain,
        **attributes,
    )


def info(name: str, type_: Any) -> onnx.ValueInfoProto:
    dtype, shape = type_ if _is_pair(type_) else ("float32", type_)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) if dtype != "string" else 8
    return helper.make_tensor_value_info(name, element, shape)


def _is_pair(type_: Any) -> bool:
    return (
        isinstance(type_, tuple)
        and len(type_) == 2
        and isinstance(type_[0], str)
        and (type_[1] is None or isinstance(type_[1], (tuple, list)))
    )


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Types,
    outputs: Types,
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A ModelProto of these parts."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(n, t) for n, t in inputs.items()],
        [info(n, t) for n, t in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    random = np.random.default_rng([seed, *shape])
    return np.asarray((random.standard_normal(shape) * scale).astype(np.float32))


def onnxruntime_session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def expected(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs as onnxruntime has them."""
    return [np.asarray(y) for y in onnxruntime_session(proto).run(None, dict(feeds))]


def assert_same(actual: Sequence[Array], wanted: Sequence[Array]) -> None:
    """Same number, dtypes and shapes; floats with NMSE <= 1e-6, others equal."""
    assert len(actual) == len(wanted)
    for i, (a, w) in enumerate(zip(actual, wanted, strict=True)):
        assert a.dtype == w.dtype and a.shape == w.shape, (i, a.dtype, a.shape, w.dtype, w.shape)
        if w.dtype.kind != "f" or not w.size:
            assert np.array_equal(a, w), i
            continue
        bound = 1e-4 if w.dtype == np.float16 else 1e-6
        error = float(np.mean((a.astype(np.float64) - w) ** 2))
        assert error <= bound * max(float(np.mean(w.astype(np.float64) ** 2)), 1e-12), i


__all__ = [
    "TensorProto",
    "assert_same",
    "expected",
    "floats",
    "info",
    "model",
    "node",
    "onnxruntime_session",
]
