"""One picture through one detector: the session and the vision room put together."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import vkconv
from vkconv.cli.options import LARGEST_SIDE
from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.files import replacing
from vkconv.image_inputs import ImageInput
from vkconv.vision import (
    SIZES_INPUT,
    Detections,
    HeadSpec,
    Letterbox,
    choose_head,
    detect,
    metadata_input_size,
    prepare,
    prepare_pixels,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from vkconv.profiler import Profile

__all__ = [
    "SIZE_STEP",
    "Outcome",
    "Settings",
    "detector_feeds",
    "model_path",
    "run_detector",
]

# The largest stride of the heads understood: an input that is a multiple has whole cells.
SIZE_STEP = 32
_OPEN_SIZE = (640, 640)
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose. ``size`` is (width, height); ``labels`` replace the model's names and
    ``head``, one of HEAD_KINDS, what the model and its shapes say."""

    model: str | None = None
    device: str = "auto"
    confidence: float = 0.25
    iou: float = 0.45
    labels: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    trace: str | None = None
    head: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run found out, for the table, the picture and the JSON alike.

    ``detections`` are in source pixels; ``milliseconds`` has load, prepare, first_run, run, detect;
    ``profile`` is there when a trace was asked for.
    """

    head: HeadSpec
    names: tuple[str, ...]
    input_size: tuple[int, int]
    device: vkconv.DeviceInfo
    milliseconds: dict[str, float]
    detections: Detections
    profile: Profile | None = None


def run_detector(image: Image, settings: Settings) -> Outcome:
    """Load the model (the demo detector if none is named) and find the objects in one picture.

    Raises VkconvError for whatever does not fit, before the picture is run where possible.
    """
    # Loaded at this first use: importing the library is not loading the model.
    open_session = vkconv.InferenceSession
    clock = time.perf_counter
    started = clock()
    with (
        model_path(settings.model) as path,
        # pixels go to the device as they are; how they are scaled is known with the head
        open_session(path, device=settings.device, images=ImageInput()) as session,
    ):
        loaded = clock()
        detector = _understood(session, settings)
        head = detector.head
        names = _class_names(head, settings.labels)

        begun = clock()
        feeds, transform = _prepared(detector, image)
        prepared = clock()
        # The first run also pays for what a driver puts off until then, often compiling the
        # shaders: up to a hundred times the run itself. Both are of interest, so both are measured.
        session.run(head.outputs, feeds)
        warm = clock()
        results = session.run(head.outputs, feeds)
        ran = clock()
        found = detect(results, head, transform, confidence=settings.confidence, iou=settings.iou)
        detected = clock()
        profile = None
        if settings.trace is not None:
            profile = session.profile(feeds)
            if session.device.kind != "reference":
                profile.ceilings = vkconv.measure_ceilings(session.device)
            with replacing(settings.trace, "the trace") as temporary:
                profile.write_chrome_trace(temporary)
        milliseconds = {
            "load": (loaded - started) * 1e3,
            "prepare": (prepared - begun) * 1e3,
            "first_run": (warm - prepared) * 1e3,
            "run": (ran - warm) * 1e3,
            "detect": (detected - ran) * 1e3,
        }
        size = detector.input.size
        return Outcome(head, names, size, session.device, milliseconds, found, profile)


def detector_feeds(
    image: Image, settings: Settings
) -> tuple[dict[str, NDArray[Any]], dict[str, ImageInput] | None]:
    """What ``run_detector`` feeds the model with, and which inputs take it as pixels."""
    with (
        model_path(settings.model) as path,
        vkconv.InferenceSession(path, device=settings.device, images=ImageInput()) as session,
    ):
        detector = _understood(session, settings)
        feeds, _ = _prepared(detector, image)
        name = detector.input.name
        return feeds, {name: _numbers(detector.head)} if name in session.image_inputs else None


@dataclass(frozen=True, slots=True)
class _Input:
    """The image input of a model, (width, height) pixels, and what it takes beside the picture."""

    name: str
    dtype: str
    size: tuple[int, int]
    beside: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Detector:
    """An opened model whose head is understood."""

    session: vkconv.InferenceSession
    input: _Input
    head: HeadSpec


def _understood(session: vkconv.InferenceSession, settings: Settings) -> _Detector:
    metadata = session.get_modelmeta().custom_metadata_map
    port = _image_input(session, settings.size or metadata_input_size(metadata) or _OPEN_SIZE)
    if settings.size not in (None, port.size):
        raise InvalidInputError(
            f"the model's input is fixed at {port.size[0]}x{port.size[1]}; leave --size out"
        )
    head = choose_head(
        _output_shapes(session, port),
        metadata,
        input_size=port.size,
        inputs=port.beside,
        kind=settings.head,
    )
    return _Detector(session, port, head)


def _prepared(detector: _Detector, image: Image) -> tuple[dict[str, NDArray[Any]], Letterbox]:
    """What to feed: pixels where the session converts them, else the tensor; and the transform."""
    session, port, head = detector.session, detector.input, detector.head
    tensor: NDArray[Any]
    if port.name in session.image_inputs:
        session.set_image_input(port.name, _numbers(head))
        tensor, transform = prepare_pixels(image, head, input_size=port.size)
    else:
        tensor, transform = prepare(image, head, input_size=port.size, dtype=port.dtype)
    return {port.name: tensor, **port.beside}, transform


def _numbers(head: HeadSpec) -> ImageInput:
    return ImageInput(head.input_scale, head.mean, head.std, head.channel_order)


def _class_names(head: HeadSpec, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if labels is None:
        return head.class_names
    if head.class_names and len(labels) != len(head.class_names):
        raise InvalidInputError(
            f"the labels file has {len(labels)} names, but the model detects "
            f"{len(head.class_names)} classes; give one name per line, in class order"
        )
    return labels


@contextmanager
def model_path(model: str | None) -> Iterator[str]:
    """The model's path; without one, that of the demo detector, also from a zipped package."""
    if model is not None:
        yield model
        return
    from importlib.resources import as_file, files

    demo = files("vkconv").joinpath("data", "demo.onnx")
    if not demo.is_file():
        raise InvalidModelError(
            "this installation holds no demo detector (vkconv/data/demo.onnx); name a model: "
            "vkconv-run MODEL IMAGE"
        )
    with as_file(demo) as path:
        yield os.fspath(path)


