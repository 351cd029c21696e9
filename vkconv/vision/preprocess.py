"""From an image file to the tensor a detector takes, and the way back for its boxes.

Knows pictures and arrays only: no model, no session, no device.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vkconv.errors import InvalidInputError
from vkconv.vision.head_kinds import Fit

__all__ = ["Letterbox", "image_to_tensor", "letterbox", "load_image"]

PAD_GRAY = 114
"""The gray around a letterboxed picture: what YOLOv3 and its successors are trained with."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a source picture was placed into the model's input; sizes are (width, height) in pixels.

    ``input = source * scale + (left, top)`` for each axis. Unless the picture is stretched, the two
    scales differ by the rounding to whole pixels only; keeping both makes the way back exact.
    """

    source_size: tuple[int, int]
    input_size: tuple[int, int]
    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_input(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Corners (M, 4) in source pixels -> corners (M, 4) float32 in input pixels."""
        scale = np.array([self.scale_x, self.scale_y] * 2)
        offset = np.array([self.left, self.top] * 2)
        placed: NDArray[np.float32] = (boxes * scale + offset).astype(np.float32)
        return placed

    def to_source(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Corners (M, 4) in input pixels -> corners (M, 4) float32 in source pixels.

        Clipped to the picture: a box in the padding alone becomes one without area.
        """
        scale = np.array([self.scale_x, self.scale_y] * 2)
        offset = np.array([self.left, self.top] * 2)
        limit = np.array(self.source_size * 2, dtype=np.float64)
        source: NDArray[np.float32] = np.clip((boxes - offset) / scale, 0.0, limit).astype(
            np.float32
        )
        return source


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read a picture as 8-bit RGB, turned upright by its EXIF orientation.

    Transparent parts become white; 16-bit gray keeps its upper 8 bits; of an animation, the first
    frame is taken. Pillow's limit against decompression bombs stays in force. Raises
    InvalidInputError, in one line with the cause, for whatever cannot be read.
    """
    name = os.fspath(path)
    if os.path.isdir(name):
        raise InvalidInputError(f"'{name}' is a folder; give one image file")
    if os.path.exists(name) and not os.path.isfile(name):
        # Opening a pipe would wait for ever, and pictures are read with seeks.
        raise InvalidInputError(f"'{name}' is not a regular file; save the image to one first")
    try:
        with warnings.catch_warnings():
            # Between one and two times Image.MAX_IMAGE_PIXELS Pillow only warns; large photographs
            # are legitimate. Beyond it raises, which is handled below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Odd EXIF and palettes warn too; the picture that comes out is what counts.
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(name) as image:
                image.load()
                return _to_rgb(_upright(image))
    except FileNotFoundError:
        raise InvalidInputError(f"no such image file: '{name}'") from None
    except PermissionError:
        raise InvalidInputError(f"no permission to read the image '{name}'") from None
    except UnidentifiedImageError:
        raise InvalidInputError(
            f"'{name}' is not an image that can be read; give a PNG, JPEG, WebP, BMP or TIFF file"
        ) from None
    except Image.DecompressionBombError:
        limit = (Image.MAX_IMAGE_PIXELS or 0) * 2 // 1_000_000
        raise InvalidInputError(
            f"'{name}' has more than {limit} million pixels; make it smaller first"
        ) from None
    except MemoryError:
        raise InvalidInputError(f"'{name}' does not fit in memory; make it smaller first") from None
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, KeyError and more on
    # damaged files; to the caller they are all the same thing.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise InvalidInputError(f"cannot read the image '{name}': {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInputError(
            f"the image '{name}' is damaged ({reason}); export or download it again"
        ) from error


def letterbox(
    image: Image.Image, input_size: tuple[int, int], *, fit: Fit = "center"
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Put a picture into ``input_size`` (width, height).

    Returns (height, width, 3) uint8 RGB and the transform. ``fit`` "center" (YOLOv5, v7, v8) and
    "corner" (YOLOX) keep the aspect and pad the rest gray, on both sides or right and below;
    "stretch" (RT-DETR) fills the input. Bilinear; when shrinking, Pillow averages over the covered
    source pixels, which keeps small objects from being skipped over. Raises InvalidInputError for a
    size that is not positive.
    """
    width, height = input_size
    if width < 1 or height < 1:
        raise InvalidInputError(f"input size must be positive, not {width}x{height}")
    source_width, source_height = image.size
    ratio = min(width / source_width, height / source_height)
    inner_width = min(max(round(source_width * ratio), 1), width)
    inner_height = min(max(round(source_height * ratio), 1), height)
    if fit == "stretch":
        inner_width, inner_height = width, height
    left = (width - inner_width) // 2 if fit == "center" else 0
    top = (height - inner_height) // 2 if fit == "center" else 0

    rgb = _to_rgb(image)
    if rgb.size != (inner_width, inner_height):
        rgb = rgb.resize((inner_width, inner_height), Image.Resampling.BILINEAR)
    pixels = np.full((height, width, 3), PAD_GRAY, dtype=np.uint8)
    pixels[top : top + inner_height, left : left + inner_width] = np.asarray(rgb)
    transform = Letterbox(
        source_size=(source_width, source_height),
        input_size=(width, height),
        scale_x=inner_width / source_width,
        scale_y=inner_height / source_height,
        left=left,
        top=top,
    )
    return pixels, transform


def image_to_tensor(
    pixels: NDArray[np.uint8],
    *,
    dtype: DTypeLike = np.float32,
    scale: float = 1.0 / 255.0,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    channel_order: str = "rgb",
) -> NDArray[Any]:
    """(H, W, 3) uint8 RGB -> (1, 3, H, W) of ``dtype``, contiguous, as detectors take it.

    Float types hold ``(pixel * scale - mean) / std``, mean and std one number or one for each
    channel in the model's order; integer types hold the pixels as they are, for such models scale
    inside. ``channel_order`` is "rgb" or "bgr".
    """
    if channel_order not in ("rgb", "bgr"):
        raise InvalidInputError(f"channel_order must be 'rgb' or 'bgr', not '{channel_order}'")
    ordered = pixels[:, :, ::-1] if channel_order == "bgr" else pixels
    planes = np.ascontiguousarray(ordered.transpose(2, 0, 1)[np.newaxis])
    target = np.dtype(dtype)
    if target.kind != "f":
        return planes.astype(target, copy=False)
    # Scaled in float32 also for float16: 255 * scale must round once only. As on the device, one
    # factor and one offset for each channel.
    shift, spread = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (mean, std))
    factor, offset = (scale / spread).astype(np.float32), (-shift / spread).astype(np.float32)
    return (planes.astype(np.float32) * factor + offset).astype(target, copy=False)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    # EXIF is an annex of arbitrary bytes; when it is damaged the pixels are still good.
    except Exception:
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow would clip these to 255, turning a 16-bit picture white.
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        if values.max(initial=0.0) > 255.0:
            values = values / 256.0
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
