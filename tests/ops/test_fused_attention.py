"""The fused attention that passes make: vkconv/ops/fused_attention.py."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.ir import Array

SHAPES = [
    ((2, 3, 5, 8), 7, 4, (2, 1, 5, 7)),
    ((2, 3, 5, 8), 7, 9, (5, 7)),
    ((1, 1, 1, 3), 1, 1, None),
    ((2, 3, 17, 15), 33, 16, (2, 3, 17, 1)),
    ((2, 3, 16, 8), 16, 8, (1,)),
    ((6, 5, 8), 7, 4, (6, 5, 7)),
    ((6, 5, 8), 7, 4, (1, 7)),
    ((6, 5, 8), 7, 4, (6, 1, 7)),
    ((5, 8), 70, 4, (5, 70)),
    ((5, 8), 7, 4, None),
]


def spelt_out(
    q: tuple[int, ...], keys: int, values: int, mask: tuple[int, ...] | None, rows: bool
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model and random inputs; ``rows``: each key is a row."""
    k = (*q[:-2], keys, q[-1]) if rows else (*q[:-2], q[-1], keys)
    shapes = {"q": q, "k": k, "v": (*q[:-2], keys, values)}
    order = [*range(len(q) - 2), len(q) - 1, len(q) - 2]
    nodes = [node("Transpose", "k", "t", perm=order)] if rows else []
    nodes += [node("MatMul", "q t" if rows else "q k", "a"), node("Mul", "a scale", "b")]
    if mask is not None:
        shapes["m"] = mask
        nodes.append(node("Add", "b m", "c"))
    nodes += [
        node("Softmax", "c" if mask is not None else "b", "p", axis=-1),
        node("MatMul", "p v", "y"),
    ]
    proto = model(nodes, shapes, {"y": None}, {"scale": np.array(0.3, np.float32)})
    feeds: dict[str, Array] = {
        name: floats(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())
    }
    return proto, feeds


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("q,keys,values,mask", SHAPES)
def test_device(
    q: tuple[int, ...], keys: int, values: int, mask: tuple[int, ...] | None, rows: bool
) -> None:
    proto, feeds = spelt_out(q, keys, values, mask, rows)
    if mask == (5, 7):
        feeds["m"][1, 2:5] = -np.inf
        feeds["m"][3] = -np.inf
    with InferenceSession(proto) as session:
        assert {p.node: p.where for p in session.placement}["MatMul:y"] == "gpu"
        details = {p.node: p.detail for p in session.placement}
        assert "attention_softmax" in details["MatMul:y"], details
        actual, wanted = session.run(None, feeds), expected(proto, feeds)
    # a row that nothing takes part in is NaN, as the exported operators have it
    assert np.array_equal(np.isnan(actual[0]), np.isnan(wanted[0]))
    assert_same([np.nan_to_num(actual[0])], [np.nan_to_num(wanted[0])])


@pytest.mark.parametrize("profile", ["", "desktop"])
@pytest.mark.parametrize("disabled", ["", "subgroup", "texel"])
@pytest.mark.parametrize("keys", [20, 63, 300, 1283, 1284, 9001])
def test_rows_of_scores_in_every_form(
    keys: int, disabled: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole vec4s or not, kept in registers or read three times; with a mask and without."""
    monkeypatch.setenv("VKCONV_DISABLE", ",".join(filter(None, ("plan_cache", disabled))))
    monkeypatch.setenv("VKCONV_PROFILE", profile)
    for mask in (None, (5, keys)):
        proto, feeds = spelt_out((3, 5, 8), keys, 6, mask, False)
        with InferenceSession(proto) as session:
            assert "attention_softmax" in {p.node: p.detail for p in session.placement}["MatMul:y"]
            assert_same(session.run(None, feeds), expected(proto, feeds))
