"""``torchvision::deform_conv2d`` as ONNX DeformConv, for both exporters.

Models call torchvision's function as well as its module, and only the operator shows in both.
torchvision itself is not imported: where its operator is not defined, no model can hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vkconv.converters.deformable import deform_conv_symbolic

__all__ = ["legacy_symbols", "translations"]

OPERATOR = "torchvision::deform_conv2d"
SINCE_OPSET = 19


def is_defined() -> bool:
    """Whether torchvision, or somebody in its place, has defined the operator."""
    return hasattr(torch.ops.torchvision, "deform_conv2d")


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """``custom_translation_table`` of the dynamo exporter."""
    from vkconv.converters.suppression import TRANSLATIONS

    if not is_defined():
        return dict(TRANSLATIONS)
    from onnxscript import opset19

    def deform_conv(
        input: Any, weight: Any, offset: Any, mask: Any, bias: Any,
        stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
        groups: int, offset_groups: int, use_mask: bool,
    ) -> Any:  # fmt: skip
        given = (input, weight, offset, bias, mask) if use_mask else (input, weight, offset, bias)
        return opset19.DeformConv(
            *given,
            strides=[stride_h, stride_w],
            pads=[pad_h, pad_w, pad_h, pad_w],
            dilations=[dilation_h, dilation_w],
            group=groups,
            offset_group=offset_groups,
        )

    # annotations as text would hide from the exporter which arguments are attributes
    deform_conv.__annotations__ = {
        name: {"int": int, "bool": bool}.get(str(kind), Any)
        for name, kind in deform_conv.__annotations__.items()
    }
    return {**TRANSLATIONS, torch.ops.torchvision.deform_conv2d.default: deform_conv}


@contextmanager
def legacy_symbols() -> Iterator[None]:
    """The TorchScript exporter's symbol, for the time of the block."""
    if not is_defined():
        yield
        return
    helper = torch.onnx.symbolic_helper

    @helper.parse_args("v", "v", "v", "v", "v", *["i"] * 8, "b")
    def symbol(
        g: Any, x: Any, weight: Any, offset: Any, mask: Any, bias: Any,
        stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
        groups: int, offset_groups: int, use_mask: bool,
    ) -> Any:  # fmt: skip
        attributes = {
            "strides": [stride_h, stride_w],
            "pads": [pad_h, pad_w, pad_h, pad_w],
            "dilations": [dilation_h, dilation_w],
            "group": groups,
            "offset_group": offset_groups,
        }
        return deform_conv_symbolic(
            g, x, weight, offset, bias, mask if use_mask else None, attributes
        )

    torch.onnx.register_custom_op_symbolic(OPERATOR, symbol, SINCE_OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(OPERATOR, SINCE_OPSET)
