"""Random graphs of linear branches, and what comes between them, fused and proven."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from tests.test_onnx_writer import NORM, scale_and_shift
from vkconv.fusion import fuse
from vkconv.ir import Array

CHANNELS = 4


class RandomGraph:
    """Nodes over maps of one shape; each reads one of the last few values, so that some are read
    twice, and some never."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.values = ["x"]
        for _ in range(self.random.randint(4, 24)):
            step = self.random.choice(
                (self.conv, self.conv, self.norm, self.norm, self.add, self.scale, self.other)
            )
            self.values.append(step(self.random.choice(self.values[-5:])))

    def proto(self) -> onnx.ModelProto:
        map_ = [None] * 4
        outputs = {v: map_ for v in self.values[1:-1] if self.random.random() < 0.08}
        sizes = self.random.choice(([1, CHANNELS, 9, 7], ["n", CHANNELS, "h", "w"]))
        outputs[self.values[-1]] = map_
        return model(self.nodes, {"x": sizes}, outputs, self.constants, opset=15)

    def new(self, op_type: str, inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(op_type, inputs, name, **attributes))
        return name

    def constant(self, array: Array) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = array
        return name

    def conv(self, x: str) -> str:
        kernel, dilation = self.random.choice((1, 3)), self.random.choice((1, 1, 2))
        groups, seed = self.random.choice((1, 1, 2, 4)), len(self.nodes)
        weights = floats(CHANNELS, CHANNELS // groups, kernel, kernel, seed=seed, scale=0.5)
        bias = self.constant(floats(CHANNELS, seed=seed)) if self.random.random() < 0.4 else ""
        pads = [dilation * (kernel // 2)] * 4
        inputs = f"{x} {self.constant(weights)} {bias}"
        return self.new("Conv", inputs, pads=pads, dilations=[dilation] * 2, group=groups)

    def norm(self, x: str) -> str:
        numbers = scale_and_shift(CHANNELS, len(self.nodes)).values()
        return self.new(NORM, " ".join([x, *map(self.constant, numbers)]))

    def add(self, x: str) -> str:
        other = self.random.choice(self.values[-4:])
        return self.new(self.random.choice(("Add", "Add", "Sub")), f"{x} {other}")

    def scale(self, x: str) -> str:
        factor = self.constant(floats(1, CHANNELS, 1, 1, seed=len(self.nodes)))
        return self.new(self.random.choice(("Mul", "Add")), f"{factor} {x}")

    def other(self, x: str) -> str:
        kind = self.random.choice(("Identity", "Relu", "Reshape", "AveragePool", "Concat"))
        if kind == "AveragePool":
            counted = self.random.choice((0, 1))
            return self.new(kind, x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=counted)
        if kind == "Reshape":
            return self.new(kind, f"{x} {self.new('Shape', x)}")
        if kind == "Concat":
            both = self.new(kind, f"{x} {self.random.choice(self.values[-3:])}", axis=1)
            bounds = [self.constant(np.array([i])) for i in (0, CHANNELS, 1)]
            return self.new("Slice", " ".join([both, *bounds]))
        return self.new(kind, x)


@pytest.mark.parametrize("start", range(0, 40, 20))
def test_random_graphs(start: int) -> None:
    fusions = 0
    for seed in range(start, start + 20):
        proto = RandomGraph(seed).proto()
        fused = fuse(proto)
        assert fused.is_proven or "proves nothing" in fused.proof.verdict, (seed, fused.proof)
        made = fused.to_proto()
        onnx.checker.check_model(made, full_check=True)
        names = {item.name for item in proto.graph.node}
        assert all(item.name in names for item in made.graph.node), seed
        assert [o.name for o in made.graph.output] == [o.name for o in proto.graph.output]
        assert not fuse(made, prove=False).report.fusions, f"{seed}: the second time"
        fusions += len(fused.report.fusions)
    assert fusions >= 8
