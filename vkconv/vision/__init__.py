"""Pictures and boxes: everything a detector needs around its network.

    load_image -> prepare (letterbox) -> [the network] -> detect (decode, NMS) -> draw_detections
    run_tiled: a large picture -> tiles -> [the network] -> one seamless map

Imports numpy, Pillow and ``vkconv.errors`` only, and knows no model, session or device: its
functions work as well with another runtime's outputs.
"""

from vkconv.vision.decoding import decode, is_final
from vkconv.vision.detections import Detections
from vkconv.vision.detector import detect, prepare, prepare_pixels
from vkconv.vision.draw import class_color, draw_detections
from vkconv.vision.head_kinds import HEAD_KINDS
from vkconv.vision.head_metadata import metadata_input_size
from vkconv.vision.heads import SIZES_INPUT, HeadSpec, choose_head
from vkconv.vision.labels import (
    COCO_NAMES,
    class_name,
    default_class_names,
    metadata_class_names,
    read_labels,
)
from vkconv.vision.nms import non_maximum_suppression, overlap
from vkconv.vision.preprocess import Letterbox, image_to_tensor, letterbox, load_image
from vkconv.vision.tiling import margin_needed, mirrored, run_tiled

__all__ = [
    "COCO_NAMES",
    "HEAD_KINDS",
    "SIZES_INPUT",
    "Detections",
    "HeadSpec",
    "Letterbox",
    "choose_head",
    "class_color",
    "class_name",
    "decode",
    "default_class_names",
    "detect",
    "draw_detections",
    "image_to_tensor",
    "is_final",
    "letterbox",
    "load_image",
    "margin_needed",
    "metadata_class_names",
    "metadata_input_size",
    "mirrored",
    "non_maximum_suppression",
    "overlap",
    "prepare",
    "prepare_pixels",
    "read_labels",
    "run_tiled",
]