def _image_input(session: vkconv.InferenceSession, open_size: tuple[int, int]) -> _Input:
    """The one image input, of ``open_size`` (width, height) where the model leaves it open;
    InvalidInputError when there is none."""
    inputs = [session.image_inputs.get(arg.name, arg) for arg in session.get_inputs()]
    listed = ", ".join(f"'{value.name}' {value.type} {value.shape}" for value in inputs)
    wanted = "vkconv-run needs a model with one image input of shape (1, 3, H, W)"
    images = [value for value in inputs if value.name != SIZES_INPUT]
    if len(images) != 1 or images[0].shape is None or len(images[0].shape) != 4:
        raise InvalidInputError(f"{wanted}, but its inputs are: {listed or 'none'}")
    (wanted_image,) = images
    batch, channels, height, width = wanted_image.shape
    if isinstance(batch, int) and batch != 1:
        raise InvalidInputError(
            f"{wanted}, but this one takes {batch} images at a time; export it with batch 1"
        )
    if isinstance(channels, int) and channels != 3:
        raise InvalidInputError(f"{wanted}, but its input is {listed}")
    if wanted_image.type not in _DTYPES:
        raise InvalidInputError(f"{wanted} of float or uint8, but its input is {listed}")
    chosen = (
        width if isinstance(width, int) else open_size[0],
        height if isinstance(height, int) else open_size[1],
    )
    if min(chosen) < 1 or max(chosen) > LARGEST_SIDE:
        raise InvalidInputError(f"{wanted} of 1 to {LARGEST_SIDE} pixels a side, not {listed}")
    beside = {v.name: np.array([chosen], np.int64) for v in inputs if v.name == SIZES_INPUT}
    return _Input(wanted_image.name, _DTYPES[wanted_image.type], chosen, beside)


def _output_shapes(session: vkconv.InferenceSession, port: _Input) -> dict[str, list[int]]:
    """The concrete shape of each output; the head, and with it how to feed the model, hangs on it.

    A model that leaves them open is run once, on an empty picture.
    """
    shapes: dict[str, list[int]] = {}
    for value in session.get_outputs():
        shape = [size for size in value.shape or [None] if isinstance(size, int)]
        if value.shape is None or len(shape) != len(value.shape):
            break
        shapes[value.name] = shape
    else:
        return shapes
    width, height = port.size
    if port.name in session.image_inputs:
        empty = np.zeros((1, height, width, 3), np.uint8)
    else:
        empty = np.zeros((1, 3, height, width), port.dtype)
    results = session.run(None, {port.name: empty, **port.beside})
    names = [value.name for value in session.get_outputs()]
    return {key: list(array.shape) for key, array in zip(names, results, strict=True)}
