"""Valid models that fuzzing starts from: small, and between them every operator and every form a
model can take.

Two thirds are the one-node cases of tests/ops, a sixth random graphs, the rest made here: control
flow, functions, sequences, sparse and external tensors, text, operators that only the standard's
definition makes runnable.
"""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.harness import Case
from tests.plan_file import models as planned_models
from tests.random_graphs import random_model
from tests.small_models import floats, info, model, node

#: larger cases are left out: a mutant should take milliseconds
LARGEST_SEED = 6000
RANDOM_GRAPHS = 400

Seeds = dict[str, bytes]


@cache
def all_seeds() -> Seeds:
    """Serialized models by name, in an order that is always the same."""
    return {**operator_cases(), **random_graphs(), **special_models()}


@cache
def seed_names() -> list[str]:
    return list(all_seeds())


def operator_cases() -> Seeds:
    """The models of all cases in tests/ops; of those alike in all but their numbers, one."""
    found: Seeds = {}
    folder = Path(__file__).parent.parent / "ops"
    for path in sorted(folder.glob("test_*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"tests.ops.{path.stem}")
        for name, value in sorted(vars(module).items()):
            if not isinstance(value, (list, tuple)):
                continue
            for index, case in enumerate(value):
                if isinstance(case, Case):
                    data = case.model().SerializeToString()
                    if len(data) <= LARGEST_SEED:
                        found[f"{path.stem[5:]}/{name}/{index}"] = data
    once: dict[bytes, str] = {}
    for name, data in found.items():
        once.setdefault(data, name)
    return {name: data for data, name in once.items()}


def random_graphs() -> Seeds:
    return {
        f"random/{i}": random_model(i, steps=3 + i % 10).SerializeToString()
        for i in range(RANDOM_GRAPHS)
    }


def special_models() -> Seeds:
    """Each several times, or the thousands of one-node cases would leave it little."""
    made = {
        "control flow": control_flow(),
        "long loop": long_loop(),
        "scan": scan(),
        "functions": functions(),
        "sequences": sequences(),
        "tensors": tensors(),
        "definitions": definitions(),
        "indices": indices(),
        "branches": branches(),
        **{name: make()[0] for name, make in planned_models.ALL.items()},
    }
    return {
        f"special/{name}/{i}": proto.SerializeToString()
        for i in range(25)
        for name, proto in made.items()
    }


def _graph(
    nodes: list[onnx.NodeProto], inputs: dict[str, object], outputs: dict[str, object]
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "inner",
        [info(n, t) for n, t in inputs.items()],
        [info(n, t) for n, t in outputs.items()],
    )


def control_flow() -> onnx.ModelProto:
    """An If inside a Loop of known length, beside an If on an input."""
    inner = node(
        "If", "odd", "part",
        then_branch=_graph([node("Mul", "state k", "a")], {}, {"a": [3]}),
        else_branch=_graph([node("Sub", "state x", "b")], {}, {"b": [3]}),
    )  # fmt: skip
    body = _graph(
        [
            node("Mod", "turn two", "rest"), node("Cast", "rest", "odd", to=TensorProto.BOOL),
            inner, node("Identity", "going", "on"), node("Relu", "part", "scanned"),
        ],
        {"turn": ("int64", []), "going": ("bool", []), "state": [3]},
        {"on": ("bool", []), "part": [3], "scanned": [3]},
    )  # fmt: skip
    choice = node(
        "If", "which", "chosen",
        then_branch=_graph([node("Neg", "end", "c")], {}, {"c": [3]}),
        else_branch=_graph([node("Abs", "end", "d")], {}, {"d": [3]}),
    )  # fmt: skip
    loop = node("Loop", "trips - x", "end stacked", body=body)
    return model(
        [loop, choice],
        {"x": [3], "which": ("bool", [])},
        {"chosen": [3], "stacked": None},
        {"trips": np.array(3), "two": np.array(2), "k": floats(3)},
    )


def long_loop() -> onnx.ModelProto:
    """A loop whose trip count and condition the run decides."""
    body = _graph(
        [node("Add", "state step", "next"), node("Less", "next limit", "on")],
        {"turn": ("int64", []), "going": ("bool", []), "state": []},
        {"on": ("bool", []), "next": []},
    )
    return model(
        [node("Loop", "trips going x", "y", body=body)],
        {"trips": ("int64", []), "going": ("bool", []), "x": []},
        {"y": []},
        {"step": np.float32(1), "limit": np.float32(5)},
    )


def scan() -> onnx.ModelProto:
    body = _graph(
        [node("Add", "state part", "sum"), node("Tanh", "sum", "out")],
        {"state": [2], "part": [2]},
        {"sum": [2], "out": [2]},
    )
    nodes = [
        node("Scan", "s x", "last all", body=body, num_scan_inputs=1, scan_input_axes=[1],
             scan_output_axes=[-1], scan_input_directions=[1]),
        node("Mul", "all all", "y"),
    ]  # fmt: skip
    return model(nodes, {"x": [2, 3], "s": [2]}, {"last": [2], "y": None})


def functions() -> onnx.ModelProto:
    """Functions that call one another, with attributes."""
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    first = helper.make_function("local", "First", ["a"], ["b"], [leaky], imports, ["slope"])
    calls = [
        helper.make_node("First", ["p"], ["q"], domain="local", slope=0.5),
        helper.make_node("Add", ["q", "w"], ["r"]),
    ]
    second = helper.make_function("local", "Second", ["p", "w"], ["r"], calls, imports)
    proto = model(
        [node("Second", "x k", "y", domain="local"), node("First", "y", "z", domain="local")],
        {"x": [2, 3]},
        {"z": [2, 3]},
        {"k": floats(3)},
        domains={"local": 1},
    )
    proto.functions.extend([first, second])
    return proto


def sequences() -> onnx.ModelProto:
    nodes = [
        node("SplitToSequence", "x", "list", axis=1, keepdims=1),
        node("SequenceAt", "list i", "part"),
        node("SequenceInsert", "list part", "longer"),
        node("SequenceLength", "longer", "n"),
        node("ConcatFromSequence", "longer", "y", axis=0),
    ]
    return model(
        nodes, {"x": [2, 4, 3]}, {"y": None, "n": ("int64", [])}, {"i": np.array(-1)}, opset=17
    )


def tensors() -> onnx.ModelProto:
    """Every way a tensor is stored: raw, by type, sparse, external, text, in an attribute."""
    proto = model(
        [
            node("Add", "x far", "a"), node("Mul", "a thin", "b"), node("Gather", "b at", "c"),
            node("Constant", "", "k", value=numpy_helper.from_array(floats(4), "inner")),
            node("Constant", "", "l", value_floats=[1.0, 2.0, 3.0, 4.0]),
            node("Add", "c k", "d"), node("Add", "d l", "y"), node("Gather", "words at", "same"),
        ],
        {"x": [3, 4]},
        {"y": None, "same": ("string", None)},
        {"at": np.array([0, -1, 2])},
    )  # fmt: skip
    far = proto.graph.initializer.add(name="far", dims=[3, 4], data_type=TensorProto.FLOAT)
    far.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "data.bin"), ("offset", "16"), ("length", "48")):
        far.external_data.add(key=key, value=value)
    words = proto.graph.initializer.add(name="words", dims=[3], data_type=TensorProto.STRING)
    words.string_data.extend([b"eins", "zwei ü".encode(), b""])
    sparse = proto.graph.sparse_initializer.add(dims=[3, 4])
    sparse.values.CopyFrom(helper.make_tensor("thin", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [3], [0, 5, 11]))
    return proto


