"""Time that grows with the size of a problem and not with its square, on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable

#: linear work takes this many times as long for as many times the size, quadratic its square
TIMES = 8


def assert_grows_linearly(work: Callable[[int], object], size: int) -> None:
    """``work(size)`` takes no more than some two times the processor time that an eighth of it
    lets expect."""
    work(size // TIMES)  # what is loaded and made once
    few = min(_seconds(work, size // TIMES) for _ in range(3))
    many = _seconds(work, size)
    assert many <= 2.5 * TIMES * few, f"{size // TIMES}: {few:.2f} s, {size}: {many:.2f} s"


def _seconds(work: Callable[[int], object], size: int) -> float:
    began = time.process_time()
    work(size)
    return time.process_time() - began
