"""AffineGrid against torch and onnxruntime, and the kernel against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv.errors import InvalidModelError


def grid(size: tuple[int, ...], align: int = 0) -> Case:
    axes = len(size) - 2
    theta = random(size[0], axes, axes + 1)
    return Case(
        "AffineGrid",
        (theta, np.array(size, np.int64)),
        {"align_corners": align},
        constant=(1,),
        reduction=4,
    )


SIZES = [(2, 3, 5, 6), (1, 1, 1, 7), (3, 2, 4, 1, 5), (1, 4, 1, 1), (2, 1, 17, 33)]
CASES = [grid(size, align) for size in SIZES for align in (0, 1)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    """With align_corners a single pixel is at 0 in torch, whose function the standard refers to;
    onnxruntime has it at 1."""
    theta, size = case.inputs
    align = bool(case.attributes["align_corners"])
    if not align or 1 not in size[2:]:
        check_reference(case)
    y = torch.nn.functional.affine_grid(torch.from_numpy(theta), size.tolist(), align)
    assert_close(case.expected()[0], y.numpy(), 4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_size_that_the_model_computes() -> None:
    check_device(grid((2, 2, 2, 2)).but(constant=(), output_dtypes=("float32",)))


@pytest.mark.parametrize("size", [(2, 3, 5), (1, 3, 5, 6), (2, 3, -5, 6)])
def test_wrong_sizes_are_refused(size: tuple[int, ...]) -> None:
    case = CASES[0].but(inputs=(CASES[0].inputs[0], np.array(size, np.int64)))
    with pytest.raises(InvalidModelError):
        case.types()
