"""A trained RTMDet or RTMDet-Ins under mmdetection's names, of any size."""

from __future__ import annotations

import os

import torch

from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.checkpoints.cspnext import cspnext_sizes
from vkconv.converters.checkpoints.grids import Normalized
from vkconv.converters.checkpoints.rtmdet_net import MaskNet, RtmDet, RtmDetIns, RtmDetSizes
from vkconv.converters.checkpoints.shapes import Shapes
from vkconv.converters.checkpoints.state_dicts import fill, read_state_dict
from vkconv.errors import InvalidModelError

__all__ = ["load_rtmdet", "load_rtmdet_ins"]

#: of R, G, B in 0..255; the first convolution wants B, G, R
_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
#: published weights of at least this width take the exponential of distances, narrower ones do not
_EXPONENTIAL_FROM = 256


def load_rtmdet(weights: str | os.PathLike[str], *, exp_on_reg: bool | None = None) -> Checkpoint:
    """The network of a state_dict.

    exp_on_reg:  as in the config's bbox_head; None takes what the published weights of that width
                 have.

    Raises a VkconvError naming the key that is missing, left over or of another shape.
    """
    return _load(weights, exp_on_reg, with_masks=False)


def load_rtmdet_ins(weights: str | os.PathLike[str]) -> Checkpoint:
    """The network of a state_dict; its second output holds the masks. Batches are of 1."""
    return _load(weights, False, with_masks=True)


def _load(
    weights: str | os.PathLike[str], exp_on_reg: bool | None, *, with_masks: bool
) -> Checkpoint:
    file = os.fspath(weights)
    state = read_state_dict(weights)
    shapes = Shapes(state, file, "mmdetection RTMDet-Ins" if with_masks else "mmdetection RTMDet")
    if not with_masks and "bbox_head.rtm_kernel.0.weight" in shapes:
        raise InvalidModelError(
            f"the weights '{file}' are of an RTMDet-Ins: 'bbox_head.rtm_kernel.0.weight'; convert "
            "them as rtmdet-ins"
        )
    sizes, notes = _sizes(shapes, exp_on_reg, with_masks)
    with torch.device("meta"):
        network = (RtmDetIns if with_masks else RtmDet)(sizes, Normalized(_MEAN, _DEVIATION)).eval()
    fill(network, state, file)
    first = network.backbone.stem[0].conv
    first.weight = torch.nn.Parameter(first.weight.flip(1).contiguous(), requires_grad=False)
    return Checkpoint(
        network,
        ("detections", "masks") if with_masks else ("detections",),
        (640, 640),
        max(sizes.strides),
        "rtmdet",
        sizes.classes,
        fixed_batch=with_masks,
        notes=notes,
    )


def _sizes(
    shapes: Shapes, exp_on_reg: bool | None, with_masks: bool
) -> tuple[RtmDetSizes, tuple[str, ...]]:
    body = cspnext_sizes(shapes)
    head_width = shapes.outputs("bbox_head.cls_convs.0.0.conv")
    notes: tuple[str, ...] = ()
    if with_masks:
        distances = "relu"
    else:
        if exp_on_reg is None:
            exp_on_reg = head_width >= _EXPONENTIAL_FROM
            taken = "the exponential" if exp_on_reg else "distances as they are"
            notes = (
                f"taken, as published weights of {head_width} channels have it: {taken} "
                "(--exp-on-reg and --no-exp-on-reg say otherwise)",
            )
        distances = "exp" if exp_on_reg else ""
    sizes = RtmDetSizes(
        body,
        head_width,
        shapes.need("bbox_head.cls_convs.0", most=16),
        shapes.shape("bbox_head.rtm_cls.0.weight", 4)[2],
        shapes.outputs("bbox_head.rtm_cls.0"),
        distances,
        "bbox_head.rtm_obj.0.weight" in shapes,
        _mask_net(shapes) if with_masks else None,
        shapes.need("bbox_head.mask_head.stacked_convs", most=16) if with_masks else 0,
    )
    return sizes, notes


def _mask_net(shapes: Shapes) -> MaskNet:
    """The mask net whose numbers the head brings: three convolutions of some width."""
    prototypes = shapes.outputs("bbox_head.mask_head.projection")
    count = shapes.outputs("bbox_head.rtm_kernel.0")
    for width in range(1, 129):
        net = MaskNet(prototypes, width)
        if net.weights == count:
            return net
    raise InvalidModelError(
        f"the weights '{shapes.file}': 'bbox_head.rtm_kernel.0.weight' makes {count} numbers an "
        f"instance, which is no mask net of three convolutions on {prototypes} prototypes"
    )
