"""One-node models as test cases: onnxruntime judges ``reference``, and ``reference`` the kernels.

A ``Case`` is data: an operator, its inputs and attributes. ``check_reference`` holds ``infer`` and
``reference`` against onnxruntime; ``check_device`` holds a session on the device against
``reference``. There is one tolerance, a function of dtype and reduction length.

    CASES = [Case("Relu", (random(1, 5, 7, 3),)), Case("Relu", (random(1, 5, 7, 3),), layout="c4")]

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_reference(case): check_reference(case)

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_device(case): check_device(case)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from tests.sentinels import guarded_arenas
from vkconv import ir
from vkconv.ops.operator import as_tuple
from vkconv.ops.registry import NEWEST_OPSET, create, infer_types
from vkconv.verification.tolerance import tolerance

#: the newest opset that this onnxruntime accepts; cases of newer ones are judged at this one
ORACLE_OPSET = 26
#: low enough for onnxruntime, high enough for every opset
IR_VERSION = 10
#: the name of the node a case is about, among those that surround it
NODE = "node_under_test"

onnxruntime.set_default_logger_severity(4)


@dataclass(frozen=True, eq=False)
class Case:
    """One node with its inputs; None is an omitted one, ``constant`` lists the initializers.

    ``layout="c4"`` puts channel-wise 1x1 identity convolutions around the node, so that its float
    inputs arrive in C4. ``reduction`` is the number of terms summed into one output element.
    """

    op_type: str
    inputs: tuple[ir.Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = NEWEST_OPSET
    constant: tuple[int, ...] = ()
    name: str = ""
    outputs: int = 1
    #: needed only where the output's type depends on data, which ``infer`` can't know
    output_dtypes: tuple[str, ...] | None = None
    layout: ir.Layout = "linear"
    reduction: int = 1
    domain: str = ""

    def __str__(self) -> str:
        shapes = "_".join(
            "none"
            if x is None
            else ("x".join(map(str, x.shape)) or "scalar")
            + ("" if x.dtype == np.float32 else x.dtype.char)
            for x in self.inputs
        )
        given = ",".join(f"{k}={_brief(v)}" for k, v in self.attributes.items())
        parts = [self.op_type, self.name, shapes, given, self.layout if self.layout == "c4" else ""]
        if self.constant:
            parts.append("constant" + "".join(map(str, self.constant)))
        if self.opset != NEWEST_OPSET:
            parts.append(f"opset{self.opset}")
        return "-".join(p for p in parts if p)

    def but(self, **changes: Any) -> Case:
        """This case with some fields changed."""
        return dataclasses.replace(self, **changes)

    def node(self) -> ir.Node:
        """The node as the reader would make it, with types on inputs and arrays on constants."""
        values: list[ir.Value | None] = []
        for position, array in enumerate(self.inputs):
            if array is None:
                values.append(None)
            elif position in self.constant:
                values.append(ir.constant(_input_name(position), array.copy()))
            else:
                values.append(
                    ir.Value(_input_name(position), ir.TensorType(_dtype(array), array.shape))
                )
        attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in self.attributes.items()}
        results = [ir.Value(f"output_{i}") for i in range(self.outputs)]
        return ir.Node(self.op_type, values, results, attributes, NODE, self.domain, self.opset)

    def types(self) -> tuple[ir.TensorType, ...]:
        """The output types that ``infer`` gives, for the outputs the case has."""
        node = self.node()
        return infer_types(create(node), node)[: self.outputs]

    def expected(self, inputs: Sequence[ir.Array | None] | None = None) -> tuple[ir.Array, ...]:
        """What ``reference`` makes of the case's inputs, or of others."""
        given = self.inputs if inputs is None else inputs
        with np.errstate(all="ignore"):
            results = as_tuple(create(self.node()).reference(*given))
        return tuple(np.asarray(r) for r in results)[: self.outputs]

    def feeds(self) -> dict[str, ir.Array]:
        return {
            _input_name(i): np.asarray(x)
            for i, x in enumerate(self.inputs)
            if x is not None and i not in self.constant
        }

    def model(self, opset: int | None = None) -> onnx.ModelProto:
        """The model: the node alone, or between identity convolutions for ``layout="c4"``."""
        dtypes = self.output_dtypes or tuple(t.dtype for t in self.types())
        constants = [
            numpy_helper.from_array(x, _input_name(i))
            for i, x in enumerate(self.inputs)
            if x is not None and i in self.constant
        ]
        inputs = [
            helper.make_tensor_value_info(name, _element_type(_dtype(x)), x.shape)
            for name, x in self.feeds().items()
        ]
        names = [_input_name(i) if x is not None else "" for i, x in enumerate(self.inputs)]
        results = [f"output_{i}" for i in range(self.outputs)]
        outputs = [
            helper.make_tensor_value_info(name, _element_type(dtype), None)
            for name, dtype in zip(results, dtypes, strict=True)
        ]
        before: list[onnx.NodeProto] = []
        after: list[onnx.NodeProto] = []
        if self.layout == "c4":
            for i, x in enumerate(self.inputs):
                if x is None or i in self.constant or not _is_feature_map(x.shape, _dtype(x)):
                    continue
                before.append(_identity(names[i], x.shape, x.dtype, constants))
                names[i] = before[-1].output[0]
            for name, array in zip(list(results), self.expected(), strict=True):
                if _is_feature_map(array.shape, _dtype(array)):
                    after.append(_identity(name, array.shape, array.dtype, constants))
            # all are outputs of the graph as well: nothing is fused with the node under test
            outputs += [
                helper.make_tensor_value_info(n.output[0], _weights_type(constants, n), None)
                for n in before + after
            ]
        node = helper.make_node(
            self.op_type, names, results, name=NODE, domain=self.domain, **dict(self.attributes)
        )
        graph = helper.make_graph([*before, node, *after], "case", inputs, outputs, constants)
        versions = [helper.make_opsetid("", opset or self.opset)]
        if self.domain:
            versions.append(helper.make_opsetid(self.domain, 1))
        return helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)


