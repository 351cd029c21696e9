"""Everything around vkconv that needs PyTorch, kept out of the runtime.

``vkconv`` itself never imports torch; this sub-package is the one place that may, and even here
only the modules that truly need it do so:

* :mod:`vkconv.converters.exporting` writes a module as one fused, verified .onnx file (torch).
* :mod:`vkconv.converters.reparameterization` collapses training-time branches and batch
  normalisation into plain convolutions (torch); :mod:`vkconv.converters.blocks` is its algebra.
* :mod:`vkconv.converters.checkpoints` builds networks of published families from their weights
  (torch); :mod:`vkconv.converters.suppression` is what their exports suppress boxes with.
* :mod:`vkconv.converters.deformable` is deformable convolution that trains, and exports to ONNX
  (torch).
* :mod:`vkconv.converters.demo_net` is the small YOLOv7-style detector behind
  ``vkconv/data/demo.onnx`` (torch).
* :mod:`vkconv.converters.demo_loss` is the loss that detector is trained with (torch).
* :mod:`vkconv.converters.demo_scenes` draws the pictures it is trained on (NumPy and Pillow), out
  of ``demo_backdrops``, ``demo_objects``, ``demo_small_objects`` and ``demo_sprites``.

Importing this package stays cheap: the names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "CLASS_NAMES": "demo_scenes",
    "DeformConv2d": "deformable",
    "DemoNet": "demo_net",
    "deform_conv2d": "deformable",
    "export": "exporting",
    "fuse_conv_norm": "reparameterization",
    "generate_scene": "demo_scenes",
    "reparameterize": "reparameterization",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` the first time somebody asks for it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
