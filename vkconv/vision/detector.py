"""The two ends of a detector: a picture to its input tensor, its output to boxes in the picture.

    image --prepare--> tensor, letterbox     outputs, letterbox --detect--> boxes in source pixels

or, where the device makes the tensor: image --prepare_pixels--> pixels, letterbox.

What runs in between is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from vkconv.errors import InvalidInputError
from vkconv.vision.decoding import decode, is_final
from vkconv.vision.detections import Detections
from vkconv.vision.heads import HeadSpec
from vkconv.vision.nms import non_maximum_suppression
from vkconv.vision.preprocess import Letterbox, image_to_tensor, letterbox

__all__ = ["detect", "prepare", "prepare_pixels"]


def prepare(
    image: Image.Image,
    head: HeadSpec,
    *,
    input_size: tuple[int, int],
    dtype: DTypeLike = np.float32,
) -> tuple[NDArray[Any], Letterbox]:
    """Picture -> (1, 3, H, W) of ``dtype`` as ``head`` wants it fed, and the transform.

    input_size: (width, height) in pixels.
    """
    pixels, transform = letterbox(image, input_size, fit=head.fit)
    tensor = image_to_tensor(
        pixels,
        dtype=dtype,
        scale=head.input_scale,
        mean=head.mean,
        std=head.std,
        channel_order=head.channel_order,
    )
    return tensor, transform


def prepare_pixels(
    image: Image.Image, head: HeadSpec, *, input_size: tuple[int, int]
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Picture -> (1, H, W, 3) uint8 RGB for a session that scales and orders the channels itself,
    and the transform. input_size: (width, height) in pixels."""
    pixels, transform = letterbox(image, input_size, fit=head.fit)
    return pixels[np.newaxis], transform


def detect(
    outputs: Sequence[NDArray[Any]],
    head: HeadSpec,
    transform: Letterbox,
    *,
    confidence: float = 0.25,
    iou: float = 0.45,
    max_detections: int = 300,
) -> Detections:
    """The tensors of ``head.outputs`` -> detections in *source* pixels, best first.

    confidence, iou: thresholds in 0..1 of ``decode`` and of ``non_maximum_suppression``; the latter
    is for the heads whose boxes are not final. Boxes are clipped to the picture; those wholly in
    the padding are left out. Raises InvalidInputError when a tensor or a threshold does not fit.
    """
    if not 0.0 <= confidence <= 1.0:
        raise InvalidInputError(f"confidence must lie in 0..1, not {confidence}")
    if not 0.0 <= iou <= 1.0:
        raise InvalidInputError(f"iou must lie in 0..1, not {iou}")
    candidates = decode(outputs, head, input_size=transform.input_size, confidence=confidence)
    source = transform.to_source(candidates.boxes)
    inside = np.all(source[:, 2:] > source[:, :2], axis=1)
    candidates = candidates.select(np.flatnonzero(inside))
    if is_final(head):
        keep = np.argsort(-candidates.scores, kind="stable")[:max_detections]
    else:
        keep = non_maximum_suppression(
            candidates.boxes,
            candidates.scores,
            candidates.class_ids,
            iou_threshold=iou,
            max_detections=max_detections,
        )
    kept = candidates.select(keep)
    return Detections(transform.to_source(kept.boxes), kept.scores, kept.class_ids)
