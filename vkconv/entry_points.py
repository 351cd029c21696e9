"""Operators of other installed packages: their modules are imported when first asked for.

A package names a module under the entry point group ``vkconv.operators``; importing that module
registers its operators (see ``vkconv.custom_operators``). A leaf: knows neither operators nor
shaders.
"""

from __future__ import annotations

import threading
import warnings
from importlib.metadata import entry_points

__all__ = ["GROUP", "load_operators"]

GROUP = "vkconv.operators"

_lock = threading.RLock()
_loaded = False


def load_operators() -> None:
    """Import the module of every entry point, once. One that fails is warned of; others go on."""
    global _loaded
    with _lock:
        if _loaded:
            return
        _loaded = True  # first: a module may ask for an operator while it is imported
        for point in entry_points(group=GROUP):
            try:
                point.load()
            except (Exception, SystemExit) as error:
                package = f" of package '{point.dist.name}'" if point.dist is not None else ""
                warnings.warn(
                    f"entry point '{point.name} = {point.value}'{package} could not be loaded, and "
                    f"its operators are not known: {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