def definitions() -> onnx.ModelProto:
    """Operators that this package knows by the standard's definition alone."""
    nodes = [
        node("Celu", "x", "a", alpha=0.5), node("ThresholdedRelu", "a", "b", alpha=0.1),
        node("MeanVarianceNormalization", "b", "c"),
        node("SoftmaxCrossEntropyLoss", "c t", "l p", reduction="mean"),
        node("NegativeLogLikelihoodLoss", "p t", "m", reduction="sum"),
    ]  # fmt: skip
    return model(
        nodes,
        {"x": [2, 3, 2, 2], "t": ("int64", [2, 2, 2])},
        {"l": None, "m": None},
    )


def indices() -> onnx.ModelProto:
    """Operators that read or write where integers from the caller say."""
    nodes = [
        node("Gather", "x i", "a", axis=1), node("GatherElements", "x j", "b", axis=0),
        node("ScatterElements", "x j u", "c", axis=1), node("GatherND", "x n", "d"),
        node("ScatterND", "x n v", "e", reduction="add"),
        node("RoiAlign", "f r m", "g", output_height=2, output_width=3, sampling_ratio=2),
        node("GridSample", "f s", "h", mode="bilinear", padding_mode="reflection"),
        node("OneHot", "i depth values", "o", axis=-1),
        node("NonMaxSuppression", "boxes scores most", "p"),
        node("TopK", "x two", "q w", axis=1), node("MaxUnpool", "f z", "t", kernel_shape=[2, 2]),
        node("TensorScatter", "x4 u4 w1", "ts", axis=2), node("ReverseSequence", "x len", "rev"),
    ]  # fmt: skip
    ints = {"i": [2, 2], "j": [2, 3], "n": [2, 2], "m": [2], "z": [1, 2, 3, 3], "len": [4],
            "w1": [1]}  # fmt: skip
    reals = {"x": [3, 4], "u": [2, 3], "v": [2], "f": [1, 2, 3, 3], "r": [2, 4], "s": [1, 2, 2, 2],
             "boxes": [1, 3, 4], "scores": [1, 2, 3], "x4": [1, 2, 3, 2],
             "u4": [1, 2, 1, 2]}  # fmt: skip
    return model(
        nodes,
        {**{n: ("int64", s) for n, s in ints.items()}, **reals},
        dict.fromkeys("abcdeghpqt") | {"o": None, "ts": None, "rev": None}
        | {"w": ("int64", None)},
        {
            "depth": np.array(4), "values": np.float32([0, 1]), "most": np.array([2]),
            "two": np.array([2]),
        },
        opset=24,
    )  # fmt: skip


def branches() -> onnx.ModelProto:
    """What fusion rewrites: parallel convolutions, batch normalisations, scalings."""
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Conv", "x p", "b"),
        node("BatchNormalization", "a g h i j", "c"), node("Add", "c b", "d"),
        node("Mul", "d s", "e"), node("Relu", "e", "f"), node("Conv", "f q", "k"),
        node("BatchNormalization", "f g h i j", "l"), node("Add", "k l", "y"),
    ]  # fmt: skip
    constants = {
        "w": floats(4, 4, 3, 3), "p": floats(4, 4, 1, 1), "q": floats(4, 4, 1, 1),
        "g": floats(4), "h": floats(4, seed=1), "i": floats(4, seed=2), "s": floats(4, 1, 1),
        "j": np.abs(floats(4, seed=3)),
    }  # fmt: skip
    return model(nodes, {"x": [1, 4, 5, 6]}, {"y": None}, constants)
