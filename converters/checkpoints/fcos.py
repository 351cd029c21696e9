"""A trained FCOS under mmdetection's names, of any ResNet or ResNeXt."""

from __future__ import annotations

import os

import torch

from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.checkpoints.conv_module import Norm
from vkconv.converters.checkpoints.fcos_net import Fcos, FcosSizes
from vkconv.converters.checkpoints.grids import Normalized
from vkconv.converters.checkpoints.resnet import Style, resnet_sizes
from vkconv.converters.checkpoints.shapes import Shapes
from vkconv.converters.checkpoints.state_dicts import StateDict, fill, read_state_dict
from vkconv.errors import InvalidModelError

__all__ = ["load_fcos"]

#: mean and deviation of R, G, B in 0..255 that training subtracts and divides by, and whether the
#: first convolution wants B, G, R
_INPUTS = {
    "caffe": ((122.7717, 115.9465, 102.9801), (1.0, 1.0, 1.0), True),
    "pytorch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False),
}
#: before version 2.4 the head's outputs had other names
_OLD_NAMES = {"fcos_cls": "conv_cls", "fcos_reg": "conv_reg", "fcos_centerness": "conv_centerness"}


def load_fcos(
    weights: str | os.PathLike[str],
    *,
    style: Style = "caffe",
    norm_on_bbox: bool = False,
    centerness_on_reg: bool = False,
) -> Checkpoint:
    """The network of a state_dict; the three options are what its shapes cannot tell.

    style:              "caffe" or "pytorch", as in the config's backbone; pictures are normalized
                        accordingly, inside the network.
    norm_on_bbox, centerness_on_reg:  as in the config's bbox_head.

    Raises a VkconvError naming the key that is missing, left over or of another shape.
    """
    file = os.fspath(weights)
    state = _renamed(read_state_dict(weights))
    if style not in _INPUTS:
        raise InvalidModelError(f"an FCOS has the style {' or '.join(_INPUTS)}, not '{style}'")
    mean, deviation, swapped = _INPUTS[style]
    shapes = Shapes(state, file, "mmdetection FCOS")
    sizes = _sizes(shapes, style, norm_on_bbox, centerness_on_reg)
    with torch.device("meta"):
        network = Fcos(sizes, Normalized(mean, deviation)).eval()
    fill(network, state, file)
    if swapped:
        # Pictures come as R, G, B: the first convolution reads its weights the other way round.
        first = network.backbone.conv1
        first.weight = torch.nn.Parameter(first.weight.flip(1).contiguous(), requires_grad=False)
    ways = [
        f"style {style}" + (" (pictures as B, G, R)" if swapped else ""),
        "distances in strides" if norm_on_bbox else "distances by the exponential",
        f"centerness from the {'distances' if centerness_on_reg else 'classes'}' tower",
    ]
    note = f"taken, since the weights do not tell: {', '.join(ways)}"
    return Checkpoint(
        network, ("detections",), (640, 640), 32, "fcos", sizes.classes, notes=(note,)
    )


def _renamed(state: StateDict) -> StateDict:
    renamed = {}
    for key, value in state.items():
        room, _, rest = key.partition(".")
        part, _, last = rest.partition(".")
        renamed[f"{room}.{_OLD_NAMES.get(part, part)}.{last}" if last else key] = value
    return renamed


def _sizes(shapes: Shapes, style: Style, norm_on_bbox: bool, centerness_on_reg: bool) -> FcosSizes:
    backbone = resnet_sizes(shapes, "backbone.")
    laterals = shapes.need("neck.lateral_convs", most=len(backbone.blocks))
    levels = shapes.need("neck.fpn_convs", least=laterals, most=laterals + 4)
    first = "bbox_head.cls_convs.0"
    norm: Norm = ""
    if f"{first}.gn.weight" in shapes:
        norm = "gn"
    elif f"{first}.bn.weight" in shapes:
        norm = "bn"
    head_width = shapes.outputs(f"{first}.conv")
    if norm == "gn" and head_width % 32:
        raise InvalidModelError(
            f"the weights '{shapes.file}': '{first}.gn' normalizes {head_width} channels, which "
            "32 groups do not divide"
        )
    return FcosSizes(
        backbone,
        shapes.outputs("neck.lateral_convs.0.conv"),
        laterals,
        levels,
        head_width,
        shapes.need("bbox_head.cls_convs", most=16),
        norm,
        f"{first}.conv.bias" in shapes,
        shapes.outputs("bbox_head.conv_cls"),
        style,
        norm_on_bbox,
        centerness_on_reg,
    )
