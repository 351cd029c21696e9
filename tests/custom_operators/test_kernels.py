"""Kernels that come with an operator: compiled modules, their names, and our own beside them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.custom_operators.made_operators import DOMAIN, made
from tests.harness import Case, check_device, random
from vkconv import shaders
from vkconv.custom_operators import Dispatch, register_operator, spread, unregister_operator
from vkconv.errors import BuildError, InvalidInputError
from vkconv.ops.registry import REGISTRY


def test_our_own_kernels_can_be_dispatched(compiled: ModuleType) -> None:
    def lower(self: Any, ctx: Any, inputs: Any, outputs: Any) -> list[Dispatch]:
        x, y = ctx.operand(inputs[0], "linear"), outputs[0].on_device
        grid = spread(ctx.caps, y.span)
        push = {"batches": 1, "count": y.span, "whole": y.span, "tail": 0, "alpha": 0.0}
        spec = {**grid.spec, "kind": 1}
        axes = {"width": "scalar", "access": "ssbo"}
        return [
            ctx.dispatch("unary", {"x": x, "y": y}, {**push, "beta": 0.0}, spec, grid.count, **axes)
        ]

    def reference(self: Any, x: Any) -> Any:
        return np.maximum(x, 0)

    register_operator("Rectified", domain=DOMAIN)(made(lower=lower, reference=reference))
    check_device(Case("Rectified", (random(3, 5, 7),), domain=DOMAIN))


def changed(module: ModuleType, **changes: Any) -> SimpleNamespace:
    names = ("KERNEL", "FORMAT", "AXES", "VARIANTS")
    return SimpleNamespace(**{**{n: getattr(module, n) for n in names}, "__name__": "m", **changes})


def with_entry(module: ModuleType, **changes: Any) -> dict[str, Any]:
    """The variants, the first one changed."""
    variants = dict(module.VARIANTS)
    key = next(iter(variants))
    variants[key] = {**variants[key], **changes}
    return variants


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.__dict__, "is no compiled shader; kernels are the modules"),
        (lambda m: changed(m, FORMAT=1), "'m' is no compiled shader of this version of vkconv"),
        (lambda m: changed(m, VARIANTS={}), "it has no variants"),
        (lambda m: changed(m, VARIANTS=with_entry(m, code=b"!!")), "'m' is damaged"),
        (lambda m: changed(m, VARIANTS=with_entry(m, code=b"eJwDAAAAAAE=")), "it holds no SPIR-V"),
        (lambda m: changed(m, VARIANTS=with_entry(m, interface={})), "'m' is damaged .KeyError"),
        (
            lambda m: changed(
                m,
                VARIANTS=with_entry(
                    m,
                    interface={
                        **next(iter(m.VARIANTS.values()))["interface"],
                        "capabilities": ["Shader", "Float64"],
                    },
                ),
            ),
            r"kernel 'com\.example\.corner_pool' needs Float64, which vkconv opens no device with",
        ),
    ],
)
def test_modules_that_are_no_kernels(
    compiled: ModuleType, change: Callable[[ModuleType], Any], message: str
) -> None:
    before = shaders.added_kernels()
    with pytest.raises(BuildError, match=message):
        register_operator("Other", domain=DOMAIN, kernels=[change(compiled)], replace=True)(made())
    assert (DOMAIN, "Other") not in REGISTRY
    assert shaders.added_kernels() == before


def test_kernels_of_one_name_clash_within_a_domain_only(compiled: ModuleType) -> None:
    twin = changed(compiled)
    with pytest.raises(
        InvalidInputError, match=r"kernel 'com\.example\.corner_pool' is registered"
    ):
        register_operator("Other", domain=DOMAIN, kernels=[twin])(made())
    register_operator("Other", domain="org.example", kernels=[twin])(made())
    register_operator("Third", domain=DOMAIN, kernels=[compiled])(made())
    unregister_operator("Third", domain=DOMAIN)
    assert shaders.load("com.example.corner_pool", (("access", "ssbo"),)).kernel.startswith("com.")
