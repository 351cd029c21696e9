"""Resize and Upsample in every mode against onnxruntime, and the kernels against reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.reference
import pytest
import torch

from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv.ops.resize_tables import COORDINATE_MODES

EMPTY = np.zeros(0, np.float32)


def _resize(
    shape: tuple[int, ...],
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    roi: list[float] | None = None,
    opset: int = 19,
    dtype: str = "float32",
    layout: Any = "linear",
    **attributes: Any,
) -> Case:
    inputs = (
        random(*shape, dtype=dtype),
        EMPTY if roi is None else np.array(roi, np.float32),
        EMPTY if scales is None else np.array(scales, np.float32),
        *(() if sizes is None else (np.array(sizes, np.int64),)),
    )
    if sizes is not None and opset >= 13:
        inputs = (inputs[0], inputs[1], None, inputs[3])
    constant = tuple(i for i in range(1, len(inputs)) if inputs[i] is not None)
    return Case("Resize", inputs, attributes, opset, constant, layout=layout)


def _modes() -> list[Case]:
    cases = []
    for coordinates in COORDINATE_MODES:
        crop = coordinates == "tf_crop_and_resize"
        roi = [0, 0, 0.1, -0.1, 1, 1, 0.8, 1.2] if crop else None
        shared: dict[str, Any] = {"coordinate_transformation_mode": coordinates, "roi": roi}
        if crop:
            shared["extrapolation_value"] = 10.0
        for mode in ("nearest", "linear", "cubic"):
            for scales in ([1, 1, 2, 2], [1, 1, 0.6, 0.7], [1, 1, 3.3, 0.4], [1, 1, 1, 1.7]):
                if crop and scales[2] == 1:
                    continue  # onnxruntime ignores the roi where the scale is 1
                if coordinates == "half_pixel_symmetric" and scales[2] == 0.6:
                    scales = [1, 1, 0.62, 0.7]  # 7 * 0.6 gives a tie that rounding noise decides
                cases.append(_resize((1, 5, 7, 10), scales, mode=mode, **shared))
            cases.append(_resize((1, 3, 5, 4), sizes=[1, 3, 9, 1], mode=mode, **shared))
    return cases


CASES = [
    *_modes(),
    *(
        _resize(
            (1, 2, 6, 5),
            scales,
            mode="nearest",
            nearest_mode=nearest,
            coordinate_transformation_mode=coordinates,
        )
        for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for coordinates in ("half_pixel", "asymmetric", "align_corners")
        for scales in ([1, 1, 2, 3], [1, 1, 0.5, 0.8], [1, 1, 1.5, 2.5])
    ),
    *(
        _resize((2, 3, 7, 5), scales, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
        for scales in ([1, 1, 2, 2], [1, 1, 0.6, 0.7])
    ),
    # other ranks and axes
    _resize((1, 3, 7), [1, 1, 2.5], mode="linear"),
    _resize((2, 3, 7), [1, 1, 2]),
    _resize((1, 2, 3, 4, 5), [1, 1, 2, 2, 2]),
    _resize((1, 2, 3, 4, 5), [1, 1, 2, 1.5, 0.7], mode="linear"),
    _resize((5, 7), [2, 0.7], mode="linear"),
    _resize((5, 7), [2.3, 0.7], mode="cubic"),
    _resize((1, 5, 7, 3), [1, 2, 1.5, 1], mode="linear"),
    _resize((9,), [0.7]),
    _resize((1, 3, 6, 8), [1, 1, 1, 1], mode="linear"),
    _resize((1, 3, 6, 8), [2, 0.5], mode="linear", axes=[3, 2]),
    _resize((1, 3, 6, 8), sizes=[9, 4], axes=[-2, -1]),
    *(
        _resize((1, 3, 6, 8), sizes=[9, 9], axes=[2, 3], keep_aspect_ratio_policy=policy, mode=mode)
        for policy in ("not_larger", "not_smaller")
        for mode in ("nearest", "linear")
    ),
    # versions
    *(_resize((1, 2, 4, 6), [1, 1, 2, 2], opset=opset) for opset in (11, 13, 18)),
    _resize((1, 2, 4, 6), sizes=[1, 2, 5, 3], opset=11, mode="linear"),
    _resize((1, 2, 4, 6), [1, 1, 2, 2], dtype="float16", mode="linear"),
]
VERSION_10 = [
    Case("Resize", (random(1, 2, 4, 7), np.array(s, np.float32)), {"mode": mode}, 10, (1,))
    for mode in ("nearest", "linear")
    for s in ([1, 1, 2, 2], [1, 1, 0.6, 0.6], [1, 1, 2.5, 0.7])
]
UPSAMPLE = [
    *(
        Case("Upsample", (random(1, 5, 3, 4), np.array(s, np.float32)), {"mode": mode}, 9, (1,))
        for mode in ("nearest", "linear")
        for s in ([1, 1, 2, 2], [1, 1, 1.5, 3])
    ),
    Case("Upsample", (random(1, 3, 3, 4),), {"scales": [1.0, 1.0, 2.0, 3.0]}, 7),
]
IN_C4 = [
    case.but(layout="c4")
    for case in [
        _resize((2, 5, 7, 9), [1, 1, 2, 2]),
        _resize((2, 5, 7, 9), [1, 1, 3, 2]),
        _resize((1, 4, 7, 9), [1, 1, 2, 2], mode="linear"),
        _resize((1, 3, 17, 13), [1, 1, 0.5, 1.3], mode="cubic"),
        _resize((1, 6, 2, 3, 5), [1, 1, 2, 2, 2], mode="linear"),
        _resize((1, 6, 2, 3, 5), [1, 1, 2, 2, 2]),
        _resize((1, 6, 9), [1, 1, 2], mode="linear"),
        _resize(
            (1, 5, 7, 10),
            [1, 1, 2, 2],
            roi=[0, 0, 0.1, -0.1, 1, 1, 0.8, 1.2],
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=3.0,
        ),
    ]
]


@pytest.mark.parametrize("case", [*CASES, *VERSION_10, *UPSAMPLE], ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", [*CASES, *VERSION_10, *UPSAMPLE, *IN_C4], ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(5, 4), (11, 3), (20, 30)])
def test_antialias(mode: str, size: tuple[int, int]) -> None:
    x = random(1, 3, 17, 13)
    case = _resize(
        x.shape,
        sizes=[1, 3, *size],
        mode=mode,
        antialias=1,
        exclude_outside=1,
        cubic_coeff_a=-0.5,
    )
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}[mode]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x), size, mode=torch_mode, antialias=True
    )
    assert_close(case.expected()[0], expected.numpy())
    check_device(case)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crop_without_scaling(mode: str) -> None:
    case = _resize(
        (1, 5, 7, 10),
        [1, 1, 1, 1.7],
        mode=mode,
        roi=[0, 0, 0.1, -0.1, 1, 1, 0.8, 1.2],
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=10.0,
    )
    evaluator = onnx.reference.ReferenceEvaluator(case.model())
    check_reference(case, lambda c: evaluator.run(None, c.feeds()))
    check_device(case)


def test_empty() -> None:
    check_device(_resize((0, 3, 4, 5), [1, 1, 2, 2]))


def test_integers_stay_on_the_host() -> None:
    case = _resize((1, 3, 4, 5), [1, 1, 2, 2], dtype="uint8")
    check_reference(case)
    check_device(case, where="host")
