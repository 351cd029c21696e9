"""Plans on the Vulkan engine: order, host steps, staging, types, replay, profile."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, chain, chain_expected
from vkconv.device.vulkan import arena
from vkconv.dispatch import BufferRange, Dispatch, HostSlot, Port, View
from vkconv.errors import DeviceError, InvalidInputError


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 70001])
def test_a_chain_of_dependent_dispatches(any_device, count):
    executable = any_device.prepare(chain(20, count))
    x = numbers(count)
    (y,) = executable.run({"x": x})
    assert np.array_equal(y, chain_expected(x, 20))


def test_replays_identically(any_device):
    executable = any_device.prepare(chain(50))
    x = numbers(1000)
    (first,) = executable.run({"x": x})
    for _ in range(100):
        assert np.array_equal(executable.run({"x": x})[0], first)
    other = numbers(1000, seed=1)
    assert np.array_equal(executable.run({"x": other})[0], chain_expected(other, 50))


def test_reads_across_invocations_see_the_dispatch_before(any_device):
    """y = a + reversed(b) needs all of b; then b is overwritten (WAR) and read again."""
    maker = PlanMaker(5000)
    x, b, y, z = (maker.view(name) for name in "xbyz")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": b}, scale=3.0, spec={"bias": 0.0})
    maker.dispatch("add_reversed", {"a": x, "b": b, "y": y})
    maker.dispatch("scale", {"x": y, "y": b}, scale=2.0, spec={"bias": 0.0})
    maker.dispatch("add_reversed", {"a": y, "b": b, "y": z})
    maker.output("z", z)
    executable = any_device.prepare(maker.plan())
    v = numbers(5000)
    w = v + (v * np.float32(3))[::-1]
    expected = w + (w * np.float32(2))[::-1]
    for _ in range(10):
        assert np.allclose(executable.run({"x": v})[0], expected, rtol=1e-6, atol=1e-6)


def test_spec_and_push_values_reach_the_shader(any_device):
    maker = PlanMaker(10)
    x = maker.view("x")
    maker.input("x", x)
    for name, spec in {
        "default": {},
        "bias": {"bias": 2.0},
        "negated": {"negate": 1},
        "both": {"negate": True, "bias": -1.0},
    }.items():
        y = maker.view(name)
        maker.dispatch("scale", {"x": x, "y": y}, scale=4.0, pad=(7, -3), spec=spec)
        maker.output(name, y)
    default, bias, negated, both = any_device.prepare(maker.plan()).run({"x": np.ones(10, "f")})
    assert np.all(default == 14.5) and np.all(bias == 16.0)
    assert np.all(negated == -14.5) and np.all(both == -13.0)


def test_texel_buffers_of_one_and_four_components(any_device):
    maker = PlanMaker(21)
    a, y = maker.view("a", (84,)), maker.view("y", (84,))
    data = numbers(84)
    constant = maker.constant("b", data)
    c = maker.view("c", (21,))
    maker.input("a", a)
    maker.input("c", c)
    maker.dispatch("texels", {"a": a, "b": constant, "c": c, "y": y})
    maker.output("y", y)
    v, w = numbers(84, 1), numbers(21, 2)
    (got,) = any_device.prepare(maker.plan()).run({"a": v, "c": w})
    assert np.allclose(got, v + 10 * data + 100 * np.repeat(w, 4), rtol=1e-5)


def test_a_host_step_between_dispatches(any_device):
    maker = PlanMaker(300)
    x, a, b, c, y = (maker.view(name) for name in "xabcy")
    count = HostSlot("count", (), "int64")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": a}, scale=2.0, spec={"bias": 0.0})
    maker.host(lambda v: (np.sort(v), np.int64(v.size)), [a], [b, count])
    maker.host(lambda v, n, k: v * np.float32(n + k[0]), [b, count, np.array([5])], [c])
    maker.dispatch("scale", {"x": c, "y": y}, spec={"bias": 0.25})
    maker.output("y", y)
    maker.output("count", count)
    maker.output("x", x)
    executable = any_device.prepare(maker.plan())
    for seed in range(3):
        v = numbers(300, seed)
        y_, n, same = executable.run({"x": v})
        assert np.allclose(y_, np.sort(v * 2) * 305 + 0.25, rtol=1e-6)
        assert n == 300 and n.dtype == np.int64 and np.array_equal(same, v)


def test_host_steps_first_last_and_alone(any_device):
    maker = PlanMaker(16)
    x, a, y, z = (maker.view(name) for name in "xayz")
    maker.input("x", x)
    maker.host(np.negative, [x], [a])
    maker.dispatch("scale", {"x": a, "y": y}, spec={"bias": 1.0})
    maker.host(np.square, [y], [z])
    maker.host(np.square, [z], [z])
    maker.output("z", z)
    maker.output("y", y)
    v = numbers(16)
    z_, y_ = any_device.prepare(maker.plan()).run({"x": v})
    assert np.allclose(y_, 1 - v) and np.allclose(z_, (1 - v) ** 4, rtol=1e-5)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "uint32", "float16", "float64"]
)
def test_dtypes_are_kept_at_the_border(any_device, dtype):
    maker = PlanMaker(12)
    view = maker.view("x", (3, 4), "float32" if dtype.startswith("float") else "int32")
    maker.inputs.append(Port("x", dtype, (3, 4), view))
    maker.outputs.append(Port("y", dtype, (3, 4), view))
    x = (
        np.arange(12).reshape(3, 4) % 2 if dtype == "bool" else np.arange(12).reshape(3, 4)
    ).astype(dtype)
    (y,) = any_device.prepare(maker.plan()).run({"x": x[:, ::-1]})
    assert y.dtype == np.dtype(dtype) and np.array_equal(y, x[:, ::-1])


def test_an_integer_beyond_the_device_is_refused(device):
    maker = PlanMaker(3)
    view = maker.view("x", dtype="int32")
    maker.inputs.append(Port("x", "int64", (3,), view))
    maker.output("x", view)
    executable = device.prepare(maker.plan())
    with pytest.raises(InvalidInputError, match="'x' holds 4294967296"):
        executable.run({"x": np.array([0, 1 << 32, 1])})
    assert np.array_equal(executable.run({"x": np.arange(3)})[0], [0, 1, 2])


def test_wrong_feeds_leave_the_session_usable(device):
    executable = device.prepare(chain(2, 8))
    for feeds, words in (
        ({}, "missing"),
        ({"x": np.ones(9, np.float32)}, r"float32\[9\]"),
        ({"x": np.ones(8, np.int32)}, "int32"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            executable.run(feeds)
    assert np.all(
        executable.run({"x": np.ones(8, np.float32)})[0] == chain_expected(np.float32(1), 2)
    )


def test_empty_tensors_scalars_folded_and_unread_ports(any_device):
    maker = PlanMaker(4)
    empty, scalar = maker.view("empty", (0, 3)), maker.view("scalar", ())
    maker.input("unread", None)
    maker.input("empty", empty)
    maker.input("scalar", scalar)
    y = maker.view("y", ())
    maker.dispatch("scale", {"x": empty, "y": empty}, count=0)
    maker.dispatch("scale", {"x": scalar, "y": y}, count=1, scale=3.0)
    table = np.arange(4)
    maker.output("empty", empty)
    maker.output("y", y)
    maker.output("table", table)
    executable = any_device.prepare(maker.plan())
    feeds = {"empty": np.zeros((0, 3), np.float32), "scalar": np.float32(2) * np.ones((), "f")}
    got = executable.run(feeds)
    assert got[0].shape == (0, 3) and got[1].shape == () and got[1] == 6.5
    got[2][:] = 7
    assert np.array_equal(executable.run(feeds)[2], [0, 1, 2, 3])


def test_a_plan_of_nothing(any_device):
    assert any_device.prepare(PlanMaker().plan()).run({}) == []


def test_views_at_an_element_offset(any_device):
    maker = PlanMaker(64)
    storage = maker.storage("shared", 200)
    left, right = (View(storage, (5, 7), "float32", "linear", offset=o) for o in (3, 101))
    maker.input("left", left)
    maker.input("right", right)
    maker.output("right", right)
    maker.output("left", left)
    a, b = numbers(35).reshape(5, 7), numbers(35, 1).reshape(5, 7)
    right_, left_ = any_device.prepare(maker.plan()).run({"left": a, "right": b})
    assert np.array_equal(left_, a) and np.array_equal(right_, b)


def test_a_faulty_host_step_is_named_and_the_session_goes_on(device):
    maker = PlanMaker(4)
    x, y = maker.view("x"), maker.view("y")
    maker.input("x", x)
    maker.host(lambda v: v if v[0] else v[:2], [x], [y])
    maker.output("y", y)
    executable = device.prepare(maker.plan())
    with pytest.raises(DeviceError, match=r"host_0.*float32\[2\], planned as float32\[4\]"):
        executable.run({"x": np.zeros(4, np.float32)})
    assert np.all(executable.run({"x": np.ones(4, np.float32)})[0] == 1)


def test_profile_times_every_step(any_device):
    maker = PlanMaker(64)
    x, a, b, y = (maker.view(name) for name in "xaby")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": a})
    maker.host(lambda v: v, [a], [b])
    maker.dispatch("scale", {"x": b, "y": a})
    maker.dispatch("scale", {"x": a, "y": y})
    maker.output("y", y)
    executable = any_device.prepare(maker.plan())
    v = numbers(64)
    for _ in range(3):
        (y_,), times = executable.profile({"x": v})
        assert np.allclose(y_, v + 1.5, atol=1e-6)
        assert [t.node for t in times] == ["scale_0", "host_1", "scale_2", "scale_3"]
        assert [t.track for t in times] == ["gpu", "host", "gpu", "gpu"]
        assert all(0 <= t.duration < 1 and 0 <= t.start < 10 for t in times)
        assert [t.start for t in times] == sorted(t.start for t in times)
    assert np.array_equal(executable.run({"x": v})[0], y_)


def test_poisoned_memory_does_not_reach_the_outputs_and_nothing_else_is_written(any_device):
    executable = any_device.prepare(chain(3, 100))
    x = numbers(100)
    arena.poison(executable, 0x7FC00001)
    assert np.array_equal(executable.run({"x": x})[0], chain_expected(x, 3))
    words = arena.contents(executable).view(np.uint32)
    for start in (0, 128, 256):  # three storages of 400 bytes, 512 apart
        assert np.all(words[start + 100 : start + 128] == 0x7FC00001)


def test_threads_share_a_device_and_an_executable(device):
    shared = device.prepare(chain(10, 500))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            own = device.prepare(chain(seed + 1, 300))
            for k in range(20):
                x = numbers(500, seed * 100 + k)
                assert np.array_equal(shared.run({"x": x})[0], chain_expected(x, 10))
                got = own.run({"x": x[:300]})[0]
                assert np.array_equal(got, chain_expected(x[:300], seed + 1))
            own.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": (1 << 20, 1, 1)}, "grid"),
        ({"push": {"count": 1}}, "push constants do not match: pad, scale"),
        ({"push": {"count": 1, "scale": 1.0, "pad": (1,)}}, "'pad'"),
        ({"push": {"count": 1 << 40, "scale": 1.0, "pad": (1, 2)}}, "'count'"),
        ({"spec": {"tile": 4}}, "no specialization constant 'tile'"),
        ({"buffers": {}}, "buffers do not match: x, y"),
    ],
)
def test_a_dispatch_that_does_not_fit_is_refused_by_name(device, change, words):
    plan = chain(1, 8)
    (good,) = plan.dispatches
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    maker = PlanMaker(8)
    maker.steps, maker.arena = [Dispatch(**{**fields, **change})], plan.arena_size
    with pytest.raises(DeviceError, match=words):
        device.prepare(maker.plan())


def test_a_range_outside_its_storage_is_refused(device):
    plan = chain(1, 100)
    (good,) = plan.dispatches
    storage = good.buffers["y"].storage
    for bad in (
        BufferRange(storage, 256, 300, False, True),
        BufferRange(storage, 4, 8, False, True),
    ):
        fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
        maker = PlanMaker(8)
        maker.steps = [Dispatch(**{**fields, "buffers": {"x": good.buffers["x"], "y": bad}})]
        maker.arena = plan.arena_size
        with pytest.raises(DeviceError, match="buffer 'y'"):
            device.prepare(maker.plan())
