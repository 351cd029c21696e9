"""Inputs that a model takes: found where it leaves sizes open, checked where they are given."""

from __future__ import annotations

import pytest

from tests.fusion.models import rep_block
from tests.small_models import floats, model, node
from tests.test_onnx_writer import conv_and_norm, scale_and_shift
from vkconv import InvalidInputError
from vkconv.fusion import fuse, sizes
from vkconv.ir import Graph, TensorType, Value


def test_a_size_that_the_model_takes_is_found() -> None:
    """A head made for a map of 224 x 224 pixels."""
    proto = model(
        [
            *conv_and_norm("", "x"),
            node("Add", "n positions", "y"),
        ],
        {"x": ["n", "c", "h", "w"]},
        {"y": None},
        {"w": floats(3, 5, 1, 1), **scale_and_shift(3), "positions": floats(3, 224, 224)},
    )
    fused = fuse(proto)
    assert fused.is_proven and fused.report.shapes == {"x": (1, 5, 224, 224)}


def test_given_shapes_are_used() -> None:
    fused = fuse(rep_block(), shapes={"images": (2, 4, 9, 7)})
    assert fused.proof is not None and fused.proof.shapes == {"images": (2, 4, 9, 7)}
    for shapes, words in (
        ({"pictures": (1, 4, 8, 8)}, "no input 'pictures'; its inputs: images"),
        ({"images": (1, 3, 8, 8)}, "'images' of shape 1x3x8x8 does not fit nx4xhxw"),
        ({"images": (1, 4, 8)}, "does not fit"),
        ({"images": (0, 4, 8, 8)}, "does not fit"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            fuse(rep_block(), shapes=shapes)


def test_sizes_of_the_same_name_are_the_same() -> None:
    types = {
        "a": ("float32", ("n", 3, "h", "h")),
        "b": ("int64", ("n", "length")),
        "c": ("bool", ("length",)),
        "d": ("float16", None),
    }
    inputs = [Value(name, TensorType(*type_)) for name, type_ in types.items()]
    graph = Graph("", inputs, [], [])
    tried = list(sizes.possible_shapes(graph, {"b": (5, 11)}))
    assert tried[0] == {"a": (5, 3, 64, 64), "b": (5, 11), "c": (11,), "d": (1, 3, 64, 64)}
    assert len(tried) == len(sizes.SIDES)
    feeds = sizes.random_feeds(inputs, tried[0], 1)
    assert {name: (a.dtype.name, a.shape) for name, a in feeds.items()} == {
        "a": ("float32", (5, 3, 64, 64)),
        "b": ("int64", (5, 11)),
        "c": ("bool", (11,)),
        "d": ("float16", (1, 3, 64, 64)),
    }
    assert feeds["b"].min() >= 0 and feeds["b"].max() < 8
    with pytest.raises(InvalidInputError, match="too large for a proof"):
        sizes.random_feeds(inputs[:1], {"a": (1 << 20, 1 << 20)}, 1)
