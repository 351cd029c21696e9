"""``vkconv.verify``: what is right passes, and planted faults are found at the very node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession, InvalidInputError, verify
from vkconv.image_inputs import ImageInput
from vkconv.ir import Array, Graph
from vkconv.plan import lowering, views
from vkconv.verification import bisect, tolerance
from vkconv.verification.bisection import check_folder


@pytest.fixture(autouse=True)
def _no_plans_from_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))


def net(**inputs: Any) -> onnx.ModelProto:
    return model(
        [
            node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
            node("Relu", "c", "r"),
            node("Conv", "r v", "d"),
            node("Add", "d r", "s"),
            node("Concat", "s c", "k", axis=1),
            node("MatMul", "k m", "z"),
            node("Softmax", "z", "y"),
        ],
        inputs or {"x": [2, 3, 12, 12]},
        {"y": None},
        {
            "w": floats(6, 3, 3, 3), "b": floats(6), "v": floats(6, 6, 1, 1, seed=2),
            "m": floats(12, 5),
        },
    )  # fmt: skip


#: plants wrong push constants for a node; the list returned takes the kernels that get them
Corrupt = Callable[[str, Mapping[str, Any]], list[str]]


@pytest.fixture
def corrupt(monkeypatch: pytest.MonkeyPatch) -> Corrupt:
    real = lowering.PlanLowering.dispatch

    def plant(name: str, wrong: Mapping[str, Any]) -> list[str]:
        planted: list[str] = []

        def dispatch(
            self: Any, kernel: str, buffers: Any, push: Any, spec: Any, grid: Any, **axes: str
        ) -> Any:
            if self.node == name and set(wrong) <= set(push):
                planted.append(kernel)
                push = {**push, **wrong}
            return real(self, kernel, buffers, push, spec, grid, **axes)

        monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
        return planted

    return plant


# --- what is right -----------------------------------------------------------------------------


def test_every_node_of_a_right_model_agrees() -> None:
    found = verify(net())
    assert found.holds and found.first is None and not found.notes
    names = {check.node for check in found.checks}
    assert {"Conv:c", "Conv:d", "MatMul:z", "Softmax:y", "Concat:k"} <= names
    assert all(check.differences for check in found.checks)
    conv = next(c for c in found.checks if c.node == "Conv:d")
    assert conv.fused and conv.where == "gpu" and conv.kernels
    assert [d.value for d in found.end_to_end] == ["y"] and found.end_to_end[0].nmse < 1e-9
    assert found.replay[0].nmse == 0 and "agree" in found.verdict


def test_the_values_seen_are_those_of_the_model() -> None:
    """Not only that both sides agree: a value of the run is what numpy makes of the feeds."""
    x = floats(2, 3, 12, 12, seed=4)
    found = verify(net(), {"x": x}, keep=["r", "s"])
    w, b = floats(6, 3, 3, 3).astype(np.float64), floats(6)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    c = np.einsum("nchwij,ocij->nohw", windows, w) + b[:, None, None]
    s = np.einsum("nchw,oc->nohw", np.maximum(c, 0), floats(6, 6, 1, 1, seed=2)[:, :, 0, 0])
    np.testing.assert_allclose(found.kept["s"], s + np.maximum(c, 0), rtol=1e-3, atol=1e-3)


def test_open_sizes_are_chosen_or_given() -> None:
    proto = net(x=["n", 3, "h", 12])
    assert verify(proto, shapes={"x": (1, 3, 7, 12)}).feeds["x"].shape == (1, 3, 7, 12)
    assert verify(proto).holds
    with pytest.raises(InvalidInputError, match="no input 'z'"):
        verify(proto, shapes={"z": (1,)})
    with pytest.raises(InvalidInputError, match="axis 1"):
        verify(proto, {"x": floats(1, 4, 7, 12)})


def test_images_go_the_way_of_pixels() -> None:
    found = verify(net(), images=ImageInput(scale=1 / 255))
    assert found.holds and found.feeds["x"].dtype == np.uint8
    assert found.checks[0].op_type == "ImageToTensor" and found.checks[0].where == "gpu"


def test_sizes_that_depend_on_data_loops_and_host_nodes() -> None:
    body = onnx.helper.make_graph(
        [node("Add", "carried step", "next"), node("Identity", "going", "still")],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", 7, []),
            onnx.helper.make_tensor_value_info("going", 9, []),
            onnx.helper.make_tensor_value_info("carried", 1, [4]),
        ],
        [
            onnx.helper.make_tensor_value_info("still", 9, []),
            onnx.helper.make_tensor_value_info("next", 1, [4]),
        ],
    )
    proto = model(
        [
            node("NonZero", "x", "where"),
            node("Transpose", "where", "rows"),
            node("Cast", "rows", "positions", to=1),
            node("Loop", "n - v", "after", body=body),
            node("Cast", "v", "wide", to=11),
            node("Exp", "wide", "far"),
        ],
        {"x": [5, 6], "v": [4], "n": ("int64", [])},
        {"positions": None, "after": None, "far": ("float64", None)},
        {"step": floats(4, seed=3)},
    )
    x = (floats(5, 6) > 0).astype(np.float32)
    found = verify(proto, {"x": x, "v": floats(4), "n": np.int64(7)})
    assert found.holds, found.verdict
    checks = {check.node: check for check in found.checks}
    assert checks["NonZero:where"].differences[0].size == 2 * int(x.sum())
    assert checks["Transpose:rows"].where in ("gpu", "view") and checks["Transpose:rows"].holds
    assert any(check.runs == 7 and check.op_type == "Add" for check in found.checks)
    assert checks["Exp:far"].where == "host" and "Exp:far" in " ".join(found.notes)
    assert [d.value for d in found.end_to_end] == ["positions", "after", "far"]


def test_what_cannot_be_verified_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="name a Vulkan device"):
        verify(net(), device="reference")
    from vkconv import compile_model

    compile_model(net(), str(tmp_path / "net.vkplan"))
    with pytest.raises(InvalidInputError, match="plan file"):
        verify(str(tmp_path / "net.vkplan"))


# --- planted faults ----------------------------------------------------------------------------


def test_a_wrong_kernel_is_named_with_node_and_worst_element(corrupt: Corrupt) -> None:
    planted = corrupt("Conv:d", {"in_blocks": 1})
    x = floats(2, 3, 12, 12, seed=4)
    found = verify(net(), {"x": x}, keep=["r", "s"])
    first = found.first
    assert not found.holds and first is not None
    assert first.node == "Conv:d" and first.kernels[0].startswith(planted[0])
    assert [c.node for c in found.diverging] == ["Conv:d"], "only the guilty one, not what follows"
    worst = first.worst
    assert worst is not None and worst.value == "s" and worst.nmse > 1e-3
    assert found.kept["s"][worst.index] == pytest.approx(worst.got)
    r, v = found.kept["r"].astype(np.float64), floats(6, 6, 1, 1, seed=2)[:, :, 0, 0]
    wanted = np.einsum("nchw,oc->nohw", r, v) + r
    np.testing.assert_allclose(wanted[worst.index], worst.wanted, rtol=1e-4)
    error = np.abs(found.kept["s"] - wanted)
    rms = float(np.sqrt(np.mean(wanted**2)))
    allowed = tolerance("float32", 6)
    guard = allowed.relative * np.abs(wanted) + allowed.scaled * rms
    assert error[worst.index] / guard[worst.index] == pytest.approx((error / guard).max(), 1e-3)
    assert first.alone is not None and not first.alone.holds
    assert not found.end_to_end[0].holds
    for text in ("Conv 'Conv:d'", planted[0], "worst element", "alone it is wrong"):
        assert text in found.verdict


def test_the_first_of_several_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, buffers: Any, push: Any, *rest: Any, **axes: str) -> Any:
        if self.node in ("Conv:d", "MatMul:z"):
            half = {"in_blocks": 1, "inner": 1, "depth": 1, "k": 1}
            push = {name: half.get(name, value) for name, value in push.items()}
        return real(self, kernel, buffers, push, *rest, **axes)

    monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
    found = verify(net(), end_to_end=False)
    assert [c.node for c in found.diverging] == ["Conv:d", "MatMul:z"]
    assert found.first is found.diverging[0] and "1 more node differs" in found.verdict


def reads_again(*before: onnx.NodeProto, operand: str = "x") -> onnx.ModelProto:
    """``a`` is read once more behind the Sigmoid, which could be written over it."""
    nodes = [
        *before,
        node("MatMul", f"{operand} w", "a"),
        node("Sigmoid", "a", "p"),
        node("MatMul", "a v", "q"),
        node("MatMul", "p q", "y"),
    ]
    weights = {"w": floats(8, 6), "v": floats(6, 5)}
    return model(nodes, {"x": [6, 8]}, {"y": None}, weights)


def test_numbers_that_lie_in_memory_by_luck_are_no_result(corrupt: Corrupt) -> None:
    """A kernel that writes nothing, where memory may hold zeros and zeros are right."""
    proto = model([node("Sqrt", "x", "r"), node("Mul", "r r", "y")], {"x": [8, 9]}, {"y": None})
    feeds = {"x": np.zeros((8, 9), np.float32)}
    assert verify(proto, feeds).holds
    planted = corrupt("Sqrt:r", {"count": 0})
    found = verify(proto, feeds)
    assert planted and found.first is not None and found.first.node == "Sqrt:r"


def test_memory_given_away_too_early_is_told_from_a_wrong_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A result written over an operand that is read again: each kernel is right."""
    proto = reads_again()
    assert verify(proto).holds
    monkeypatch.setattr(views.ViewAssignment, "_dies", lambda *_: True)
    found = verify(proto)
    first = found.first
    assert first is not None and first.node == "MatMul:q"
    assert first.alone is not None and first.alone.holds
    assert "the fault is in the plan" in found.verdict


