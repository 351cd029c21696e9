"""Channel shuffles in every spelling become one copy a part; what only looks like one stays."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.export import export
from tests.passes.rewriting import check, operators, rewritten
from tests.plan.planning import planned
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.passes.recognise_channel_shuffle import recognise_channel_shuffle

PASS = recognise_channel_shuffle
MODULE = import_module("vkconv.passes.recognise_channel_shuffle")
X = {"x": [2, 12, 5, 3]}
CONSTANTS = {
    "split3": np.array([2, 3, 4, 5, 3]),
    "back": np.array([2, 12, 5, 3]),
    "pairs": np.array([2 * 6, 2, 15]),
    "halves": np.array([2, 2, 6, 5, 3]),
    "zero": np.array(0),
    "one": np.array(1),
    "first": np.array([0]),
    "third": np.array([4]),
    "end": np.array([12]),
    "axis": np.array([1]),
    "even": np.array([0, 2, 4]),
    "other": np.array([2, 12, 3, 5]),
    "wide": np.array([2, 3, 20, 3]),
}
SHUFFLE = [
    node("Reshape", "x split3", "a"),
    node("Transpose", "a", "t", perm=[0, 2, 1, 3, 4]),
    node("Reshape", "t back", "s"),
]
ORDER = tuple(i % 3 * 4 + i // 3 for i in range(12))


def run(nodes: list[Any], wanted: list[str], outputs: str = "y", inputs: Any = X) -> Any:
    return check(model(nodes, inputs, dict.fromkeys(outputs.split()), CONSTANTS), wanted, PASS)


def test_five_dimensions() -> None:
    graph = run([*SHUFFLE, node("Relu", "s", "y")], ["PermuteChannels+", "Relu"])
    shuffle = graph.nodes[0]
    assert shuffle.attributes == {"channels": ORDER}
    assert shuffle.name == "Reshape:s" and set(shuffle.fused) == {"Reshape:a", "Transpose:t"}


def test_the_result_of_the_model() -> None:
    nodes = [*SHUFFLE[:2], node("Reshape", "t back", "y")]
    graph = run(nodes, ["PermuteChannels+"])
    assert graph.outputs[0].name == "y"


def test_halves_by_split() -> None:
    nodes = [*SHUFFLE, node("Split", "s", "p q", axis=1), node("Relu", "p", "y"),
             node("Neg", "q", "z")]  # fmt: skip
    graph = run(nodes, ["PermuteChannels+", "PermuteChannels+", "Relu", "Neg"], "y z")
    assert [n.attributes["channels"] for n in graph.nodes[:2]] == [ORDER[:6], ORDER[6:]]
    assert len({n.name for n in graph.nodes}) == 4


def test_a_part_that_is_not_read() -> None:
    nodes = [*SHUFFLE, node("Slice", "s third end axis", "p"), node("Relu", "p", "y")]
    (shuffle, _) = run(nodes, ["PermuteChannels+", "Relu"]).nodes
    assert shuffle.attributes["channels"] == ORDER[4:]


def test_parts_and_the_whole() -> None:
    nodes = [*SHUFFLE, node("Split", "s", "p q", axis=1), node("Relu", "p", "y"),
             node("Neg", "s", "z")]  # fmt: skip
    run(nodes, ["PermuteChannels+", "Split", "Relu", "Neg"], "y z")


def test_pairs_along_a_new_axis() -> None:
    """As ShuffleNetV2 of the original authors: even and odd channels, taken by Gather."""
    nodes = [
        node("Reshape", "x pairs", "a"),
        node("Transpose", "a", "t", perm=[1, 0, 2]),
        node("Reshape", "t halves2", "h"),
        node("Gather", "h zero", "p", axis=0),
        node("Gather", "h one", "q", axis=0),
        node("Relu", "p", "y"),
        node("Neg", "q", "z"),
    ]
    constants = CONSTANTS | {"halves2": np.array([2, 2, 6, 5, 3])}
    proto = model(nodes, X, {"y": None, "z": None}, constants)
    graph = check(proto, ["PermuteChannels+", "PermuteChannels+", "Relu", "Neg"], PASS)
    assert [n.attributes["channels"] for n in graph.nodes[:2]] == [
        tuple(range(0, 12, 2)),
        tuple(range(1, 12, 2)),
    ]


@pytest.mark.parametrize("shape", [[1, 12, 7], [2, 12, 2, 3, 2]])
def test_other_ranks(shape: list[int]) -> None:
    constants = {"a": np.array([shape[0], 4, 3, -1]), "b": np.array(shape)}
    nodes = [node("Reshape", "x a", "r"), node("Transpose", "r", "t", perm=[0, 2, 1, 3]),
             node("Reshape", "t b", "s"), node("Relu", "s", "y")]  # fmt: skip
    check(model(nodes, {"x": shape}, {"y": None}, constants), ["PermuteChannels+", "Relu"], PASS)


@pytest.mark.parametrize(
    "nodes",
    [
        # pixels move
        [SHUFFLE[0], node("Transpose", "a", "t", perm=[0, 2, 1, 4, 3]), SHUFFLE[2]],
        # batches move
        [SHUFFLE[0], node("Transpose", "a", "t", perm=[1, 0, 2, 3, 4]), SHUFFLE[2]],
        # another map comes out
        [SHUFFLE[0], SHUFFLE[1], node("Reshape", "t other", "s")],
        [SHUFFLE[0], SHUFFLE[1], node("Reshape", "t wide", "s")],
    ],
)
def test_what_is_no_shuffle_stays(nodes: list[Any]) -> None:
    wanted = ["Reshape", "Transpose", "Reshape", "Relu"]
    run([*nodes, node("Relu", "s", "y")], wanted)


def test_what_is_read_in_between_stays() -> None:
    nodes = [*SHUFFLE, node("Relu", "s", "y"), node("Neg", "t", "z")]
    run(nodes, ["Reshape", "Transpose", "Reshape", "Relu", "Neg"], "y z")
    nodes = [*SHUFFLE[:2], node("Reshape", "t back", "y"), node("Identity", "t", "z")]
    graph = rewritten(model(nodes, X, {"y": None, "t": None}, CONSTANTS), PASS)
    assert "PermuteChannels+" not in operators(graph)


def test_open_shapes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model([*SHUFFLE, node("Relu", "s", "y")], {"x": ["n", 12, 5, 3]}, {"y": None},
                  CONSTANTS)  # fmt: skip
    assert "PermuteChannels+" not in operators(rewritten(proto, PASS))
    # and what would take long to follow
    monkeypatch.setattr(MODULE, "_MOST_ELEMENTS", 100)
    run([*SHUFFLE, node("Relu", "s", "y")], ["Reshape", "Transpose", "Reshape", "Relu"])


def test_attention_is_told_apart_without_following_its_elements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MODULE, "_moved", lambda *_: pytest.fail("followed"))
    nodes = [node("Reshape", "x heads", "a"), node("Transpose", "a", "t", perm=[0, 2, 1, 3]),
             node("Relu", "t", "y")]  # fmt: skip
    proto = model(nodes, {"x": [2, 7, 24]}, {"y": None}, {"heads": np.array([2, 7, 4, 6])})
    assert "Transpose" in operators(rewritten(proto, PASS))


class Blocks(nn.Module):
    """Two blocks of ShuffleNetV2 behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.work = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8))
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for work in self.work:
            kept, part = x.chunk(2, 1)
            x = torch.cat([kept, work(part)], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return torch.relu(x)


@pytest.mark.parametrize(("exporter", "opset"), [("legacy", 11), ("dynamo", 18)])
def test_blocks_as_exported(exporter: Any, opset: int, tmp_path: Any) -> None:
    torch.manual_seed(0)
    path = export(Blocks(), (1, 3, 10, 6), tmp_path / "m.onnx", exporter=exporter, opset=opset)
    import onnx

    proto = onnx.load(path)
    kernels = [d.kernel for d in planned(proto).dispatches]
    assert kernels.count("permute_channels") == 3  # two halves, then the whole
    # the half of the stem that the first block keeps is all that is copied
    assert kernels.count("strided_copy") == 1 and "channel_copy" not in kernels
    assert kernels.count("to_c4") == kernels.count("to_linear") == 1
    x = {"images": floats(1, 3, 10, 6)}
    with InferenceSession(proto) as session:
        session.run(None, {"images": x["images"] + 1})
        assert_same(session.run(None, x), expected(proto, x))
        assert {p.where for p in session.placement} <= {"gpu", "fused", "folded"}
