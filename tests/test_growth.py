"""The bound on growth lets linear work pass and quadratic work fail."""

from __future__ import annotations

import pytest

from tests.growth import assert_grows_linearly


def test_linear_work_passes() -> None:
    assert_grows_linearly(lambda size: sum(range(size * 500)), 4000)


def test_quadratic_work_fails() -> None:
    with pytest.raises(AssertionError, match=r"500: .* s, 4000: "):
        assert_grows_linearly(lambda size: sum(range(size * size // 4)), 4000)
