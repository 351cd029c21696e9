"""What can be wrong with kp, a device or a plan: one line, typed, and the process goes on."""

from __future__ import annotations

import importlib.machinery
import logging
import multiprocessing
import sys
import types

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, chain, chain_expected, load, run_python
from tests.harness import Case, random
from vkconv import InferenceSession
from vkconv.cli import devices as devices_command
from vkconv.device import open_device
from vkconv.device.kompute import loader
from vkconv.device.kompute.device import KomputeDevice
from vkconv.errors import DeviceError, DeviceLostError, OutOfDeviceMemoryError

X = {"x": np.ones(1000, np.float32)}


@pytest.fixture
def fresh_import(monkeypatch):
    """Whatever kp a test puts in place is looked for anew, and forgotten afterwards."""
    loader.load.cache_clear()
    monkeypatch.delitem(sys.modules, "kp", raising=False)
    yield monkeypatch
    monkeypatch.undo()
    loader.load.cache_clear()


def works() -> None:
    device = KomputeDevice("kompute", load)
    (y,) = device.prepare(chain(3)).run(X)
    assert np.array_equal(y, chain_expected(X["x"], 3))
    device.close()


# --- the package -------------------------------------------------------------------------------


def test_without_kp_one_line_says_how_to_build_it(fresh_import):
    fresh_import.setattr(loader, "is_installed", lambda: False)
    with pytest.raises(DeviceError, match=r"kp 0\.9, which is not installed.*build_kompute\.sh"):
        open_device("kompute")


def test_the_command_line_prints_that_line():
    code = (
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'kp' else real(name, *a)\n"
        "from vkconv.cli.run import main\n"
        "sys.exit(main(['--device', 'kompute', 'examples/meadow.jpg']))\n"
    )
    done = run_python(code)
    assert done.returncode not in (0, -11) and "Traceback" not in done.stderr
    assert "build_kompute.sh" in done.stderr


@pytest.mark.parametrize("name", ["0.8.1", "1.0", "unknown"])
def test_another_version_of_kp(fresh_import, name):
    fresh_import.setattr(loader, "version", lambda: name)
    with pytest.raises(DeviceError, match=rf"version {name}; vkconv speaks to 0\.9"):
        open_device("kompute")


def test_a_kp_that_does_not_load(fresh_import, tmp_path):
    (tmp_path / "kp.py").write_text("raise ImportError('undefined symbol: vkNothing')")
    fresh_import.syspath_prepend(tmp_path)
    importlib.machinery.PathFinder.invalidate_caches()
    with pytest.raises(DeviceError, match=r"cannot be imported \(undefined symbol.*build_kompute"):
        open_device("kompute")


def test_importing_kp_leaves_logging_alone():
    code = (
        "import logging\n"
        "from vkconv.device.kompute import loader\n"
        "loader.load()\n"
        "print(len(logging.root.handlers))\n"
    )
    assert run_python(code).stdout.strip() == "0"
    assert isinstance(logging.root.handlers, list)


def test_only_kompute_imports_kp():
    code = (
        "import sys, vkconv\n"
        "from vkconv.device import open_device\n"
        "open_device('auto').close()\n"
        "print('kp' in sys.modules)\n"
    )
    assert run_python(code).stdout.strip() == "False"


class Zeros:
    """The Manager of a kp that misreads arrays, as one built against an old pybind11 does."""

    def __init__(self, real, change) -> None:
        self._real, self._change = real, change

    def tensor_t(self, words, kind):
        return self._real.tensor_t(self._change(words), kind)

    def __getattr__(self, name):
        return getattr(self._real, name)


@pytest.mark.parametrize(
    "change",
    [np.zeros_like, lambda w: w[:1], lambda w: w.view(np.float32) * np.float32(1)],
    ids=["zeros", "too few", "as floats"],
)
def test_wrong_numbers_are_found_at_the_start(change):
    device = KomputeDevice("kompute", load)
    loader.check_round_trip(device.kp, device.opened)
    if change(loader.PROBE.copy()).tobytes() != loader.PROBE.tobytes():
        with pytest.raises(DeviceError, match=r"does not return the numbers.*pybind11.*build_kom"):
            loader.check_round_trip(device.kp, Zeros(device.opened, change))
    device.close()


