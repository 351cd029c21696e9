"""All operators at once: versions as the standard has them, cases for each, no kernel unused."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx.defs
import pytest

import tests.ops
import vkconv.ops
from tests.harness import Case
from vkconv import passes, shaders
from vkconv.bounded import bounded
from vkconv.capabilities import DeviceCaps
from vkconv.onnx_reader import read_model
from vkconv.ops.registry import NEWEST_OPSET, REGISTRY
from vkconv.plan import ConstantStore, make_plan

STANDARD = sorted(op_type for domain, op_type in REGISTRY if domain == "")

_LANES: dict[str, Any] = {
    "max_workgroup_invocations": 1024,
    "max_workgroup_size": (1024, 1024, 1024),
    "max_texel_buffer_elements": 1 << 27,
    "max_storage_buffers": 8,
    "subgroup_size": 8,
}
#: as SwiftShader: a CPU driver that gets the kernels for GPUs
KEEPING_LOOPS = DeviceCaps(kind="cpu", unrolls_loops=False, **_LANES)
#: devices that between them make the planner choose every way of access, with shuffles and without
CAPS = (
    DeviceCaps(),
    DeviceCaps(kind="discrete", **_LANES | {"subgroup_size": 32}, subgroup_shuffle=True),
    *(
        replace(KEEPING_LOOPS, **access)
        for access in ({}, {"storage_texel": True}, {"uniform_texel": True})
    ),
    *(
        DeviceCaps(kind="cpu", subgroup_shuffle=shuffle, **_LANES, **access)
        for shuffle in (True, False)
        for access in ({}, {"storage_texel": True}, {"uniform_texel": True})
    ),
)

#: kernels of ``vkconv.ceilings``, which no operator uses
MEASURING = {"ceiling_arithmetic", "ceiling_copy"}
#: (kernel, variant) -> why no case dispatches it
NOT_DISPATCHED: dict[tuple[str, str], str] = {
    **{
        ("assemble", f"access={access},width={width}"): "several nodes make it: ops/test_assemble"
        for access, width in (
            ("ssbo", "one"),
            *product(("ssbo", "storage_texel", "uniform_texel"), ("spread", "four")),
        )
    },
    **{
        ("conv2d_shared", f"access={access},result={result},scale={scale}"): (
            "only tuning chooses it, or not on a CPU: ops/test_conv_kernels, ops/test_fused_conv"
        )
        for access, result, scale in (
            *product(("storage_texel", "uniform_texel"), ("c4", "linear"), ("off", "on")),
            *product(("ssbo",), ("c4", "linear"), ("on",)),
        )
    },
    **{
        (
            "to_c4",
            f"access={access},affine=on,pixels={pixels}",
        ): "tests/passes"
        for access, pixels in (
            ("ssbo", "one"),
            ("ssbo", "four"),
            ("storage_texel", "four"),
            ("uniform_texel", "four"),
        )
    },
}


def test_newest_opset_is_that_of_onnx() -> None:
    assert onnx.defs.onnx_opset_version() == NEWEST_OPSET


@pytest.mark.parametrize("op_type", STANDARD)
def test_versions_are_the_standard_s(op_type: str) -> None:
    known = {
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.name == op_type
    }
    assert known, f"{op_type} is in no opset of onnx"
    assert REGISTRY["", op_type].since == tuple(sorted(known))


@pytest.mark.parametrize("op_type", STANDARD)
def test_every_operator_has_cases(op_type: str) -> None:
    named = re.compile(rf"\b{op_type}\b")
    sources = Path(__file__).parent.parent.rglob("test_*.py")
    assert op_type in {c.op_type for c in _cases()} or any(
        named.search(_text(path)) for path in sources
    ), f"no test has a case of {op_type}"


@pytest.mark.parametrize("kernel", sorted(set(shaders.kernels()) - MEASURING))
def test_every_kernel_is_named_by_an_operator(kernel: str) -> None:
    sources = Path(vkconv.ops.__file__).parent.glob("*.py")
    assert any(f'"{kernel}"' in _text(path) for path in sources), f"no operator names {kernel}"


def test_every_variant_is_dispatched_by_some_case(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[str, str]] = set()
    for case, caps in product(_cases(), CAPS):
        seen |= _dispatched(case, caps)
    # convolutions run with results in C4 too (``both_results`` in conftest.py), and where maps have
    # more texels than the device allows
    convolutions = [case for case in _cases() if "Conv" in case.op_type]
    for devices, large, results in (
        (CAPS, False, "c4"),
        ([KEEPING_LOOPS], True, "c4"),
        ([KEEPING_LOOPS], True, "either"),
    ):
        with monkeypatch.context() as patched:
            if large:
                patched.setattr(DeviceCaps, "access", ("weights_texel", "ssbo"))
            if results == "c4":
                patched.setattr(passes, "store_linear", lambda _: None)
            for case, caps in product(convolutions, devices):
                seen |= _dispatched(case, caps)
    kernels = set(shaders.kernels()) - MEASURING
    existing = {(k, _key(v)) for k in kernels for v in shaders.variants(k)}
    unused = existing - seen
    missing = " ".join(f"{kernel}[{key}]" for kernel, key in sorted(unused - set(NOT_DISPATCHED)))
    assert not missing, f"no case dispatches {missing}"
    assert set(NOT_DISPATCHED) <= unused, "some of NOT_DISPATCHED are dispatched all the same"


def _dispatched(case: Case, caps: DeviceCaps) -> set[tuple[str, str]]:
    graph = read_model(case.model())
    with np.errstate(all="ignore"):
        passes.infer_and_fold(graph)
    if sized_by_data := passes.unresolved(graph):
        found = bounded(sized_by_data, caps)
        graph.nodes = [n for n in graph.nodes if n not in sized_by_data or n in found]
        graph.outputs = [v for n in found for v in n.outputs]
        graph.output_names = [v.name for v in graph.outputs]
    passes.finish(graph, caps)
    plan = make_plan(graph, caps, ConstantStore())
    return {(d.kernel, _key(d.variant)) for d in plan.dispatches}


@cache
def _cases() -> list[Case]:
    """The cases that the test modules hold, one of each kind."""
    found: dict[object, Case] = {}
    for module in pkgutil.iter_modules(tests.ops.__path__):
        if module.name.startswith("test_") and module.name != "test_registry":
            held = vars(importlib.import_module(f"tests.ops.{module.name}"))
            for case in _held(list(held.values())):
                found.setdefault(_kind(case), case)
    return list(found.values())


def _kind(case: Case) -> object:
    """What decides between variants: of the sizes, the innermost one and the number of elements."""
    inputs = tuple(
        None if x is None else (x.dtype.name, x.ndim, x.size.bit_length() // 2, x.shape[-1:])
        for x in case.inputs
    )
    given = str(dict(case.attributes))
    return (case.op_type, case.layout, inputs, case.outputs, case.constant, given)


def _held(value: Any, depth: int = 0) -> Iterator[Case]:
    if isinstance(value, Case):
        yield value
    elif isinstance(value, (list, tuple)) and depth < 4:
        for item in value:
            yield from _held(item, depth + 1)
    elif isinstance(value, dict) and depth < 4:
        yield from _held(list(value.values()), depth + 1)


def _key(variant: shaders.Variant) -> str:
    return ",".join(f"{axis}={value}" for axis, value in sorted(variant))


@cache
def _text(path: Path) -> str:
    return path.read_text()
