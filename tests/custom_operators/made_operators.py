"""Operators of a domain of their own, made for one test each, and a model of one of them."""

from __future__ import annotations

from typing import Any

from tests.small_models import model, node
from vkconv.custom_operators import Operator, TensorType

DOMAIN = "com.example"


def raw_model(op_type: str, shape: tuple[int, ...] = (1, 3, 5, 7), **attributes: Any) -> Any:
    """One node of the domain, between two Relus, so that no shape of the result is declared."""
    nodes = [
        node("Relu", "x", "a"),
        node(op_type, "a", "b", name="node_under_test", domain=DOMAIN, **attributes),
        node("Relu", "b", "y"),
    ]
    return model(nodes, {"x": shape}, {"y": None}, domains={DOMAIN: 1})


class Doubling(Operator):
    """y = factor x, by numpy only."""

    factor: int = 2

    def infer(self, x: Any) -> TensorType:
        return x.known_type

    def reference(self, x: Any) -> Any:
        return (x * self.factor).astype(x.dtype)


def made(name: str = "Doubling", base: type = Doubling, **members: Any) -> type:
    """A class of its own for every registration."""
    annotations = members.pop("annotations", {})
    return type(name, (base,), {**members, "__annotations__": annotations})


def fails(self: Any, *_: Any) -> Any:
    raise RuntimeError("out of ideas")
