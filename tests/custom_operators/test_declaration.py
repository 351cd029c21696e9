"""What may be registered, under which name and version, with which attributes."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.custom_operators.made_operators import DOMAIN, Doubling, made, raw_model
from tests.small_models import floats
from vkconv import InferenceSession
from vkconv.custom_operators import Operator, register_operator, unregister_operator
from vkconv.errors import InvalidInputError, UnsupportedModelError
from vkconv.ops.registry import REGISTRY


def test_without_lower_it_runs_on_the_host() -> None:
    register_operator("Doubling", domain=DOMAIN)(made(annotations={"factor": int}, factor=2))
    x = floats(1, 3, 5, 7)
    with pytest.warns(RuntimeWarning, match=r"node_under_test.*has no kernel"):
        session = InferenceSession(raw_model("Doubling", factor=3))
    with session:
        [placed] = [p for p in session.placement if p.node == "node_under_test"]
        assert placed.where == "host" and "no kernel" in placed.detail
        [y] = session.run(None, {"x": x})
    np.testing.assert_allclose(y, np.maximum(x, 0) * 3)
    with pytest.raises(UnsupportedModelError, match="strict=True"):
        InferenceSession(raw_model("Doubling", factor=3), strict=True)


def test_the_version_follows_the_model_s_import() -> None:
    seen: list[int] = []

    def reference(self: Any, x: Any) -> Any:
        seen.append(self.version)
        return x

    register_operator("Doubling", domain=DOMAIN, since=(1, 3))(made(reference=reference))
    for version in (2, 4):
        proto = raw_model("Doubling")
        proto.opset_import[1].version = version
        with InferenceSession(proto, device="reference") as session:
            session.run(None, {"x": floats(1, 3, 5, 7)})
    assert seen == [1, 3]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2),
        ("int", 2),
        (int | None, None),
        ("int | None", None),
        (float, 2.0),
        (str, "a"),
        (tuple[int, ...], (1,)),
        ("tuple[float, ...]", (1.0,)),
        (np.ndarray, None),
        ("np.ndarray", None),
    ],
    ids=str,
)
def test_annotations_of_attributes(annotation: Any, value: Any) -> None:
    cls = made(annotations={"extra": annotation, "factor": "int"}, extra=value, factor=2)
    register_operator("Doubling", domain=DOMAIN)(cls)
    with InferenceSession(raw_model("Doubling", factor=2), device="reference") as session:
        session.run(None, {"x": floats(1, 3, 5, 7)})


class NoInfer(Operator):
    def reference(self, x: Any) -> Any:
        return x


class NoReference(Operator):
    def infer(self, x: Any) -> Any:
        return x.known_type


@pytest.mark.parametrize(
    ("cls", "more", "message"),
    [
        (NoInfer, {}, "has no infer; every operator needs infer"),
        (NoReference, {}, "has no reference"),
        (dict, {}, "'dict' is no subclass of"),
        (Doubling(), {}, "is no subclass of"),
        (Doubling, {"op_type": "no name"}, "'no name' is no name of an operator"),
        (Doubling, {"domain": ""}, "domain '' is the standard's or this package's own"),
        (Doubling, {"domain": "ai.onnx"}, "domain 'ai.onnx' is the standard's"),
        (Doubling, {"domain": "vkconv"}, "domain 'vkconv' is the standard's or this"),
        (Doubling, {"since": ()}, "since=.. is no tuple of versions"),
        (Doubling, {"since": (0,)}, "is no tuple of versions"),
        (made(annotations={"a": list}, a=1), {}, "attribute 'a' is annotated <class 'list'>"),
        (made(annotations={"a": "int | list"}, a=1), {}, "ONNX attributes are one of int, float"),
        (made(annotations={"layout": int}, layout=1), {}, "'layout' has a name that Operator uses"),
        (made(annotations={"version": int}, version=1), {}, "'version' has a name that Operator"),
        (made(annotations={"a": int, "b": int}, a=1), {}, "non-default argument 'b' follows"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", str(value))[:40] if isinstance(value, str) else "",
)
def test_what_is_no_operator_is_refused(cls: Any, more: dict[str, Any], message: str) -> None:
    before = dict(REGISTRY)
    op_type, domain = more.pop("op_type", "Doubling"), more.pop("domain", DOMAIN)
    with pytest.raises(InvalidInputError, match=message):
        register_operator(op_type, domain=domain, **more)(cls)
    assert before == REGISTRY


def test_class_variables_are_no_attributes() -> None:
    members = {"device_dtypes": frozenset({"float32"})}
    cls = made(annotations={"device_dtypes": ClassVar[frozenset[str]]}, **members)
    register_operator("Doubling", domain=DOMAIN)(cls)
    assert REGISTRY[DOMAIN, "Doubling"].device_dtypes == frozenset({"float32"})


def test_a_name_is_taken_once_unless_replaced() -> None:
    register_operator("Doubling", domain=DOMAIN)(made())
    with pytest.raises(InvalidInputError, match=r"'com\.example\.Doubling' is registered already"):
        register_operator("Doubling", domain=DOMAIN)(made())
    other = made(reference=lambda self, x: x * 10)
    register_operator("Doubling", domain=DOMAIN, replace=True)(other)
    with InferenceSession(raw_model("Doubling"), device="reference") as session:
        [y] = session.run(None, {"x": np.ones((1, 3, 5, 7), np.float32)})
    assert (y == 10).all()
    unregister_operator("Doubling", domain=DOMAIN)
    with pytest.raises(InvalidInputError, match="is not a registered one"):
        unregister_operator("Doubling", domain=DOMAIN)
