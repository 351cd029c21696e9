"""Plans through Kompute: what the default engine is tested with, and what only kp can get wrong."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, chain, chain_expected, load

# the same tests, with the fixtures below
from tests.device.test_vulkan_run import (  # noqa: F401
    numbers,
    test_a_chain_of_dependent_dispatches,
    test_a_faulty_host_step_is_named_and_the_session_goes_on,
    test_a_host_step_between_dispatches,
    test_a_plan_of_nothing,
    test_an_integer_beyond_the_device_is_refused,
    test_dtypes_are_kept_at_the_border,
    test_empty_tensors_scalars_folded_and_unread_ports,
    test_host_steps_first_last_and_alone,
    test_profile_times_every_step,
    test_reads_across_invocations_see_the_dispatch_before,
    test_replays_identically,
    test_spec_and_push_values_reach_the_shader,
    test_threads_share_a_device_and_an_executable,
    test_views_at_an_element_offset,
    test_wrong_feeds_leave_the_session_usable,
)
from tests.harness import Case, random
from tests.sentinels import guarded_arenas
from vkconv import InferenceSession
from vkconv.device.kompute.binding import specialization_words
from vkconv.device.kompute.device import KomputeDevice
from vkconv.dispatch import BufferRange, Dispatch, View


@pytest.fixture(params=["host", "device"], ids=["mapped constants", "staged constants"])
def any_device(request) -> Iterator[KomputeDevice]:
    opened = KomputeDevice("kompute", load)
    opened.tensors._resident = request.param
    yield opened
    opened.close()


@pytest.fixture
def device() -> Iterator[KomputeDevice]:
    opened = KomputeDevice("kompute", load)
    yield opened
    opened.close()


def test_constants_reach_the_kernels_and_are_shared(any_device):
    data = numbers(500)
    maker = PlanMaker(500)
    x, y = maker.view("x"), maker.view("y")
    held = maker.constant("weights", data)
    maker.input("x", x)
    maker.dispatch("add_reversed", {"a": x, "b": held, "y": y}, scale=2.0)
    maker.output("y", y)
    first, second = any_device.prepare(maker.plan()), any_device.prepare(maker.plan())
    assert len(any_device._constants) == 1
    first.close()
    v = numbers(500, seed=3)
    (got,) = second.run({"x": v})
    assert np.array_equal(got, v + data[::-1] * np.float32(2))
    second.close()
    assert not any_device._constants


def test_a_dispatch_waits_in_a_submission_of_its_own(device):
    maker = PlanMaker(64)
    x, a, b, c = (maker.view(name) for name in "xabc")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": a})
    maker.dispatch("scale", {"x": a, "y": c})
    maker.dispatch("scale", {"x": x, "y": b})
    maker.output("b", b)
    maker.output("c", c)
    # uploads; a and b; c and the downloads
    assert device.prepare(maker.plan()).submissions == 3


def test_intermediate_tensors_share_memory(device):
    executable = device.prepare(chain(20, 1000))
    # 19 intermediate results lie in the two storages of the chain, of which the last is the output
    sizes = [tensor.size() for tensor in set(executable._place.tensors.values())]
    assert len(sizes) == 3


def test_the_host_writes_a_part_of_what_the_device_wrote(device):
    """kp copies tensors whole: the rest of the storage has to survive the upload."""
    maker = PlanMaker(64)
    x, y, z = maker.view("x", (64,)), maker.view("y", (64,)), maker.view("z", (64,))
    half = View(y.storage, (32,), "float32", "linear", 16)
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": y}, scale=2.0, spec={"bias": 0.0})
    maker.host(lambda v: v[:32] + np.float32(100), [x], [half])
    maker.dispatch("scale", {"x": y, "y": z}, spec={"bias": 0.0})
    maker.output("z", z)
    executable = device.prepare(maker.plan())
    for seed in range(2):
        v = numbers(64, seed)
        expected = v * np.float32(2)
        expected[16:48] = v[:32] + np.float32(100)
        assert np.array_equal(executable.run({"x": v})[0], expected)


def test_specialization_constants_are_numbered_from_zero():
    module = load("scale")
    words = specialization_words(module, {"bias": 2.5})
    assert words.tolist() == [0, 0, 0, np.float32(2.5).view(np.uint32), 0, 0, 0, 0]
    assert specialization_words(module, {"negate": 1})[7] == 1
    assert specialization_words(module, {})[3] == np.float32(0.5).view(np.uint32)
    assert not specialization_words(load("slow"), {}).size


def test_ranges_that_begin_later_are_told_to_the_kernel():
    """Parts of a concatenation are written where they belong, though kp binds the whole."""
    from onnx import TensorProto, helper

    shapes = {"a": [2, 36, 5, 7], "b": [2, 64, 5, 7]}
    nodes = [
        helper.make_node("MaxPool", ["a"], ["pa"], kernel_shape=[1, 1]),
        helper.make_node("MaxPool", ["b"], ["pb"], kernel_shape=[1, 1]),
        helper.make_node("Concat", ["pa", "pb"], ["c"], axis=1),
        helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=[1, 1]),
    ]
    float_ = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info(n, float_, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", float_, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {n: random(*s) for n, s in shapes.items()}
    with InferenceSession(model, device="kompute", strict=True) as session:
        stage = next(iter(session._stages.values()))
        offsets = [b.offset for d in stage.plan.dispatches for b in d.buffers.values()]
        (y,) = session.run(None, feeds)
    assert any(offsets), "no range begins later: this shows nothing"
    expected = np.concatenate([feeds["a"], feeds["b"]], axis=1)
    assert np.array_equal(y, expected)


def test_a_kernel_without_an_offset_is_refused_where_it_needs_one(device):
    from vkconv.errors import DeviceError

    maker = PlanMaker(64)
    x, y = maker.view("x", (128,)), maker.view("y")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": y})
    late = BufferRange(x.storage, 256, 256, True, False)
    step = maker.steps[0]
    assert isinstance(step, Dispatch)
    maker.steps[0] = Dispatch(
        step.node, "scale", (), {**step.buffers, "x": late}, step.push, {}, step.grid
    )
    maker.output("y", y)
    with pytest.raises(DeviceError, match=r"no push constant 'x_offset'.*byte 256"):
        device.prepare(maker.plan())


def test_sentinels_see_what_is_written_behind_a_tensor_and_what_is_never_written():
    case = Case("Softmax", (random(3, 7),))
    with guarded_arenas() as guard, InferenceSession(case.model(), device="kompute") as session:
        session.run(None, case.feeds())
        guard.poison()
        (result,) = session.run(None, case.feeds())
        guard.check()
        assert np.allclose(result, case.expected()[0], atol=1e-6)
        assert guard.kompute.prepared
        for _, executable in guard.kompute.prepared:
            for tensor in executable._place.tensors.values():
                np.asarray(tensor.data())[-1] = 0
            opened, kp = executable._device.opened, executable._device.kp
            spoiled = list(set(executable._place.tensors.values()))
            opened.sequence().record(kp.OpTensorSyncDevice(spoiled)).eval()
        with pytest.raises(AssertionError, match="out of bounds"):
            guard.check()


def test_a_dropped_executable_is_collected(device):
    executable = device.prepare(chain(3))
    gone = weakref.ref(executable)
    del executable
    gc.collect()
    assert gone() is None
    x = numbers(1000)
    assert np.array_equal(device.prepare(chain(2)).run({"x": x})[0], chain_expected(x, 2))


def test_outputs_into_arrays_and_runs_in_two_halves(device):
    executable = device.prepare(chain(4, 100))
    x, into = numbers(100), np.zeros(100, np.float32)
    executable.start({"x": x})
    (y,) = executable.finish({0: into})
    assert y is into and np.array_equal(into, chain_expected(x, 4))
    assert executable.arena_bytes >= 3 * 400 and executable.staging_bytes >= 2 * 400
