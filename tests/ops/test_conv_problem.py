"""A convolution problem's textual form, there and back."""

from __future__ import annotations

import dataclasses

import pytest

from tests.ops.test_conv_selection import PROBLEMS, square
from vkconv.ops.conv_problem import ONE, Problem
from vkconv.ops.window import Axis


def test_every_key_gives_its_problem_back() -> None:
    cropped = dataclasses.replace(square(4, 8, 9, 3), y=Axis(9, 3, 2, 2, 3, -1, -2))
    # one axis: height and depth are the same object
    line = dataclasses.replace(square(4, 8, 9, 3), y=ONE)
    for problem in [*PROBLEMS, cropped, line]:
        assert Problem.from_key(problem.key) == problem


@pytest.mark.parametrize(
    "text", ["", "conv", "pool 1x1g 4>8 1>1k1s1d1p0+0 1>1k1s1d1p0+0", "conv 1x1g 4>8 1>1k1s1d1p0+0"]
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        Problem.from_key(text)
