"""A session from outside: what it says of a model, what it accepts, and that it survives faults."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.small_models import (
    assert_same,
    expected,
    floats,
    model,
    node,
    onnxruntime_session,
)
from vkconv import InferenceSession
from vkconv.errors import InvalidInputError, UnsupportedModelError, VkconvError
from vkconv.stage_cache import PLAN_CACHE_SIZE

DEVICES = pytest.mark.parametrize("device", ["auto", "reference"])


def detector(*, dynamic: bool = False) -> onnx.ModelProto:
    """A small net with two inputs, a residual, a concat and two outputs."""
    size = ["n", 3, "h", "w"] if dynamic else [2, 3, 12, 8]
    nodes = [
        node("Conv", "image w b", "a", pads=[1, 1, 1, 1]),
        node("Sigmoid", "a", "s"), node("Mul", "a s", "m"),
        node("Conv", "m v", "c"), node("Add", "c m", "r"), node("Relu", "r", "d"),
        node("MaxPool", "d", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Concat", "m d p", "joined", axis=1),
        node("Mul", "joined scale", "scaled"),
        node("GlobalAveragePool", "scaled", "means"),
    ]  # fmt: skip
    constants = {"w": floats(8, 3, 3, 3, scale=0.3), "b": floats(8),
                 "v": floats(8, 8, 1, 1, scale=0.3)}  # fmt: skip
    inputs = {"image": size, "scale": []}
    proto = model(nodes, inputs, {"scaled": None, "means": None}, constants)
    for output, shape in zip(proto.graph.output, ([size[0], 24, *size[2:]], [size[0], 24, 1, 1]),
                             strict=True):  # fmt: skip
        output.CopyFrom(helper.make_tensor_value_info(output.name, 1, shape))
    helper.set_model_props(proto, {"names": "{0: 'cat'}", "stride": "32"})
    proto.producer_name = "pytest"
    return proto


def feeds(n: int = 2, h: int = 12, w: int = 8, seed: int = 0) -> dict[str, Any]:
    return {"image": floats(n, 3, h, w, seed=seed), "scale": np.array(0.5, np.float32)}


# --- what it says -------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_arguments_and_metadata_as_onnxruntime_gives_them(dynamic: bool) -> None:
    proto = detector(dynamic=dynamic)
    oracle = onnxruntime_session(proto)
    with InferenceSession(proto, device="reference") as session:
        for mine, theirs in (
            (session.get_inputs(), oracle.get_inputs()),
            (session.get_outputs(), oracle.get_outputs()),
        ):
            assert [(a.name, a.shape, a.type) for a in mine] == [
                (a.name, a.shape, a.type) for a in theirs
            ]
        meta, wanted = session.get_modelmeta(), oracle.get_modelmeta()
        assert meta.custom_metadata_map == wanted.custom_metadata_map
        assert (meta.producer_name, meta.graph_name) == (wanted.producer_name, wanted.graph_name)
        assert meta.opset == 17


def test_types_of_every_dtype() -> None:
    dtypes = ["float32", "float16", "float64", "int8", "int64", "uint8", "bool", "string"]
    names = [f"x{i}" for i in range(len(dtypes))]
    nodes = [node("Identity", n, f"{n}_out") for n in names]
    inputs = {n: (d, [2]) for n, d in zip(names, dtypes, strict=True)}
    proto = model(nodes, inputs, {f"{n}_out": t for n, t in inputs.items()})
    with InferenceSession(proto, device="reference") as session:
        wanted = [a.type for a in onnxruntime_session(proto).get_inputs()]
        assert [a.type for a in session.get_inputs()] == wanted
        assert [a.type for a in session.get_outputs()] == wanted


def test_shapes_that_the_file_leaves_open_are_inferred() -> None:
    proto = model([node("Flatten", "x", "y")], {"x": [2, 3, 4]}, {"y": None})
    with InferenceSession(proto, device="reference") as session:
        assert session.get_outputs()[0].shape == [2, 12]


# --- running ------------------------------------------------------------------------------------


@DEVICES
def test_outputs_by_name_order_and_twice(device: str) -> None:
    proto = detector()
    wanted = expected(proto, feeds())
    with InferenceSession(proto, device=device) as session:
        assert_same(session.run(None, feeds()), wanted)
        assert_same(session.run([], feeds()), wanted)
        assert_same(session.run(["means", "scaled"], feeds()), wanted[::-1])
        means, again = session.run(["means", "means"], feeds())
        means += 1
        assert_same([again], wanted[1:])
        assert_same(session.run(("scaled",), feeds()), wanted[:1])


@DEVICES
def test_results_belong_to_the_caller(device: str) -> None:
    proto = model([node("Identity", "x", "y"), node("Identity", "c", "z")], {"x": [3]},
                  {"y": [3], "x": [3], "z": [3]}, {"c": floats(3)})  # fmt: skip
    x = floats(3, seed=1)
    with InferenceSession(proto, device=device) as session:
        first = session.run(None, {"x": x})
        for array in first:
            array += 7
        assert_same(session.run(None, {"x": x}), [floats(3, seed=1), floats(3, seed=1), floats(3)])


def test_feeds_of_any_strides_and_byte_order() -> None:
    proto = model([node("Neg", "x", "y")], {"x": [4, 6]}, {"y": [4, 6]})
    base = floats(6, 4)
    with InferenceSession(proto) as session:
        for x in (base.T, floats(8, 12)[::2, ::-2], np.broadcast_to(base[0, 0], (4, 6)),
                  base.T.astype(">f4")):  # fmt: skip
            assert_same(session.run(None, {"x": x}), [-x.astype(np.float32)])


@DEVICES
@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["nothing"], feeds(), "no output 'nothing'; its outputs: scaled, means"),
        ("scaled", feeds(), "output names are a list"),
        (None, {}, r"input 'image' \(tensor\(float\), shape .* is missing"),
        (None, feeds() | {"z": 1}, "no input 'z'; its inputs: image, scale"),
        (None, feeds() | {"image": np.zeros((2, 3, 12, 8))}, r"float64.*takes float32.*astype"),
        (None, feeds() | {"image": np.zeros((2, 3, 12), np.float32)}, "has rank 3"),
        (None, feeds(h=13), "size 13 along axis 2, the model takes 12"),
        (None, feeds(n=0), "size 0 along axis 0"),
        (None, feeds() | {"image": "cat.png"}, "takes float32"),
        (None, feeds() | {"image": None}, "takes float32"),
        (None, [floats(2)], "feeds are a dict"),
        (None, None, "feeds are a dict"),
    ],
)
def test_wrong_requests_leave_the_session_working(
    sessions: dict[str, InferenceSession], device: str, names: Any, given: Any, message: str
) -> None:
    session = sessions[device]
    with pytest.raises(InvalidInputError, match=message) as caught:
        session.run(names, given)
    assert "\n" not in str(caught.value)
    assert session.run(["means"], feeds())[0].shape == (2, 24, 1, 1)


@pytest.fixture(scope="module")
def sessions() -> Any:
    made = {d: InferenceSession(detector(), device=d) for d in ("auto", "reference")}
    yield made
    for session in made.values():
        session.close()


def test_unknown_precision_and_device() -> None:
    with pytest.raises(InvalidInputError, match="precision 'fp99'"):
        InferenceSession(detector(), precision="fp99")
    with pytest.raises(VkconvError, match="no such device at all"):
        InferenceSession(detector(), device="no such device at all")


# --- shapes that change -------------------------------------------------------------------------


@DEVICES
def test_dynamic_batch_height_and_width(device: str) -> None:
    proto = detector(dynamic=True)
    oracle = onnxruntime_session(proto)
    with InferenceSession(proto, device=device) as session:
        assert "no plan yet" in session.describe_plan()
        assert {p.where for p in session.placement} == {"deferred"}
        for n, h, w in ((1, 8, 8), (3, 8, 8), (1, 5, 11), (1, 8, 8), (2, 1, 1)):
            given = feeds(n, h, w, seed=n + h)
            assert_same(session.run(None, given), oracle.run(None, given))


def test_dimensions_of_one_name_agree() -> None:
    proto = model([node("Add", "a b", "y")], {"a": ["n", 2], "b": ["n", None]}, {"y": None})
    with InferenceSession(proto) as session:
        with pytest.raises(InvalidInputError, match=r"'b' has size 3 along axis 0.*takes 2"):
            session.run(None, {"a": floats(2, 2), "b": floats(3, 2)})
        given = {"a": floats(4, 2), "b": floats(4, 1)}
        assert_same(session.run(None, given), [given["a"] + given["b"]])


def test_shapes_that_do_not_fit_are_a_typed_error() -> None:
    proto = model([node("Add", "a b", "y")], {"a": [None], "b": [None]}, {"y": None})
    with InferenceSession(proto) as session:
        with pytest.raises(VkconvError, match="do not broadcast"):
            session.run(None, {"a": floats(2), "b": floats(3)})
        assert session.run(None, {"a": floats(2), "b": floats(2)})[0].shape == (2,)


def test_plans_are_few_and_share_weights() -> None:
    with InferenceSession(detector(dynamic=True)) as session:
        for size in range(1, PLAN_CACHE_SIZE + 4):
            session.run(None, feeds(1, size, 4))
        assert len(session._stages) == PLAN_CACHE_SIZE
        shared = [{id(s) for s in stage.plan.constants} for stage in session._stages.values()]
        assert set.union(*shared) == set.intersection(*shared)
        kept = set(map(id, session._stages.values()))
        session.run(None, feeds(1, PLAN_CACHE_SIZE + 3, 4))
        assert set(map(id, session._stages.values())) == kept


def test_new_shapes_for_days_leave_nothing_behind() -> None:
    """Constants that each plan folds for itself go with it."""
    nodes = [node("Shape", "x", "s"), node("Cast", "s", "f", to=1), node("Mul", "x one", "t"),
             node("Add", "t f", "y")]  # fmt: skip
    proto = model(nodes, {"x": [None, 2]}, {"y": None}, {"one": floats(2)})
    with InferenceSession(proto) as session:
        for size in range(1, 3 * PLAN_CACHE_SIZE):
            x = floats(size, 2)
            assert_same(session.run(None, {"x": x}), expected(proto, {"x": x}))
        gc.collect()
        assert len(session._stages._store) <= 3 * PLAN_CACHE_SIZE


@DEVICES
def test_empty_batches(device: str) -> None:
    proto = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Concat", "r r", "y", axis=1)],
        {"x": ["n", 3, 4, 4]}, {"y": None}, {"w": floats(5, 3, 1, 1)},
    )  # fmt: skip
    with InferenceSession(proto, device=device) as session:
        for n in (0, 1, 0):
            (y,) = session.run(None, {"x": floats(n, 3, 4, 4)})
            assert y.shape == (n, 10, 4, 4) and y.dtype == np.float32


# --- closing, threads ---------------------------------------------------------------------------


@DEVICES
def test_closing(device: str) -> None:
    session = InferenceSession(detector(), device=device)
    session.close()
    session.close()
    for use in (
        lambda: session.run(None, feeds()),
        lambda: session.profile(feeds()),
        lambda: session.placement,
        session.describe_plan,
        lambda: session.device,
    ):
        with pytest.raises(VkconvError, match="closed"):
            use()
    assert [i.name for i in session.get_inputs()] == ["image", "scale"]
    with pytest.raises(RuntimeError, match="mine"), InferenceSession(detector(), device=device):
        raise RuntimeError("mine")


def test_many_threads_share_a_session() -> None:
    proto = detector(dynamic=True)
    oracle = onnxruntime_session(proto)
    # more shapes than plans are kept, so that some are dropped while others run
    cases = [feeds(1, 3 + i % (PLAN_CACHE_SIZE + 3), 5, seed=i) for i in range(40)]
    wanted = [oracle.run(None, case) for case in cases]
    with InferenceSession(proto) as session, ThreadPoolExecutor(6) as pool:
        for found, right in zip(
            pool.map(lambda case: session.run(None, case), cases), wanted, strict=True
        ):
            assert_same(found, right)


def test_closing_while_another_thread_runs() -> None:
    session = InferenceSession(detector())
    faults: list[BaseException] = []

    def run() -> None:
        try:
            while True:
                session.run(None, feeds())
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    session.run(None, feeds())
    session.close()
    for thread in threads:
        thread.join(20)
    assert len(faults) == 3 and all(isinstance(f, VkconvError) for f in faults)


def test_two_sessions_side_by_side() -> None:
    one, two = InferenceSession(detector()), InferenceSession(detector(dynamic=True))
    first = one.run(None, feeds())
    assert_same(two.run(None, feeds()), first)
    one.close()
    assert_same(two.run(None, feeds()), first)
    two.close()


# --- what is refused at load --------------------------------------------------------------------


def test_loading_fails_before_a_device_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vkconv.session.open_device", lambda _: pytest.fail("opened"))
    with pytest.raises(UnsupportedModelError):
        InferenceSession(model([node("Nonsense", "x", "y")], {"x": [1]}, {"y": [1]}))
    wrong = model([node("Add", "x c", "y")], {"x": [2]}, {"y": [2]}, {"c": floats(3)})
    with pytest.raises(VkconvError, match="do not broadcast"):
        InferenceSession(wrong)


def test_a_model_too_large_for_the_device(tmp_path: Path) -> None:
    huge = model([node("Relu", "x", "y")], {"x": [1 << 20, 1 << 20]}, {"y": None})
    with pytest.raises(VkconvError) as caught:
        InferenceSession(huge)
    assert "\n" not in str(caught.value)
    with InferenceSession(detector()) as session:
        assert session.run(["means"], feeds())
