#!/usr/bin/env python3
"""Single operators on vkconv beside onnxruntime's CPU provider, in one run.

python scripts/bench_operators.py [--markdown FILE] [--seconds 2] [--layers 8]

Each case is a chain of equal nodes with a LeakyRelu behind each (or no two would be left apart by
the passes), so that upload, download and layout conversion count little; a node that changes the
shape stands alone. Times are milliseconds a node: the median of runs that alternate between the two
runtimes, and the least processor time of vkconv's, which other programs on the machine disturb
less; GFLOP/s are of both.
onnxruntime's threads do not spin between its runs, or they would take the processor from a CPU
driver.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import vkconv
from vkconv.benchmark.figures import machine
from vkconv.benchmark.markdown import table

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """One operator: the shape of its first input, constants behind it, what one node multiplies and
    adds."""

    name: str
    op_type: str
    shape: tuple[int, ...]
    constants: tuple[Array, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    flops: int = 0
    #: the node keeps the shape, so that any number of them make a chain
    chains: bool = True
    opset: int = 20

    def model(self, layers: int) -> bytes:
        """``layers`` nodes in a chain, each with the same constants."""
        names = [f"constant_{i}" for i in range(len(self.constants))]
        nodes = []
        for k in range(layers):
            nodes += [
                helper.make_node(self.op_type, [f"x{k}", *names], [f"y{k}"], **self.attributes),
                helper.make_node("LeakyRelu", [f"y{k}"], [f"x{k + 1}"], alpha=0.1),
            ]
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info("x0", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(a, n) for a, n in zip(self.constants, names, strict=True)],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def weights(*shape: int) -> Array:
    """Random, scaled so that a chain of layers neither grows nor fades."""
    fan_in = int(np.prod(shape[1:]))
    return (RANDOM.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def noise(*shape: int, scale: float) -> Array:
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def cases() -> list[Case]:
    same = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    square = 2 * 64 * 64 * 9 * 80 * 80
    kernel, grid = weights(64, 64, 3, 3), noise(1, 80, 80, 2, scale=0.5)
    offsets = noise(1, 18, 80, 80, scale=1.5)
    mask = RANDOM.random((1, 9, 80, 80), np.float32)
    bias = np.zeros(64, np.float32)
    depthwise = {"pads": [1, 1, 1, 1], "group": 128}
    return [
        Case("Conv 3x3, 64 @ 80x80", "Conv", (1, 64, 80, 80), (kernel,), same, square),
        Case(
            "DeformConv 3x3 with mask, 64 @ 80x80",
            "DeformConv",
            (1, 64, 80, 80),
            (kernel, offsets, bias, mask),
            same,
            square,
        ),
        Case(
            "Conv 1x1, 128 @ 40x40",
            "Conv",
            (1, 128, 40, 40),
            (weights(128, 128, 1, 1),),
            {},
            2 * 128 * 128 * 1600,
        ),
        Case(
            "depthwise 3x3, 128 @ 80x80",
            "Conv",
            (1, 128, 80, 80),
            (weights(128, 1, 3, 3),),
            depthwise,
            2 * 128 * 9 * 6400,
        ),
        Case(
            "Conv 3x3, 256 @ 10x10",
            "Conv",
            (1, 256, 10, 10),
            (weights(256, 256, 3, 3),),
            same,
            2 * 256 * 256 * 9 * 100,
        ),
        Case(
            "stem 3x3, stride 2, 3 to 32 @ 320x320",
            "Conv",
            (1, 3, 320, 320),
            (weights(32, 3, 3, 3),),
            {**same, "strides": [2, 2]},
            2 * 32 * 3 * 9 * 160 * 160,
            chains=False,
        ),
        Case(
            "Conv 3x3, stride 2, 64 to 128 @ 160x160",
            "Conv",
            (1, 64, 160, 160),
            (weights(128, 64, 3, 3),),
            {**same, "strides": [2, 2]},
            2 * 128 * 64 * 9 * 80 * 80,
            chains=False,
        ),
        Case(
            "Conv 1x1, stride 2, 512 to 1024 @ 28x28",
            "Conv",
            (1, 512, 28, 28),
            (weights(1024, 512, 1, 1),),
            {"strides": [2, 2]},
            2 * 1024 * 512 * 14 * 14,
            chains=False,
        ),
        *(
            Case(
                f"ConvTranspose {edge}x{edge}, stride 2, {channels} to {outputs} @ {size}x{size}",
                "ConvTranspose",
                (1, channels, size, size),
                (weights(channels, outputs, edge, edge),),
                {"strides": [2, 2], "pads": [pad] * 4, "output_padding": [edge % 2] * 2},
                2 * channels * outputs * edge * edge * size * size,
                chains=False,
            )
            for edge, channels, outputs, size, pad in (
                (2, 256, 128, 32, 0),
                (3, 64, 64, 40, 1),
                (4, 64, 32, 128, 1),
            )
        ),
        *(
            Case(
                f"GridSample {mode}, 64 @ 80x80",
                "GridSample",
                (1, 64, 80, 80),
                (grid,),
                {"mode": mode},
            )
            for mode in ("linear", "nearest", "cubic")
        ),
        # a decoder layer of RT-DETR: 300 queries of 256 channels, 8 heads
        Case(
            "MatMul 2100x256 by 256x256",
            "MatMul",
            (1, 2100, 256),
            (weights(256, 256),),
            {},
            2 * 2100 * 256 * 256,
        ),
        Case(
            "Attention, 8 heads of 300x32",
            "Attention",
            (1, 8, 300, 32),
            (noise(1, 8, 300, 32, scale=1.0), noise(1, 8, 300, 32, scale=1.0)),
            {},
            4 * 8 * 300 * 300 * 32,
            opset=23,
        ),
        Case("Softmax, 2400 rows of 300", "Softmax", (1, 8, 300, 300)),
        Case(
            "LayerNormalization, 2100 rows of 256",
            "LayerNormalization",
            (1, 2100, 256),
            (np.ones(256, np.float32), np.zeros(256, np.float32)),
        ),
        Case(
            "ReduceMax, 2100 rows of 80",
            "ReduceMax",
            (1, 2100, 80),
            (np.array([2]),),
            chains=False,
        ),
    ]


def measure(case: Case, layers: int, seconds: float) -> list[str]:
    layers = layers if case.chains else 1
    model = case.model(layers)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    other = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x0": RANDOM.standard_normal(case.shape).astype(np.float32)}
    with vkconv.InferenceSession(model, strict=True) as session:
        ours, theirs = session.run(None, feeds)[0], other.run(None, feeds)[0]
        wide = theirs.astype(np.float64)
        error = float(((ours - wide) ** 2).sum() / (wide**2).sum())
        times: tuple[list[float], list[float]] = ([], [])
        spent: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times[0]) < 5:
            before = time.process_time()
            times[0].append(timed(session.run, feeds) / layers * 1e3)
            spent.append((time.process_time() - before) / layers * 1e3)
            times[1].append(timed(other.run, feeds) / layers * 1e3)
    vk, ort = (statistics.median(t) for t in times)
    cores = os.cpu_count() or 1
    speed = [f"{case.flops / t / 1e6:.1f}" if case.flops else "" for t in (vk, min(spent) / cores)]
    return [
        case.name,
        f"{vk:.2f}",
        f"{min(spent):.2f}",
        *speed,
        f"{ort:.2f}",
        f"{vk / ort:.2f}",
        f"{error:.1e}",
    ]


def _deformable(rows: list[list[str]]) -> list[str]:
    """The sentence that compares it with the plain convolution, when both were measured."""
    times = {row[0]: float(row[1]) for row in rows}
    conv, deform = "Conv 3x3, 64 @ 80x80", "DeformConv 3x3 with mask, 64 @ 80x80"
    if not {conv, deform} <= set(times):
        return []
    ratio = times[deform] / times[conv]
    return ["", f"The deformable convolution takes {ratio:.2f} times what the plain one takes."]


def timed(run: Callable[..., Any], feeds: Mapping[str, Array]) -> float:
    began = time.perf_counter()
    run(None, feeds)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    parser.add_argument("--layers", type=int, default=8, help="nodes in a chain")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has it")
    given = parser.parse_args()
    [device] = vkconv.devices()[:1]
    heading = [
        "operator",
        "vkconv ms",
        "CPU ms",
        "GFLOP/s",
        "GFLOP/s by CPU time",
        "onnxruntime ms",
        "ratio",
        "NMSE",
    ]
    chosen = [case for case in cases() if given.only in case.name]
    rows = [measure(case, given.layers, given.seconds) for case in chosen]
    text = "\n".join(
        [
            f"# Single operators, {time.strftime('%Y-%m-%d')}",
            "",
            f"vkconv {vkconv.__version__} on {device.name}, {device.driver}; onnxruntime "
            f"{onnxruntime.__version__}, CPU; {machine()['machine']}.",
            f"Milliseconds a node, in chains of {given.layers}; "
            "`python scripts/bench_operators.py`.",
            "",
            *table(heading, rows),
            *_deformable(rows),
        ]
    )
    print(text)
    if given.markdown is not None:
        given.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
