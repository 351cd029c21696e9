"""Group-, Instance- and MeanVarianceNormalization: channel_statistics.py and its users in
vkconv/ops."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.harness import NODE, Case, check_device, check_reference, random
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps, DeviceKind
from vkconv.errors import InvalidModelError
from vkconv.onnx_reader import read_model
from vkconv.ops.activation_codes import Activation
from vkconv.ops.channel_statistics import Affine, Units, select_units
from vkconv.plan import ConstantStore
from vkconv.planning import plan_graph

CODES = Path(__file__).parents[2] / "shaders" / "include" / "affine_codes.glsl"


def _group(shape: tuple[int, ...], groups: int, opset: int = 21, **more: object) -> Case:
    count = groups if opset < 21 else shape[1]
    inputs = (random(*shape), random(count, seed=1), random(count, seed=2))
    return Case(
        "GroupNormalization", inputs, {"num_groups": groups}, opset, (1, 2), reduction=64
    ).but(**more)


GROUPS = [
    _group((2, 8, 5, 7), 2),
    _group((2, 6, 5, 7), 3),
    _group((2, 6, 5, 7), 2),
    _group((1, 15, 3, 3), 5),
    _group((1, 10, 3), 2),
    _group((3, 7, 2, 3, 5), 7),
    _group((1, 9, 2, 2), 1),
    _group((2, 6, 5, 7), 3, 18),
    _group((2, 12, 4), 4, 18, constant=()),
    _group((1, 4, 80, 80), 2),
    _group((2, 6), 2),
]
INSTANCES = [
    Case(
        "InstanceNormalization",
        (random(*shape), random(c, seed=1), random(c, seed=2)),
        {},
        o,
        (1, 2),
    )
    for shape, o in [
        ((2, 5, 7, 3), 22),
        ((1, 8, 9), 6),
        ((1, 3, 2, 3, 4), 22),
        ((2, 4, 65, 65), 22),
    ]
    for c in [shape[1]]
]
MVN = [
    Case("MeanVarianceNormalization", (random(*shape),), {} if axes is None else {"axes": axes}, 13)
    for shape, axes in [
        ((3, 5, 7, 3), None),
        ((2, 6, 4, 5), (2, 3)),
        ((2, 6, 4, 5), (1, 2, 3)),
        ((2, 6, 4, 5), (0, 1, 2, 3)),
        ((2, 5, 9), (0, -1)),
        ((2, 5, 9), (1,)),
        ((2, 3, 4, 5), (0, 2)),
        ((6, 7), (0,)),
    ]
]


def _fused(case: Case, kind: Activation, **more: object) -> Case:
    """The case with an activation behind it."""
    by_group = int(case.opset < 21)
    attributes = {**case.attributes, "activation": int(kind), "activation_alpha": 0.25, **more}
    if case.op_type == "GroupNormalization":
        attributes["affine_by_group"] = by_group
    return case.but(attributes=attributes, opset=1, domain="vkconv", name=kind.name)


#: groups of 1, 2 and 4 channels of a block, of whole blocks, and those that one dispatch can't do
UNITS = [
    _group((2, 6, 5, 7), 6),
    _group((2, 6, 5, 7), 3),
    _group((1, 12, 7, 5), 3),
    _group((2, 16, 9, 11), 2),
    _group((1, 8, 1, 1), 2),
    _group((1, 8, 1, 3), 1),
    _group((1, 24, 33, 17), 1),
    _group((2, 16, 5, 7), 4, 18),
    _group((2, 9, 5, 7), 3),
]
FUSED = [
    _fused(case, kind)
    for case in [*UNITS, GROUPS[1], INSTANCES[0]]
    for kind in (Activation.LEAKY_RELU, Activation.SIGMOID)
]
C4_CASES = [c.but(layout="c4") for c in GROUPS + INSTANCES + MVN[:5] if len(c.inputs[0].shape) > 2]
ALL = GROUPS + INSTANCES + MVN


@pytest.mark.parametrize("case", ALL + UNITS, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize(
    "case", ALL + C4_CASES + FUSED + [c.but(layout="c4") for c in UNITS + FUSED], ids=str
)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("layout", ["linear", "c4"])
def test_large_mean(layout: str) -> None:
    x = random(2, 6, 40, 40) + np.float32(1000) * np.arange(6, dtype=np.float32).reshape(6, 1, 1)
    ones = np.ones(6, np.float32)
    check_device(
        Case("InstanceNormalization", (x, ones, ones), {}, 22, (1, 2), reduction=1600).but(
            layout=layout
        )
    )


def test_groups_that_do_not_divide_the_channels() -> None:
    case = _group((1, 6, 3, 3), 4).but(inputs=(random(1, 6, 3, 3), random(6), random(6)))
    with pytest.raises(InvalidModelError, match="4 groups"):
        case.types()


def test_computed_scale() -> None:
    """Scale and bias that the model computes come linear, the map in C4."""
    case = _group((1, 6, 3, 3), 3, constant=(), layout="c4")
    with InferenceSession(case.model()) as session:
        assert session.run(None, case.feeds())[0].shape == (1, 6, 3, 3)
    check_device(case)


@pytest.mark.parametrize(
    ("shape", "groups", "units"),
    [
        ((1, 256, 40, 40), 32, Units(32, 2, 4, 8)),
        ((1, 12, 40, 40), 6, Units(3, 1, 2, 8)),
        ((2, 7, 40, 40), 7, Units(2, 1, 1, 8)),
        ((1, 12, 40, 40), 4, None),  # groups of 3 channels begin within blocks
        ((1, 512, 4, 4), 1, Units(1, 128, 4, 8)),  # alone, but small
        ((1, 512, 80, 80), 1, None),  # too much for one thread
        ((1, 8, 700, 700), 8, None),  # loops too long for llvmpipe
    ],
)
def test_units(shape: tuple[int, ...], groups: int, units: Units | None) -> None:
    assert select_units(DeviceCaps(kind="cpu"), shape, groups, merged=False) == units
    assert select_units(DeviceCaps(kind="cpu"), shape, groups, merged=True) is None


def test_units_of_a_gpu() -> None:
    """Lanes up to the map's size or the limit; few large groups stay three dispatches."""
    gpu = DeviceCaps(
        kind="discrete", max_workgroup_invocations=1024, max_workgroup_size=(1024,) * 3
    )
    assert select_units(gpu, (1, 256, 40, 40), 32, merged=False) == Units(32, 2, 4, 256)
    assert select_units(gpu, (1, 256, 5, 5), 32, merged=False) == Units(32, 2, 4, 32)
    assert select_units(gpu, (1, 512, 64, 64), 1, merged=False) is None
    small = DeviceCaps(kind="integrated")
    assert select_units(small, (1, 256, 40, 40), 32, merged=False) == Units(32, 2, 4, 128)


@pytest.mark.parametrize("kind", ["integrated", "cpu"])
def test_one_dispatch_or_three(kind: DeviceKind) -> None:
    """What a plan holds; padding lanes are masked where there are any."""
    for channels, groups, kernels in [
        (16, 2, ["normalize_groups"]),
        (6, 3, ["normalize_groups"]),
        (6, 2, ["channel_moments", "group_moments", "normalize_channels"]),
    ]:
        case = _fused(_group((1, channels, 5, 7), groups), Activation.SIGMOID).but(layout="c4")
        graph = read_model(case.model())
        planned = plan_graph(graph, DeviceCaps(kind=kind), ConstantStore(), lambda hosts: None)
        mine = [d for d in planned.plan.dispatches if d.node == NODE]
        assert [d.kernel for d in mine] == kernels
        if len(mine) == 1:
            assert mine[0].spec["MASKED"] == int(channels % 4 != 0)


def test_codes_agree_with_the_shader() -> None:
    found = re.findall(r"^#define AFFINE_(\w+) (\d+)", CODES.read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in found} == {a.name: a.value for a in Affine}