def test_a_wrong_rewriting_shows_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import vkconv.planning

    real = vkconv.planning.rewrite

    def wrong(graph: Graph) -> None:
        for item in graph.nodes:
            item.op_type = {"Softmax": "LogSoftmax"}.get(item.op_type, item.op_type)
        real(graph)

    monkeypatch.setattr(vkconv.planning, "rewrite", wrong)
    found = verify(net())
    assert found.first is None and not found.holds
    assert "rewriting" in found.verdict and "'y'" in found.verdict
    assert not verify(net(), end_to_end=False).end_to_end


def test_a_plain_run_that_gives_other_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a missing barrier would: the watched run stops between nodes, the plain one does not."""
    real = InferenceSession.run

    def run(self: InferenceSession, names: Sequence[str] | None, feeds: Any) -> list[Array]:
        (y,) = real(self, names, feeds)
        y.reshape(-1)[17] = np.nextafter(y.reshape(-1)[17], np.float32(2))
        return [y]

    monkeypatch.setattr(InferenceSession, "run", run)
    found = verify(net())
    assert not found.holds and found.first is None and not found.replay[0].holds
    assert found.replay[0].wrong == 1 and "barrier" in found.verdict


def test_the_smallest_part_that_fails_is_exported(corrupt: Corrupt, tmp_path: Path) -> None:
    planted = corrupt("Conv:d", {"in_blocks": 1})
    folder = tmp_path / "report"
    proto = net()
    found = verify(proto, {"x": floats(2, 3, 12, 12, seed=4)})

    def again(part: Any, feeds: Mapping[str, Array], keep: Any) -> Any:
        return verify(part, feeds, keep=tuple(keep), end_to_end=False)

    made = bisect(proto, found, str(folder), again)
    assert made.reproduces and made.nodes == 2
    part = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(part, full_check=True)
    assert [n.name for n in part.graph.node] == ["Conv:d", "Add:s"]
    assert [t.name for t in part.graph.initializer] == ["v"]
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    assert inputs.files == ["r"] and expected.files == ["s"]
    with InferenceSession(str(folder / "model.onnx"), device="reference") as session:
        (s,) = session.run(None, dict(inputs))
    np.testing.assert_allclose(s, expected["s"], rtol=1e-4, atol=1e-5)
    assert verify(str(folder / "model.onnx"), dict(inputs)).first.node == "Conv:d"
    text = (folder / "README.md").read_text()
    for part_of_it in ("vkconv verify model.onnx --inputs inputs.npz", planted[0], "numpy"):
        assert part_of_it in text
    assert str(Path.home()) not in text


def test_a_fault_of_the_plan_alone_exports_as_much_as_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proto = reads_again(node("Relu", "x", "before"), operand="before")
    monkeypatch.setattr(views.ViewAssignment, "_dies", lambda *_: True)
    found = verify(proto)

    def again(part: Any, feeds: Mapping[str, Array], keep: Any) -> Any:
        return verify(part, feeds, keep=tuple(keep))

    made = bisect(proto, found, str(tmp_path / "report"), again)
    # MatMul q alone is right: what spoils its input is no part of what q needs
    assert not made.reproduces and made.nodes == 5
    assert "whole model" in (tmp_path / "report" / "README.md").read_text()


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing differs"):
        bisect(net(), verify(net()), str(tmp_path / "new"), lambda *_: verify(net()))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path), str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        with pytest.raises(InvalidInputError):
            check_folder(place)
