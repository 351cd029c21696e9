"""``vkconv doctor``: the block it prints, the self-test, machines where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plan.planning import CPU
from vkconv import passes, shaders
from vkconv.capabilities import DeviceCaps
from vkconv.cli.main import main
from vkconv.device import open_device
from vkconv.diagnosis import report, self_test, system
from vkconv.diagnosis.families import FAMILIES, family_graph
from vkconv.diagnosis.self_test import FamilyResult, run_self_test
from vkconv.errors import BuildError, DeviceError, DeviceLostError
from vkconv.ir import Graph
from vkconv.ops.conv_kernels import SCALED_BUFFERS
from vkconv.ops.conv_problem import SHUFFLE_LANES
from vkconv.plan import ConstantStore, lowering, make_plan
from vkconv.verification import NodeCheck, compare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))


def doctor(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """In a process of its own: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "vkconv.cli.main", "doctor", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    return done.returncode, done.stdout, done.stderr


# --- a machine that works ----------------------------------------------------------------------


def test_the_block_of_a_machine_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    info = open_device("auto")
    name = info.info.name
    info.close()
    for text in (
        "VERSIONS", "vkconv", "numpy", "ENVIRONMENT", "VKCONV_CACHE_DIR", "CACHE", "writable",
        "LOADER AND DRIVERS", "DEVICE 0", name, "max_storage_buffer_range", "quirk", "SELF-TEST",
        "RESULT: all kernel families work", *FAMILIES,
    ):  # fmt: skip
        assert text in said.out, text
    assert not said.err and "\x1b" not in said.out
    assert str(Path.home()) not in said.out
    assert all(len(line.rstrip()) == len(line) for line in said.out.splitlines())


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--no-self-test"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["well"] is True and made["self_test"] == [] and made["tested"] is None
    assert made["sections"]["device 0"]["kind"] and made["sections"]["versions"]["vkconv"]


#: kernels that measure a device and compute no operator
MEASURING = {"ceiling_arithmetic", "ceiling_copy"}
#: what rules take on other devices than CPU drivers that unroll loops, and on those alone
OF_OTHER_DEVICES = {"conv2d_8x4", "conv2d_shared", "conv_transpose2d_8x4", "depthwise_conv2d_4x1"}
OF_UNROLLING = {
    "conv2d", "conv2d_1x1", "conv2d_1x1_subgroup", "conv_transpose2d", "depthwise_conv2d",
    "sliding_max2d", "winograd_input", "winograd_output",
}  # fmt: skip
KERNELS = {name for name in shaders.kernels() if "." not in name}


def test_the_self_test_reaches_every_kernel_of_the_device() -> None:
    device = open_device("auto")
    heard: list[FamilyResult] = []
    began = time.process_time()
    unrolls = device.caps.unrolls_loops
    try:
        results = run_self_test(device, tell=heard.append)
    finally:
        device.close()
    assert heard == results and [r.family for r in results] == list(FAMILIES)
    assert all(r.holds for r in results), [r for r in results if not r.holds]
    assert time.process_time() - began < 20  # of this process: other work takes its time
    reached = {kernel.split("/")[0] for r in results for kernel in r.kernels}
    assert reached <= KERNELS
    if {"VKCONV_DISABLE", "VKCONV_LIMITS", "VKCONV_DEVICE"} & set(os.environ):
        return  # a small device runs a part on the host
    assert not any(r.hosts for r in results)
    if device.caps.kind != "cpu":
        return  # the kernels that GPUs get are below
    # a new kernel needs a case in vkconv/diagnosis/families.py
    others = OF_OTHER_DEVICES if unrolls else OF_UNROLLING | {"conv2d_shared"}
    if device.caps.subgroup_size < SHUFFLE_LANES:
        others = others | {"conv2d_1x1_subgroup"}
    assert reached - others == KERNELS - others - MEASURING
    if not unrolls:
        return
    products = {kernel for r in results for kernel in r.kernels if kernel.startswith("conv2d_1x1")}
    place = 1 + sorted(shaders.axes("conv2d_1x1")).index("scale")
    takes_factors = device.caps.max_storage_buffers >= SCALED_BUFFERS
    expected = {"on", "off"} if takes_factors else {"off"}
    assert {kernel.split("/")[place] for kernel in products} == expected


