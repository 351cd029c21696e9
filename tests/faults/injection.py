"""A Vulkan driver whose calls fail on demand, and which knows every object that is alive.

It stands between the engine and the real driver, in the place of the binding's ``lib``. Every
function that returns a VkResult is a site: a run without faults lists the sites it passes, and a
later run fails one of them.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vkconv.device.vulkan import loader

#: the function, and which of its calls, from 1
Site = tuple[str, int]

CREATES = re.compile(r"vk(Create|Allocate)(?!DescriptorSets|CommandBuffers)(\w+)")
DESTROYS = re.compile(r"vk(Destroy|Free)(?!DescriptorSets|CommandBuffers)(\w+)")


class Driver:
    """The real driver behind a ledger.

    ``fail`` decides, by site, whether a call fails: with the VkResult it returns, or by what it
    raises; None lets the call through. ``live``: objects made and not destroyed, with their parent.
    ``misuse``: what the specification forbids, such as destroying twice.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:
        self._lib, self._ffi = lib, ffi
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.fail: Callable[[Site], int | None] = lambda site: None
        self.live: dict[tuple[str, Any], Any] = {}
        self.misuse: list[str] = []
        self.failed: list[Site] = []

    @property
    def sites(self) -> list[Site]:
        """Every call so far that could have failed."""
        return [(name, k) for name, n in sorted(self.calls.items()) for k in range(1, n + 1)]

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._lib, name)
        if not name.startswith("vk"):
            return real
        returned = self._ffi.typeof(real).result.cname
        if DESTROYS.fullmatch(name):
            wrapped = self._destroying(name, real)
        elif returned == "enum VkResult":
            wrapped = self._failing(name, real)
        else:
            wrapped = real
        self.__dict__[name] = wrapped  # found here the next time
        return wrapped

    def _failing(self, name: str, real: Any) -> Callable[..., int]:
        made = CREATES.fullmatch(name)

        def call(*arguments: Any) -> int:
            with self._lock:
                self.calls[name] += 1
                site = (name, self.calls[name])
                result = self.fail(site)
                if result is not None:
                    self.failed.append(site)
                    return result
            done: int = real(*arguments)
            if made and done == 0:
                parent = None if name == "vkCreateInstance" else arguments[0]
                with self._lock:
                    self.live[_kind(made.group(2)), arguments[-1][0]] = parent
            return done

        return call

    def _destroying(self, name: str, real: Any) -> Callable[..., None]:
        kind = _kind(DESTROYS.fullmatch(name).group(2))

        def call(*arguments: Any) -> None:
            handle = arguments[-2]
            with self._lock:
                if handle != self._ffi.NULL:
                    if (kind, handle) not in self.live:
                        self.misuse.append(f"{name} of what is not alive")
                    self.live.pop((kind, handle), None)
                left = [k for (k, _), parent in self.live.items() if parent == handle]
                if kind in ("Device", "Instance") and left:
                    self.misuse.append(f"{name} while these are alive: {left}")
            real(*arguments)

        return call


def _kind(name: str) -> str:
    return "Pipeline" if name == "ComputePipelines" else name


@contextmanager
def driver() -> Iterator[Driver]:
    """A driver of the test's own, with an instance of its own, in place of the process's."""
    api = loader.load()
    made = Driver(api.lib, api.ffi)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "lib", made)
        patch.setattr(loader, "_instance", None)
        patch.setattr(loader.atexit, "register", lambda *_: None)
        yield made
        made.fail = lambda site: None
        if loader._instance is not None:
            loader._instance.close()


def only(*sites: Site, result: int) -> Callable[[Site], int | None]:
    """These calls fail."""
    return lambda site: result if site in sites else None


def from_then_on(first: Site, result: int) -> Callable[[Site], int | None]:
    """A call and all later ones of the same function fail."""
    return lambda site: result if site[0] == first[0] and site[1] >= first[1] else None
