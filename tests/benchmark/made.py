"""Results made by hand, for the reports: one win, one loss, one wrong, one absent."""

from __future__ import annotations

from typing import Any

from vkconv.benchmark.figures import Result


def row(p50: float, **more: Any) -> dict[str, Any]:
    figures = {"p50": p50, "p90": 1.2 * p50, "p99": 1.5 * p50, "least": 0.9 * p50, "runs": 9}
    loads = {"cold": 2.0, "warm": 0.5, "cold_first": 2.5, "warm_first": 0.75}
    about = {"peak": 100_000_000, "nmse": 1e-12, "device": "a <device>", "versions": {"lib": "1"}}
    return figures | loads | about | more


def node(name: str, seconds: float, flops: int = 10**9, bytes_: int = 10**7) -> dict[str, Any]:
    return {
        "node": name, "kernel": "conv2d", "seconds": seconds, "share": 0.25, "flops": flops,
        "bytes": bytes_, "detail": "TILE=4 | 5x2x1", "track": "gpu", "of_ceiling": 0.5,
    }  # fmt: skip


def result(title: str = "Net <1>", **rows: Any) -> Result:
    """vkconv takes 10 ms, ncnn 50, onnxruntime 5; torch is wrong, OpenCV not installed."""
    profile = {
        "wall": 0.012, "gpu": 0.009, "host": 0.001, "flops": 3 * 10**9,
        "ceilings": {"gflops": 200.0, "gbytes": 20.0},
        "rows": [node("/a/<b>/Conv", 0.004), node("pool", 0.003, flops=0)],
        "rest": {"nodes": 7, "seconds": 0.002},
    }  # fmt: skip
    memory = {"weights": 10**7, "arena": 2 * 10**6, "arena_lower_bound": 10**6,
              "staging": 0, "host_weights": 0}  # fmt: skip
    made = {
        "vkconv": row(0.010, profile=profile, memory=memory),
        "torch": row(0.030, nmse=0.5, ratio=3.0, ratios=[3.0], wrong="its outputs differ"),
        "onnxruntime": row(0.005, ratio=0.5, ratios=[0.4, 0.8], nmse=0.0),
        "ncnn": row(0.050, ratio=5.0, ratios=[4.0, 6.0], peak=200_000_000),
        "opencv": {"reason": "cv2 is not installed"},
        **rows,
    }
    facts = {"machine": "a processor", "system": "Linux"}
    return Result(title, {"images": [1, 3, 8, 8]}, facts, {"rounds": 2}, made, "net", "2026-01-31")