@pytest.mark.parametrize(
    ("caps", "kernels"),
    [
        (replace(CPU, unrolls_loops=False), OF_OTHER_DEVICES - {"conv2d_shared"}),
        (replace(CPU, kind="integrated"), OF_OTHER_DEVICES - {"conv2d_shared"}),
        (replace(CPU, kind="discrete"), {"conv2d_shared", "conv_transpose2d_8x4"}),
    ],
)  # fmt: skip
def test_the_self_test_reaches_the_kernels_of_other_devices(
    caps: DeviceCaps, kernels: set[str]
) -> None:
    graph, _ = family_graph("convolution")
    passes.infer_and_fold(graph)
    passes.rewrite(graph)
    passes.infer_and_fold(graph)
    passes.finish(graph, caps)
    plan = make_plan(graph, caps, ConstantStore())
    assert kernels <= {dispatch.kernel for dispatch in plan.dispatches}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_knows_what_it_computes(family: str) -> None:
    """The case's results vary: one that is constant shows nothing."""
    graph, feeds = family_graph(family)
    assert len({v.name for v in graph.outputs}) == len(graph.outputs)
    assert set(feeds) == {v.name for v in graph.inputs}
    assert all(array.size > 1 and array.min() != array.max() for array in feeds.values())


def test_a_family_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, buffers: Any, push: Any, *rest: Any, **axes: str) -> Any:
        if kernel == "upsample2d":
            push = {name: 1 if name.startswith("scale") else v for name, v in push.items()}
        if kernel == "softmax":
            raise RuntimeError("planted")
        return real(self, kernel, buffers, push, *rest, **axes)

    monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    failed = [line.split()[1] for line in said.splitlines() if line.startswith("  FAIL")]
    assert "normalisation" in failed and "planted" in said
    assert "convolution" not in failed and "pooling" not in failed
    assert "ERROR: self-test of normalisation" in said


@pytest.mark.parametrize(
    ("error", "is_own"),
    [
        (BuildError("kernel 'softmax' has no variant"), True),
        (RuntimeError("planted"), True),
        (DeviceLostError("planted"), False),
        (DeviceError("no pipeline"), False),
    ],
    ids=repr,
)
def test_the_driver_is_not_blamed_for_faults_of_vkconv(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    is_own: bool,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(self_test, "verify_graph", fail)
    monkeypatch.setattr(self_test.run_self_test, "__defaults__", (("normalisation",), None))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"{type(error).__name__}: {error}" in said
    assert ("not of the graphics driver" in said and "report it with this text" in said) == is_own
    assert ("raised in fail, test_doctor_command.py:" in said) == is_own
    assert ("remedy: update the graphics driver" in said) != is_own


def test_wrong_numbers_may_be_the_drivers_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(graph: Graph, feeds: Any, device: Any) -> list[NodeCheck]:
        right = np.zeros((2, 3), np.float32)
        differences = (compare("y", right + 1, right),)
        return [NodeCheck("n", "Softmax", "gpu", ("softmax",), differences=differences)]

    monkeypatch.setattr(self_test, "verify_graph", wrong)
    monkeypatch.setattr(self_test.run_self_test, "__defaults__", (("normalisation",), None))
    assert main(["doctor"]) == 1
    assert "remedy: update the graphics driver" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["in other places", "nothing is written"])