def test_the_start_refuses_wrong_numbers(monkeypatch):
    kp = loader.load()
    broken = types.SimpleNamespace(
        Manager=lambda i: Zeros(kp.Manager(i), np.zeros_like),
        TensorTypes=kp.TensorTypes,
        OpTensorSyncDevice=kp.OpTensorSyncDevice,
        OpTensorSyncLocal=kp.OpTensorSyncLocal,
    )
    monkeypatch.setattr(loader, "load", lambda: broken)
    with pytest.raises(DeviceError, match="does not return the numbers"):
        InferenceSession(Case("Relu", (random(3),)).model(), device="kompute")
    monkeypatch.undo()
    works()


# --- the device --------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["kompute", "kompute:0", "Kompute: cpu", "kompute:auto"])
def test_choices(choice):
    device = open_device(choice)
    assert device.info.name.endswith("(Kompute)") and device.info.driver.startswith("kp 0.9")
    caps = device.caps
    assert not (caps.storage_texel or caps.uniform_texel or caps.subgroup_shuffle)
    device.close()
    device.close()


@pytest.mark.parametrize("choice", ["kompute:99", "kompute:-1", "kompute:no such name"])
def test_an_unknown_device_lists_those_there_are(choice):
    with pytest.raises(DeviceError, match=r"no device .*there are 0: "):
        open_device(choice)


def test_another_list_of_devices_is_noticed(monkeypatch):
    kp = loader.load()

    class Other:
        def __init__(self, _: int) -> None:
            pass

        def get_device_properties(self):
            return {"device_name": "Another GPU"}

    monkeypatch.setattr(loader, "load", lambda: types.SimpleNamespace(Manager=Other))
    with pytest.raises(DeviceError, match="opened 'Another GPU' where"):
        open_device("kompute")
    assert kp is not None


def test_vkconv_devices_lists_it(capsys):
    assert devices_command.main([]) == 0
    out = capsys.readouterr().out
    assert "kompute:0" in out and "kp 0.9" in out


def test_the_environment_chooses_it(monkeypatch):
    monkeypatch.setenv("VKCONV_DEVICE", "kompute")
    with InferenceSession(Case("Relu", (random(3),)).model()) as session:
        assert session.device.name.endswith("(Kompute)")


# --- limits, memory, loss ----------------------------------------------------------------------


def test_too_little_memory_is_a_typed_error(monkeypatch):
    monkeypatch.setenv("VKCONV_LIMITS", "max_allocation_bytes=65536")
    device = KomputeDevice("kompute", load)
    with pytest.raises(
        OutOfDeviceMemoryError, match=r"no room for 'x'.*maxMemoryAllocationSize is 65536; use"
    ) as held:
        device.prepare(chain(3, 100_000))
    assert held.value.requested >= 400_000
    assert np.array_equal(device.prepare(chain(3)).run(X)[0], chain_expected(X["x"], 3))
    device.close()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_driver_out_of_memory_at_any_tensor(monkeypatch, number):
    device = KomputeDevice("kompute", load)
    create, calls = device._core.memory.create, []

    def failing(size, purpose, what):
        calls.append(what)
        if len(calls) == number:
            raise OutOfDeviceMemoryError(f"no room for {what}", size)
        return create(size, purpose, what)

    with monkeypatch.context() as patch:
        patch.setattr(device._core.memory, "create", failing)
        with pytest.raises(OutOfDeviceMemoryError, match="no room for"):
            device.prepare(chain(3))
    assert device._core.memory._count == 0 and not device._constants
    assert np.array_equal(device.prepare(chain(3)).run(X)[0], chain_expected(X["x"], 3))
    assert device._core.memory._count == 0
    device.close()


def test_a_tensor_beyond_the_range_of_a_binding_names_the_limit(monkeypatch):
    monkeypatch.setenv("VKCONV_LIMITS", "max_storage_buffer_range=65536")
    device = KomputeDevice("kompute", load)
    with pytest.raises(DeviceError, match=r"maxStorageBufferRange of 65536.*default engine"):
        device.prepare(chain(3, 20_000))
    device.close()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("vk::Device::createFence: ErrorDeviceLost", DeviceLostError),
        ("vk::Device::allocate: ErrorOutOfDeviceMemory", OutOfDeviceMemoryError),
        ("vk::Device::allocate: ErrorOutOfHostMemory", OutOfDeviceMemoryError),
        ("something else", DeviceError),
    ],
)
def test_what_kp_raises_is_typed(message, kind):
    with pytest.raises(kind, match="running"), loader.typed("running the plan"):
        raise RuntimeError(message)