def random(
    *shape: int, low: float = -2.0, high: float = 2.0, dtype: str = "float32", seed: int = 0
) -> ir.Array:
    """Reproducible numbers in [low, high): the same for the same shape and seed."""
    generator = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return np.asarray(generator.integers(0, 2, shape).astype(bool))
    if np.dtype(dtype).kind in "iu":
        return np.asarray(generator.integers(int(low), int(high), shape).astype(dtype))
    return np.asarray(generator.uniform(low, high, shape).astype(dtype))


def assert_close(
    actual: ir.Array, expected: ir.Array, reduction_length: int = 1, what: str = ""
) -> None:
    """Same dtype and shape, the same NaNs and infinities, the other values within ``tolerance``."""
    assert actual.shape == expected.shape, (
        f"{what}: shape {actual.shape}, expected {expected.shape}"
    )
    assert _dtype(actual) == _dtype(expected), f"{what}: {actual.dtype}, expected {expected.dtype}"
    if expected.dtype.kind != "f":
        assert np.array_equal(actual, expected), (
            f"{what}: {_worst(actual != expected, actual, expected)}"
        )
        return
    special = ~np.isfinite(expected) | ~np.isfinite(actual)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    assert same[special].all(), f"{what}: {_worst(special & ~same, actual, expected)}"
    a = np.where(special, 0, actual).astype(np.float64)
    e = np.where(special, 0, expected).astype(np.float64)
    if not e.size:
        return
    allowed = tolerance(expected.dtype.name, reduction_length)
    error = np.abs(a - e)
    power = float(np.mean(e * e))
    smallest = float(np.finfo(np.float32).tiny)
    guard = allowed.relative * np.abs(e) + allowed.scaled * np.sqrt(power) + smallest
    assert (error <= guard).all(), f"{what}: {_worst(error > guard, actual, expected)}"
    nmse = float(np.mean(error * error)) / max(power, smallest)
    assert nmse <= allowed.nmse, f"{what}: NMSE {nmse:.3g}, allowed {allowed.nmse:.3g}"


