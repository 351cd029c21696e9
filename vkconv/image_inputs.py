"""Models fed with images: 8-bit pixels are uploaded as they are and normalised on the device.

    session = InferenceSession("detector.onnx", images=ImageInput(scale=1 / 255))
    session.run(None, {"images": pixels})  # uint8 (N, H, W, 3) where the model takes (N, 3, H, W)

A quarter of the bytes goes to the device, and the conversion to float, planes and normalised
values is one kernel. What it multiplies with and adds is data, not part of the plan: it may be
changed at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vkconv.errors import InvalidInputError
from vkconv.ir import Array, Graph, Node, TensorType, Value

#: what one vec4 holds, and dtypes of inputs that the kernel can feed
MOST_CHANNELS = 4
DTYPES = frozenset({"float32", "float16"})


@dataclass(frozen=True)
class ImageInput:
    """How a pixel becomes a number: ``(pixel * scale - mean) / std``, for each channel.

    mean, std: in the model's order of channels, one number or one for each. channel_order: the
    order in which the model takes them, "rgb" or "bgr"; the pixels are RGB.
    """

    scale: float = 1.0 / 255.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise InvalidInputError(
                f"channel_order must be 'rgb' or 'bgr', not '{self.channel_order}'"
            )
        for name in ("scale", "mean", "std"):
            given = getattr(self, name)
            try:
                values = np.atleast_1d(np.asarray(given, np.float64))
            except (TypeError, ValueError):
                values = np.array([np.nan])
            if not np.all(np.isfinite(values)) or (name == "std" and not np.all(values)):
                raise InvalidInputError(f"{name} {given} is no number to normalise by")

    def table(self, channels: int) -> Array:
        """(3, channels) float32: factor, offset and the pixel's channel for each of the model's."""
        rows = [np.atleast_1d(np.asarray(v, np.float64)) for v in (self.mean, self.std)]
        for name, row in zip(("mean", "std"), rows, strict=True):
            if row.shape not in ((1,), (channels,)):
                raise InvalidInputError(f"{name} has {row.size} numbers for {channels} channels")
        mean, std = rows
        order = np.arange(channels, dtype=np.float64)
        if self.channel_order == "bgr" and channels >= 3:
            order[:3] = order[2::-1]
        rows = [np.broadcast_to(r, channels) for r in (self.scale / std, -mean / std, order)]
        return np.stack(rows).astype(np.float32)


Wanted = ImageInput | Mapping[str, ImageInput] | None


def ports_of(name: str, type_: TensorType) -> list[tuple[str, TensorType]]:
    """What a plan takes for an image input of (static) ``type_``, (N, C, H, W): its pixels as words
    of four bytes, since an element on the device takes four; and the table."""
    words = TensorType("int32", (-(-type_.size // 4),))
    return [(name, words), (f"{name}/normalisation", TensorType("float32", (3, type_.dims[1])))]


def describe(wanted: Wanted) -> str:
    """Names what decides the plan: which inputs take images, not what is done to their pixels."""
    if wanted is None or isinstance(wanted, ImageInput):
        return "" if wanted is None else "every image"
    return repr(sorted(map(str, wanted)))


@dataclass
class _Input:
    """An input that takes images: where it stands, the model's type of it, what its pixels are
    normalised by, and the same as a table."""

    position: int
    name: str
    type: TensorType
    image: ImageInput
    table: Array

    @property
    def channels(self) -> int:
        return _channels(self.type)


class ImageInputs:
    """The inputs of a model that take images.

    wanted: one ImageInput for all inputs that can take images, or one for each by name.
    planned: where the model is a plan, the inputs that it takes pixels for, and no others can, with
    the numbers to normalise them by unless others are wanted.
    Raises InvalidInputError for a name that is no input, or one that takes no images.
    """

    def __init__(
        self,
        wanted: Wanted,
        inputs: Sequence[tuple[str, TensorType]],
        planned: Mapping[str, ImageInput] | None = None,
    ) -> None:
        fit = {
            name: position
            for position, (name, type_) in enumerate(inputs)
            if takes_images(type_) and (planned is None or name in planned)
        }
        if isinstance(wanted, ImageInput):
            wanted = dict.fromkeys(fit, wanted)
        self._inputs: dict[str, _Input] = {}
        for name, image in {**(planned or {}), **(wanted or {})}.items():
            if not isinstance(image, ImageInput):
                raise InvalidInputError(
                    f"images holds {type(image).__name__} for '{name}', not an ImageInput"
                )
            if name not in fit:
                listed = ", ".join(f"'{n}' {t}" for n, t in inputs)
                why = f"float32 or float16 of (N, C, H, W) with 1 to {MOST_CHANNELS} channels does"
                if planned is not None:
                    why = (
                        "a plan file takes what it was compiled for: compile the ONNX model with "
                        "'vkconv compile --images' (images=... in Python)"
                    )
                raise InvalidInputError(
                    f"input '{name}' takes no images; {why}; the inputs: {listed}"
                )
            type_ = inputs[fit[name]][1]
            table = image.table(_channels(type_))
            self._inputs[name] = _Input(fit[name], name, type_, image, table)

    def __bool__(self) -> bool:
        return bool(self._inputs)

    @property
    def model_types(self) -> dict[str, TensorType]:
        """The types that the model itself takes."""
        return {name: image.type for name, image in self._inputs.items()}

    @property
    def numbers(self) -> dict[str, ImageInput]:
        """What the pixels of each input are normalised by."""
        return {name: image.image for name, image in self._inputs.items()}

    def change(self, name: str, image: ImageInput) -> None:
        """Other numbers for an input, from the next run on."""
        if name not in self._inputs:
            raise InvalidInputError(
                f"input '{name}' was not opened for images; those that were: "
                f"{', '.join(self._inputs) or 'none'}"
            )
        known = self._inputs[name]
        known.table, known.image = image.table(known.channels), image

    def type_of(self, name: str, type_: TensorType) -> TensorType:
        """What the caller feeds: uint8 (N, H, W, C) for an input of images."""
        if name not in self._inputs or type_.shape is None:
            return type_
        n, c, h, w = type_.shape
        return TensorType("uint8", (n, h, w, c))

    def convert_on_device(self, graph: Graph) -> None:
        """Put the conversion in front of each input; the inputs have the callers' types, static."""
        added: list[Node] = []
        for image in self._inputs.values():
            pixels = graph.inputs[image.position]
            n, h, w, c = pixels.dims
            type_ = TensorType(image.type.dtype, (n, c, h, w))
            words, table = (Value(*port) for port in ports_of(image.name, type_))
            tensor = Value(f"{image.name}/tensor", type_)
            attributes = {"shape": type_.dims, "dtype": type_.dtype}
            name = f"{image.name}/ImageToTensor"
            node = Node("ImageToTensor", [words, table], [tensor], attributes, name, "vkconv", 1)
            added.append(node)
            graph.replace_value(pixels, tensor)
            graph.inputs[image.position] = words
            graph.inputs.append(table)
        graph.nodes = added + graph.nodes

    def feeds(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What the plan takes, of what the caller gives: words without a copy where they fit."""
        result = dict(arrays)
        for image in self._inputs.values():
            result[image.name] = _words(arrays[image.name])
            result[f"{image.name}/normalisation"] = image.table
        return result


def takes_images(type_: TensorType) -> bool:
    """Whether an input of this type may be fed with pixels instead."""
    shape = type_.shape
    return (
        type_.dtype in DTYPES
        and shape is not None
        and len(shape) == 4
        and isinstance(shape[1], int)
        and 1 <= shape[1] <= MOST_CHANNELS
    )


def _channels(type_: TensorType) -> int:
    channels = type_.shape[1] if type_.shape is not None else None
    assert isinstance(channels, int)
    return channels


def _words(pixels: Array) -> Array:
    """The bytes as int32, four in each."""
    flat = np.ascontiguousarray(pixels).reshape(-1)
    if flat.size % 4:
        flat = np.concatenate([flat, np.zeros(-flat.size % 4, np.uint8)])
    elif flat.ctypes.data % 4:
        flat = flat.copy()
    return flat.view(np.int32)
