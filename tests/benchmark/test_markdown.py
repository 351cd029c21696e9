"""The reports as text: losses as plain as wins."""

from __future__ import annotations

import pytest

from tests.benchmark.made import result, row
from vkconv.benchmark.markdown import compared, report, suite_figures, suite_report, table


def cells_of(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_a_model() -> None:
    text = report(result(), "vkconv bench x")
    assert text.startswith("# Net <1>, 2026-01-31\n") and "- command: `vkconv bench x`" in text
    assert cells_of(text, "ncnn")[1:6] == [
        "50.0",
        "60.0",
        "75.0",
        "45.0",
        "5.00x faster (4.00 to 6.00)",
    ]
    assert cells_of(text, "onnxruntime")[5] == "2.00x slower (1.25 to 2.50)"
    assert cells_of(text, "onnxruntime")[-1] == "(reference)"
    assert cells_of(text, "PyTorch")[5] == "not comparable"
    assert "- PyTorch, CPU: its outputs differ" in text
    assert "- OpenCV DNN, Vulkan: cv2 is not installed" in text
    assert "12.0 ms, the device takes 9.0, nodes on the host 1.0, copies and submission 2.0" in text
    assert "3.00 GFLOP, 300.0 GFLOP/s" in text
    # a cell with a bar in it stays one cell
    assert "TILE=4 \\| 5x2x1" in text
    assert cells_of(text, "/a/<b>/Conv")[2:7] == ["4.00", "25%", "250.0", "2.5", "50%"]


def test_a_model_that_does_not_run() -> None:
    text = report(result(vkconv={"reason": "no driver"}))
    assert "- vkconv: no driver" in text and "Where vkconv's time goes" not in text


def test_a_suite() -> None:
    second = result("Other", ncnn=row(0.02, ratio=20.0, ratios=[20.0]))
    third = result("Third", ncnn={"reason": "ncnn has no layer X"})
    text = suite_report([result(), second, third], "scripts/bench")
    assert cells_of(text, "Net <1>")[:8] == [
        "Net <1>", "10.0", "50.0", "30.0", "5.0", "5.00", "-", "0.50"
    ]  # fmt: skip
    assert cells_of(text, "geometric mean")[-3:] == ["10.00", "-", "0.50"]
    assert "- ncnn, Vulkan, fp32: ncnn has no layer X (Third)" in text
    assert "- OpenCV DNN, Vulkan: cv2 is not installed (all nets)" in text
    assert "200 GFLOP/s" in text
    assert "- command: `scripts/bench`\n\n" in text


def test_what_was_measured_again_says_so() -> None:
    again = result("Other")
    again.settings["command"] = "scripts/bench --again --only other"
    text = suite_report([result(), again, result("Third")], "scripts/bench")
    assert "- command: `scripts/bench`\n- and again Other: `scripts/bench --again" in text


def test_the_figures_of_a_suite() -> None:
    second = result("Other", ncnn=row(0.02, ratio=20.0, ratios=[20.0], peak=1))
    lines = suite_figures([result(), second])
    assert lines == [
        "ncnn, Vulkan, fp32: 10.00x faster in the geometric mean of 2 nets; from 5.00x faster "
        "(Net <1>) to 20.00x faster (Other)",
        "onnxruntime, CPU: 2.00x slower in the geometric mean of 2 nets; from 2.00x slower "
        "(Net <1>) to 2.00x slower (Net <1>)",
        "peak memory below ncnn's on 1 of 2 nets",
        "arena at most 2.00 times its lower bound (Net <1>)",
        "warm load 25% to 25% of cold load",
        "vkconv's outputs against onnxruntime's: NMSE at most 1.0e-12",
    ]


@pytest.mark.parametrize("nets", [1, 2])
def test_a_suite_of_failures(nets: int) -> None:
    broken = result(vkconv={"reason": "no driver"}, ncnn={"reason": "none"}, torch={"reason": "x"})
    assert "no driver (all nets)" in suite_report([broken] * nets, "c")


def test_words() -> None:
    assert [compared(x) for x in (3.1, 1.0, 0.5)] == [
        "3.10x faster",
        "1.00x faster",
        "2.00x slower",
    ]
    assert table(["a", "b"], [["1", "2|3"]])[-1] == "| 1 | 2\\|3 |"
