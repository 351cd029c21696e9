"""Operators, one file each: importing this package imports every sibling, which registers it.

An operator knows ONNX's words, numpy and the data of ``vkconv.dispatch``; never a device.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
