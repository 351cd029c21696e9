"""Percentiles, ratios, and what several models come to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from vkconv.benchmark.figures import (
    Result,
    geometric_mean,
    machine,
    nmse,
    percentile,
    ratio_of,
    summarise,
)
from vkconv.errors import InvalidInputError


def block(*times: float, load: float = 1.0, first: float = 2.0, peak: int = 10, **more) -> dict:
    reply = {"times": list(times), "load": load, "first": first, "peak": peak}
    return reply | {"device": "d", "versions": {}} | more


def test_percentiles_are_measured_times() -> None:
    times = [float(n) for n in range(1, 101)]
    assert [percentile(times, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.9) == 2.0


def test_a_row_is_over_all_blocks() -> None:
    blocks = {
        "vkconv": [block(2.0, 4.0, load=9, peak=30), block(1.0, 3.0, load=3, first=4, memory={})],
        "ncnn": [block(8.0, nmse=1e-9), block(4.0)],
        "torch": [{"reason": "torch is not installed"}],
        "onnxruntime": [block(1.0, nmse=0.0), block(1.0)],
    }
    rows = summarise(blocks, ["ncnn", "torch", "onnxruntime"])
    own = rows["vkconv"]
    assert (own["p50"], own["p90"], own["least"], own["runs"]) == (2.5, 4.0, 1.0, 4)
    assert (own["cold"], own["warm"], own["warm_first"], own["peak"]) == (9, 3, 4, 30)
    assert "memory" in own and "ratio" not in own
    # by the medians of all runs, and round by round
    assert rows["ncnn"]["ratio"] == 6.0 / 2.5
    assert rows["ncnn"]["ratios"] == [8.0 / 3.0, 4.0 / 2.0]
    assert rows["onnxruntime"]["ratio"] == 1 / 2.5
    assert rows["torch"] == {"reason": "torch is not installed"}


def test_warm_loads_are_of_all_later_processes() -> None:
    again = [block(load=2, first=6), block(load=5, first=5)]
    for blocks in (
        [block(1.0, load=9, again=again)],
        [block(1.0), block(1.0, load=4, again=again)],
    ):
        row = summarise({"vkconv": blocks}, [])["vkconv"]
        assert (row["warm"], row["warm_first"], row["runs"]) == (
            2,
            2 if blocks[1:] else 5,
            len(blocks),
        )
    assert summarise({"vkconv": [block(1.0, again=[])]}, [])["vkconv"]["warm"] is None


def test_without_vkconv_there_are_no_ratios() -> None:
    blocks = {"vkconv": [{"reason": "no driver"}], "ncnn": [block(1.0)]}
    rows = summarise(blocks, ["ncnn"])
    assert "ratio" not in rows["ncnn"] and rows["vkconv"] == {"reason": "no driver"}


def test_wrong_outputs_are_no_win() -> None:
    blocks = {
        "vkconv": [block(1.0, nmse=1e-9)],
        "ncnn": [block(9.0, nmse=1e-5)],
        "ncnn-defaults": [block(9.0, nmse=1e-5)],
        "torch": [block(9.0, nmse=math.inf)],
    }
    rows = summarise(blocks, ["ncnn", "ncnn-defaults", "torch"])
    found = Result("t", {}, {}, {}, rows)
    assert "NMSE 1.0e-05" in rows["ncnn"]["wrong"] and ratio_of(found, "ncnn") is None
    # which may use half precision
    assert "wrong" not in rows["ncnn-defaults"] and ratio_of(found, "ncnn-defaults") == 9.0
    assert "wrong" in rows["torch"] and ratio_of(found, "absent") is None


def test_nmse() -> None:
    x = np.array([[3.0, 4.0]], np.float32)
    assert nmse([x], [x]) == 0.0
    assert nmse([x + np.array([0.0, 0.5], np.float32)], [x]) == pytest.approx(0.25 / 25)
    assert nmse([x.reshape(2)], [x]) == 0.0  # ncnn has no batch dimension
    assert nmse([x], [x, x]) == nmse([x[:, :1]], [x]) == nmse([x * np.nan], [x]) == math.inf
    assert nmse([x, 2 * x], [x, x]) == 1.0


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([None, 3.0]) == pytest.approx(3.0)
    assert geometric_mean([None]) is geometric_mean([]) is None


def test_results_pass_through_json() -> None:
    rows = summarise({"vkconv": [block(1.0, profile={"ceilings": {"gflops": 1}})]}, [])
    found = Result("t", {"x": [1, 2]}, machine(), {"rounds": 1}, rows, name="net")
    again = Result.from_json(json.loads(json.dumps(found.as_json())))
    assert again == found and again.ceilings == {"gflops": 1}
    assert Result("t", {}, {}, {}, {"vkconv": {"reason": "r"}}).ceilings is None


@pytest.mark.parametrize(
    "table", [{}, [], None, {"format": 0}, {"format": 1}, {"format": 1, "x": 2}]
)
def test_foreign_json_is_refused(table) -> None:
    with pytest.raises(InvalidInputError, match="no results"):
        Result.from_json(table)