class Silent:
    """A sequence on a device that was lost: kp submits, ignores the answer and returns."""

    def __init__(self, real) -> None:
        self.destroy = real.destroy

    def eval(self) -> None:
        pass


@pytest.mark.parametrize("from_sequence", [0, 1, -1])
def test_a_lost_device_is_noticed(from_sequence):
    device = KomputeDevice("kompute", load)
    executable, other = device.prepare(chain(3)), device.prepare(chain(2))
    executable.run(X)
    row = executable._sequences[0]
    row[from_sequence:] = [Silent(s) for s in row[from_sequence:]]
    with pytest.raises(DeviceLostError, match="open another"):
        executable.run(X)
    for attempt in (
        lambda: executable.run(X),
        lambda: other.run(X),
        lambda: device.prepare(chain(1)),
    ):
        with pytest.raises(DeviceError, match="was lost"):
            attempt()
    device.close()
    works()


def test_closed_things_say_so():
    device = KomputeDevice("kompute", load)
    executable, other = device.prepare(chain(3)), device.prepare(chain(3))
    executable.close()
    executable.close()
    with pytest.raises(DeviceError, match="the session is closed"):
        executable.run(X)
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        other.run(X)
    with pytest.raises(DeviceError, match="the device is closed"):
        device.prepare(chain(3))
    other.close()


def test_plans_for_another_device_are_refused():
    device = KomputeDevice("kompute", load)
    maker = PlanMaker(21)
    a, y = maker.view("a", (84,)), maker.view("y", (84,))
    maker.input("a", a)
    maker.dispatch("texels", {"a": a, "b": a, "c": a, "y": y})
    maker.output("y", y)
    with pytest.raises(DeviceError, match=r"'texels'.*storage_texel.*Kompute does not offer"):
        device.prepare(maker.plan())
    maker = PlanMaker()
    x = maker.view("x")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": maker.view("y")}, grid=(1 << 20, 1, 1))
    with pytest.raises(DeviceError, match=r"grid .* maxComputeWorkGroupCount of"):
        device.prepare(maker.plan())
    device.close()
    works()


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("max_storage_buffers=1", r"maxPerStageDescriptorStorageBuffers of 1; plan with"),
        ("max_push_constants_size=4", r"bytes .* maxPushConstantsSize of 4; plan with"),
        ("max_workgroup_count=1", r"maxComputeWorkGroupCount of \(1, 1, 1\); use a smaller"),
        ("max_storage_buffer_range=256", r"maxStorageBufferRange of 256; use a smaller"),
    ],
)
def test_limits_are_named_as_vulkan_does(
    monkeypatch: pytest.MonkeyPatch, limit: str, says: str
) -> None:
    monkeypatch.setenv("VKCONV_LIMITS", limit)
    device = KomputeDevice("kompute", load)
    with pytest.raises(DeviceError, match=says) as held:
        device.prepare(chain(3, 1000))
    assert "\n" not in str(held.value)
    device.close()
    monkeypatch.delenv("VKCONV_LIMITS")
    works()


def _use(device, queue) -> None:
    for attempt in (lambda: device.prepare(chain(1)), device.close):
        try:
            attempt()
            queue.put("no error")
        except DeviceError as error:
            queue.put(str(error))


def test_a_forked_process_is_told():
    device = KomputeDevice("kompute", load)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_use, args=(device, queue))
    child.start()
    answers = [queue.get(timeout=60), queue.get(timeout=60)]
    child.join(60)
    assert all("spawn" in answer for answer in answers) and child.exitcode == 0
    (y,) = device.prepare(chain(3)).run(X)
    assert np.array_equal(y, chain_expected(X["x"], 3))
    device.close()


def test_a_process_that_closes_nothing_ends_well():
    code = (
        "import numpy as np\n"
        "from tests.device.handmade import chain, load\n"
        "from vkconv.device.kompute.device import KomputeDevice\n"
        "device = KomputeDevice('kompute', load)\n"
        "executable = device.prepare(chain(3))\n"
        "executable.run({'x': np.ones(1000, np.float32)})\n"
        "print('ran')\n"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "ran", "")