def run_onnxruntime(case: Case) -> list[ir.Array]:
    """The outputs as onnxruntime's CPU provider computes them, unoptimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = case.but(layout="linear").model(min(case.opset, ORACLE_OPSET))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(y) for y in session.run(None, case.feeds())]


def run_oracle(case: Case) -> list[ir.Array]:
    """onnxruntime's outputs, or those of ONNX's evaluator where onnxruntime has no kernel."""
    try:
        return run_onnxruntime(case)
    except NoKernelError:
        return run_evaluator(case)


def run_evaluator(case: Case) -> list[ir.Array]:
    """The outputs as ONNX's own evaluator computes them."""
    evaluator = ReferenceEvaluator(case.but(layout="linear").model())
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in evaluator.run(None, case.feeds())]


def check_reference(case: Case, oracle: Callable[[Case], Sequence[ir.Array]] = run_oracle) -> None:
    """``infer`` and ``reference`` agree with an independent implementation."""
    actual = case.expected()
    if case.output_dtypes is None:
        for i, (array, kind) in enumerate(zip(actual, case.types(), strict=True)):
            found = ir.TensorType(_dtype(array), array.shape)
            assert found == kind, f"output {i}: reference gives {found}, infer {kind}"
    for i, (a, e) in enumerate(zip(actual, oracle(case), strict=True)):
        assert_close(a, e, case.reduction, f"reference, output {i}")


def check_device(case: Case, *, where: str = "gpu", device: str = "auto") -> None:
    """A session on the device agrees with ``reference``, and the node ran where it should.

    The second of two runs is judged: other data came first, then the arena was poisoned, so what a
    kernel fails to write is wrong for sure; and sentinels show what it wrote out of bounds.
    """
    from vkconv import InferenceSession

    outputs = [f"output_{i}" for i in range(case.outputs)]
    with guarded_arenas() as guard, InferenceSession(case.model(), device=device) as session:
        feeds = case.feeds()
        session.run(outputs, {name: np.roll(x, 1) for name, x in feeds.items()})
        guard.poison()
        actual = session.run(None, feeds)
        guard.check()
        names = [o.name for o in session.get_outputs()]
        placed = {p.node: p.where for p in session.placement}
    assert placed.get(NODE) == where, f"the node ran on {placed.get(NODE)}, not on {where}"
    expected = dict(zip(outputs, case.expected(), strict=True))
    for name, array in zip(names, actual, strict=True):
        origin = name.removesuffix(_AFTER)
        if origin in expected:
            assert_close(np.asarray(array), expected[origin], case.reduction, name)


_AFTER = "_convolved"


def _identity(
    name: str, shape: Sequence[int], dtype: Any, constants: list[onnx.TensorProto]
) -> onnx.NodeProto:
    """A convolution of each channel with the 1x1 kernel [1]; its weights join ``constants``."""
    channels = shape[1]
    weights = np.ones((channels, 1, *[1] * (len(shape) - 2)), dtype)
    constants.append(numpy_helper.from_array(weights, f"{name}_ones"))
    return helper.make_node(
        "Conv", [name, f"{name}_ones"], [name + _AFTER], name=f"{name}_convolution", group=channels
    )


def _weights_type(constants: Sequence[onnx.TensorProto], node: onnx.NodeProto) -> int:
    """The element type of an identity convolution, which is that of its weights."""
    return next(int(c.data_type) for c in constants if c.name == node.input[1])


def _is_feature_map(shape: Sequence[int], dtype: str) -> bool:
    return dtype in ("float32", "float16") and 3 <= len(shape) <= 5 and 0 not in shape


def _input_name(position: int) -> str:
    return f"input_{position}"


def _dtype(array: ir.Array) -> str:
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def _element_type(dtype: str) -> int:
    if dtype == "string":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _brief(value: Any) -> str:
    return str(tuple(value) if isinstance(value, list) else value).replace(" ", "")[:40]


def _worst(wrong: ir.Array, actual: ir.Array, expected: ir.Array) -> str:
    """How many elements are wrong, and the first few of them."""
    places = np.argwhere(wrong)
    shown = "; ".join(
        f"{tuple(map(int, p))}: {actual[tuple(p)]!r}, expected {expected[tuple(p)]!r}"
        for p in places[:4]
    )
    return f"{len(places)} of {wrong.size} elements differ: {shown}"
