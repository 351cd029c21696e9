"""ImageToTensor's kernel against its reference; what users see of it is in test_image_inputs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import Case, check_device
from vkconv.ops.image_to_tensor import ImageToTensor


def case(n: int, c: int, h: int, w: int) -> Case:
    rng = np.random.default_rng([n, c, h, w])
    words = rng.integers(-(2**31), 2**31, -(-n * c * h * w // 4), dtype=np.int64).astype(np.int32)
    table = np.stack([rng.normal(size=c), rng.normal(size=c), np.arange(c)[::-1]])
    attributes = {"shape": [n, c, h, w]}
    inputs = (words, table.astype(np.float32))
    return Case("ImageToTensor", inputs, attributes, opset=1, domain="vkconv")


CASES = [case(1, 3, 5, 7), case(2, 3, 16, 1), case(1, 1, 3, 3), case(3, 4, 1, 1), case(1, 2, 17, 4)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_reference_follows_the_formula() -> None:
    words = np.array([0x03020100, 0x00000504], np.int32)  # two pixels: 0 1 2, 3 4 5
    table = np.array([[1, 10, 100], [0.5, 0, 0], [2, 1, 0]], np.float32)  # factor, offset, source
    y = ImageToTensor(shape=(1, 3, 1, 2)).reference(words, table)
    assert y.tolist() == [[[[2.5, 5.5]], [[10, 40]], [[0, 300]]]]
