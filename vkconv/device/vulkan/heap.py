"""Memory of this process: a CPU driver's buffers lie in it, and its compiler fills and frees much
of it."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from vkconv.ir import Array

__all__ = ["give_back", "prefer_huge_pages"]

HUGE_PAGE = 2 << 20
#: Linux's, where Python knows it
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)


#: bytes that the process may grow by, while it compiles, before it is worth the time
GROWTH = 12 << 20
#: the least that the process has held since it last gave back, in bytes
_held = 0


def give_back(growth: int = 0) -> None:
    """Has the C library return to the system what was freed, where the process has grown by that
    many bytes since it last did so. Does nothing where it cannot.

    glibc keeps it for the thread that freed it: with Mesa's CPU driver a process that has compiled
    a MobileNet's kernels holds 25 MB of it, an EfficientNet's 50 MB. Giving back takes 1 to 4 ms,
    and as long again until what is needed next is there: behind every kernel it was 2% of a load.
    """
    global _held
    now = _resident()
    trim = _from_c_library("malloc_trim", ctypes.c_size_t)
    if trim is not None and now - _held >= growth:
        trim(0)
        _held = _resident()
    else:
        _held = min(_held, now)


def prefer_huge_pages(array: Array) -> int:
    """Asks for huge pages behind the bytes of ``array``, before they are first written; returns how
    many bytes were asked for.

    Weights and intermediate tensors are read and written from one end to the other: pages of 2 MiB
    spare the CPU most of its address translations. Only whole ones within the array are asked for,
    so that it takes no more memory. It is advice, and nothing where the system does not know it.
    """
    start = -(-array.ctypes.data // HUGE_PAGE) * HUGE_PAGE
    end = (array.ctypes.data + array.nbytes) // HUGE_PAGE * HUGE_PAGE
    advise = _from_c_library("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if advise is None or _ADVICE is None or start >= end:
        return 0
    return end - start if advise(start, end - start, _ADVICE) == 0 else 0


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@cache
def _from_c_library(name: str, *arguments: Any) -> Callable[..., int] | None:
    """A function that returns an int; None where there is none (musl has no malloc_trim)."""
    if sys.platform != "linux":
        return None
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = list(arguments), ctypes.c_int
    made: Callable[..., int] = found
    return made
