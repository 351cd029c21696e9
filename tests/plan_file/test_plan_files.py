"""Plan files through the session: the same outputs as the model's, and nothing of ONNX needed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.device.handmade import LAVAPIPE, SWIFTSHADER
from tests.plan_file.models import ALL, compiled, convolutions, host_steps, results
from tests.small_models import floats, model, node
from vkconv import InferenceSession, compile_model
from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("device", ["auto", "reference"])
@pytest.mark.parametrize("name", ALL)
def test_a_plan_gives_what_its_model_gives(name: str, device: str, tmp_path: Path) -> None:
    proto, feeds = ALL[name]()
    path = compiled(proto, tmp_path / "model.vkplan", device=device)
    expected = results(proto, feeds, device)
    for source in (str(path), path, path.read_bytes()):
        made = results(source, feeds, device)
        for a, b in zip(made, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_another_run_of_a_plan_with_other_data(tmp_path: Path) -> None:
    """Stages behind the file's are planned for what the run computes."""
    proto, feeds = ALL["later stages"]()
    path = compiled(proto, tmp_path / "model.vkplan")
    for seed in range(3):
        feeds["x"] = floats(3, 4, seed=seed)
        for a, b in zip(results(path, feeds), results(proto, feeds), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["convolutions", "later stages"])
def test_a_session_tells_the_same_of_both(name: str, tmp_path: Path) -> None:
    proto, feeds = ALL[name]()
    path = compiled(proto, tmp_path / "model.vkplan")
    with InferenceSession(proto) as model_session, InferenceSession(path) as session:
        assert session.get_inputs() == model_session.get_inputs()
        assert session.get_modelmeta() == model_session.get_modelmeta()
        assert [o.name for o in session.get_outputs()] == [
            o.name for o in model_session.get_outputs()
        ]
        model_session.run(None, feeds), session.run(None, feeds)
        assert session.placement == model_session.placement
        assert session.describe_plan() == model_session.describe_plan()


def test_outputs_have_the_shapes_that_were_compiled(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], {"x": ["n", 3]}, {"y": ["n", 3]})
    path = compiled(proto, tmp_path / "m.vkplan", shapes={"x": (2, 3)})
    with InferenceSession(path) as session:
        assert session.get_inputs()[0].shape == [2, 3] == session.get_outputs()[0].shape
        with pytest.raises(InvalidInputError, match="size 5 along axis 0"):
            session.run(None, {"x": floats(5, 3)})


def test_strict_refuses_a_plan_with_host_steps(tmp_path: Path) -> None:
    proto, _ = host_steps()
    path = compiled(proto, tmp_path / "m.vkplan")
    with pytest.raises(UnsupportedModelError, match="Mul:m"):
        InferenceSession(path, strict=True)
    with pytest.warns(RuntimeWarning, match="Mul:m"):
        InferenceSession(path).close()


def test_neither_onnx_nor_passes_are_imported(tmp_path: Path) -> None:
    proto, feeds = convolutions()
    compiled(proto, tmp_path / "model.vkplan")
    np.savez(tmp_path / "feeds.npz", **feeds)
    (expected, *_) = results(proto, feeds)
    np.save(tmp_path / "expected.npy", expected)
    program = textwrap.dedent("""
        import sys
        import numpy as np
        sys.modules["onnx"] = sys.modules["google.protobuf"] = None  # importing either raises
        import vkconv
        session = vkconv.InferenceSession("model.vkplan")
        y, _ = session.run(None, dict(np.load("feeds.npz")))
        np.testing.assert_array_equal(y, np.load("expected.npy"))
        heavy = {"vkconv.passes", "vkconv.onnx_reader", "vkconv.plan"} & set(sys.modules)
        assert not heavy, heavy
        session.close()
    """)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


# --- what cannot be compiled ----------------------------------------------------------------------


def test_open_sizes_have_to_be_given(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], {"x": ["n", 3]}, {"y": None})
    path = str(tmp_path / "m.vkplan")
    with pytest.raises(InvalidInputError, match=r"--shape x="):
        compile_model(proto, path)
    for shape in ((2,), (2, 4), (-1, 3)):
        with pytest.raises(InvalidInputError, match="does not fit input 'x'"):
            compile_model(proto, path, shapes={"x": shape})
    with pytest.raises(InvalidInputError, match="no input 'z'"):
        compile_model(proto, path, shapes={"z": (2, 3)})
    assert not Path(path).exists()


def test_a_plan_is_not_compiled_again(tmp_path: Path) -> None:
    path = compiled(convolutions()[0], tmp_path / "m.vkplan")
    with pytest.raises(InvalidInputError, match="already"):
        compile_model(path, str(tmp_path / "n.vkplan"))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot write"):
        compile_model(convolutions()[0], str(tmp_path / "nowhere" / "m.vkplan"))


# --- other devices --------------------------------------------------------------------------------


def test_the_reference_device_refuses_a_device_s_plan(tmp_path: Path) -> None:
    path = compiled(convolutions()[0], tmp_path / "m.vkplan")
    with pytest.raises(InvalidModelError, match=r"was made for .* make it again"):
        InferenceSession(path, device="reference")


@pytest.mark.parametrize("disabled", ["texel", "subgroup", "uniform_texel"])
def test_features_that_choose_kernels_must_be_the_same(
    disabled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto, feeds = convolutions()
    path = compiled(proto, tmp_path / "m.vkplan")
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    with pytest.raises(InvalidModelError, match="vkconv compile"):
        InferenceSession(path)
    # a plan for the small device is one for itself
    small = compiled(proto, tmp_path / "small.vkplan")
    for a, b in zip(results(small, feeds), results(proto, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_driver_with_other_subgroups_is_told_apart(tmp_path: Path) -> None:
    """A plan of one CPU driver on the other: an error that says what differs, never a run."""
    compiled(convolutions()[0], tmp_path / "m.vkplan")
    with InferenceSession(str(tmp_path / "m.vkplan")) as session:
        other = LAVAPIPE if "llvmpipe" not in session.device.name else SWIFTSHADER
    if not Path(other).exists():
        pytest.fail(f"the second driver, {other}, is missing")
    program = "import vkconv; vkconv.InferenceSession('m.vkplan')"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "VK_ICD_FILENAMES": other},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 1
    assert "InvalidModelError" in answer.stderr and "subgroup_size" in answer.stderr
