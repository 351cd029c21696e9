"""Faults of an operator's methods are answered with its name and the node's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vkconv
from tests.custom_operators.made_operators import DOMAIN, fails, made, raw_model
from tests.small_models import floats
from vkconv import InferenceSession
from vkconv.custom_operators import TensorType, register_operator
from vkconv.errors import BuildError, InvalidModelError, UnsupportedModelError


def lowering_to(kernel: str, buffers: Any = None, push: Any = None) -> Callable[..., Any]:
    def lower(self: Any, ctx: Any, inputs: Any, outputs: Any) -> Any:
        views = {"x": ctx.operand(inputs[0], "linear"), "y": outputs[0].on_device}
        return [ctx.dispatch(kernel, buffers or views, push or {}, {}, (1, 1, 1))]

    return lower


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        (
            {"lower": lowering_to("com.example.absent")},
            BuildError,
            r"not registered .registered: com\.example\.corner_pool.; give its compiled module",
        ),
        (
            {"lower": lowering_to("corner_pool")},
            BuildError,
            r"was 'com\.example\.corner_pool' meant",
        ),
        (
            {"lower": lowering_to("com.example.corner_pool")},
            BuildError,
            r"push constant of shader 'com\.example\.corner_pool' for node 'node_under_test': b",
        ),
        (
            {"lower": lowering_to("com.example.corner_pool", {"z": None})},
            BuildError,
            "buffer of shader .*: x is missing, y is missing, z is not declared",
        ),
        (
            {"lower": fails},
            BuildError,
            "'node_under_test'.*lower of operator .* out of ideas",
        ),
        (
            {"lower": lambda *_: None},
            BuildError,
            r"'node_under_test': lower of operator 'com\.example\.Bad' failed: it returned None",
        ),
        (
            {"infer": fails},
            InvalidModelError,
            r"'node_under_test'.*infer of operator 'com\.example\.Bad' failed: RuntimeError: out",
        ),
        (
            {"infer": lambda self, x: x.dims},
            InvalidModelError,
            "'node_under_test'.*it returned 1, not a TensorType",
        ),
        (
            {"infer": lambda self, x: TensorType("float32", ("n", 3))},
            InvalidModelError,
            r"it returned float32\[n,3\]",
        ),
        (
            {"infer": lambda self, x: TensorType("float99", (3,))},
            InvalidModelError,
            "float99",
        ),
        (
            {"infer": lambda self: None},
            UnsupportedModelError,
            "1 inputs, which Bad does not take",
        ),
        (
            {"layout": fails, "lower": fails},
            BuildError,
            "'node_under_test': layout of operator",
        ),
        (
            {"layout": lambda *_: "rows", "lower": fails},
            BuildError,
            "it returned 'rows', not",
        ),
        (
            {"unsupported": lambda *_: False, "lower": fails},
            BuildError,
            "unsupported of operator",
        ),
        ({"view": fails}, BuildError, "'node_under_test': view of operator"),
        (
            {"__post_init__": fails},
            UnsupportedModelError,
            "its attributes do not fit: out of ideas",
        ),
    ],
)
def test_faults_of_an_operator_name_it_and_the_node(
    example: Path, members: dict[str, Any], error: type[Exception], message: str
) -> None:
    register_operator("Bad", domain=DOMAIN)(made("Bad", **members))
    with pytest.raises(error, match=message):
        InferenceSession(raw_model("Bad"))


def test_c4_holds_feature_maps_only(example: Path) -> None:
    members = {"layout": lambda *_: "c4", "lower": fails}
    register_operator("Bad", domain=DOMAIN)(made("Bad", **members))
    with pytest.raises(BuildError, match=r"returned 'c4', which holds floats of rank 3 to 5, for"):
        InferenceSession(raw_model("Bad", (4, 5)))


@pytest.mark.parametrize("reference", [fails, lambda self, x: x[:1, :1]], ids=["raises", "shape"])
def test_faults_on_the_host_name_the_node(reference: Any) -> None:
    register_operator("Bad", domain=DOMAIN)(made("Bad", reference=reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        session = InferenceSession(raw_model("Bad"))
    with session, pytest.raises(vkconv.VkconvError, match="node_under_test"):
        session.run(None, {"x": floats(1, 3, 5, 7)})
