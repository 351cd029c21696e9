"""Trained weights in the layouts that networks are published in, as torch modules.

A checkpoint says what the numbers are, not how they are wired: a loader here knows one family of
networks, reads its sizes from a cfg or from the shapes of the weights, builds the network in the
form the weights have, under their names, and fills it. What comes out is a :class:`Checkpoint`,
which ``write_onnx`` reparameterizes, exports, fuses and compares with PyTorch.

    state_dicts, safetensors, yaml_files   reading untrusted files; filling a module
    shapes                                 sizes of a network from those of its weights
    yolov7, yolov7_*                       YOLOv7 from its yaml
    repvgg, acnet                          classifiers of reparameterized blocks
    fcos, fcos_net, resnet                 FCOS under mmdetection's names
    rtmdet, rtmdet_net, cspnext            RTMDet and RTMDet-Ins under mmdetection's names
    conv_module, grids                     what those of mmdetection share
    names                                  class names
    writing                                the way to the ONNX file

Nothing here opens a device. The names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "Checkpoint": "checkpoint",
    "load_acnet": "acnet",
    "load_fcos": "fcos",
    "load_repvgg": "repvgg",
    "load_rtmdet": "rtmdet",
    "load_rtmdet_ins": "rtmdet",
    "load_yolov7": "yolov7",
    "read_names": "names",
    "read_state_dict": "state_dicts",
    "write_onnx": "writing",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` the first time somebody asks for it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