def test_wrong_numbers_fail_a_family(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what an earlier run left in memory taken for a result."""
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, buffers: Any, push: Any, *rest: Any, **axes: str) -> Any:
        if kernel == "image_to_tensor":
            push = {**push, **({"pixels": 1} if fault == "in other places" else {"count": 0})}
        return real(self, kernel, buffers, push, *rest, **axes)

    device = open_device("auto")
    try:
        (right,) = run_self_test(device, ["images"])
        monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
        (result,) = run_self_test(device, ["images"])
    finally:
        device.close()
    assert right.holds
    assert not result.holds and "ImageToTensor by" in result.failure


# --- machines where something is missing -------------------------------------------------------


def test_no_loader(tmp_path: Path) -> None:
    (tmp_path / "vulkan.py").write_text("raise OSError('no libvulkan.so')")
    code, said, err = doctor(PYTHONPATH=str(tmp_path))
    assert code == 1 and "loader         none" in said and "no Vulkan loader" in said
    assert "remedy: " in said and "RESULT: 1 error" in said and not err


def test_no_binding(tmp_path: Path) -> None:
    (tmp_path / "vulkan.py").write_text("raise ImportError('no module named cffi')")
    code, said, _ = doctor(PYTHONPATH=str(tmp_path))
    assert code == 1 and "remedy: pip install vulkan" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file"),
        ("{", "it is no driver file"),
        ("[]", "it is no driver file"),
        ('{"ICD": {"library_path": "./gone.so", "api_version": "1.1"}}', "cannot be loaded"),
    ],
)
def test_a_broken_driver_file(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "broken_icd.json"
    if content is not None:
        path.write_text(content)
    code, said, _ = doctor("--json", VK_ICD_FILENAMES=str(path), VK_DRIVER_FILES="")
    made = json.loads(said)
    assert code == 1 and not made["well"]
    found = {f["level"]: f for f in made["findings"]}
    assert says in found["warning"]["what"] and "broken_icd.json" in found["warning"]["what"]
    assert "VK_ICD_FILENAMES" in found["warning"]["remedy"]
    assert found["error"]["what"].startswith("no Vulkan driver") and found["error"]["remedy"]


def test_a_wrong_switch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "magic")
    assert main(["doctor"]) == 1
    assert "unknown feature 'magic'" in capsys.readouterr().out


def test_switches_and_limits_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VKCONV_PROFILE", raising=False)  # it would switch off more
    monkeypatch.setenv("VKCONV_DISABLE", "texel,timestamps")
    monkeypatch.setenv("VKCONV_LIMITS", "subgroup_size=4")
    assert main(["doctor", "--no-self-test"]) == 0
    said = capsys.readouterr().out
    assert "texel, timestamps, uniform_texel" in said and "storage_texel" in said
    assert "subgroup_size 4" in said and "subgroup_size=4" in said


def test_a_cache_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert main(["doctor", "--no-self-test"]) == 0
    said = capsys.readouterr().out
    assert "WARNING: the cache cannot be used" in said and "writable       no" in said


def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "99"]) == 1
    assert "choose one of the devices above" in capsys.readouterr().out


def test_the_reference_needs_no_doctor(refused: Callable[..., str]) -> None:
    assert "Vulkan devices" in refused(main, ["doctor", "--device", "reference"], 1)


def test_a_gpu_without_driver_or_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    made = report.diagnose(self_test=False)
    kinds = {rows[1][1] for title, rows in made.sections.items() if title.startswith("device ")}
    if kinds != {"cpu"}:
        pytest.fail("this test needs a machine with a CPU driver alone")
    monkeypatch.setattr(system, "render_nodes", lambda: ["/dev/dri/renderD128"])
    monkeypatch.setattr(system, "locked_render_nodes", lambda: [])
    (finding,) = report.diagnose(self_test=False).findings
    assert finding.is_warning and "only a driver for the processor" in finding.what
    monkeypatch.setattr(system, "locked_render_nodes", lambda: ["/dev/dri/renderD128"])
    (finding,) = report.diagnose(self_test=False).findings
    assert "no permission" in finding.what and "usermod" in finding.remedy


@pytest.mark.parametrize(
    ("platform", "release", "says"),
    [
        ("linux", {"ID": "debian"}, "apt install libvulkan1 mesa-vulkan-drivers"),
        ("linux", {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt install"),
        ("linux", {"ID": "fedora"}, "dnf install"),
        ("linux", {"ID": "opensuse-leap"}, "zypper install"),
        ("linux", {"ID": "arch"}, "pacman -S"),
        ("linux", {"ID": "alpine"}, "apk add"),
        ("linux", {}, "on Debian and Ubuntu"),
        ("darwin", {}, "molten-vk"),
        ("win32", {}, "current driver"),
    ],
)
def test_remedies_name_packages_of_the_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, release: dict[str, str], says: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(system, "_os_release", lambda: release)
    assert says in system.install_remedy()
