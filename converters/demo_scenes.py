"""Procedural pictures with known boxes: the training and test data of the demo detector.

``generate_scene(seed, size)`` composes a backdrop and three to nine objects of ten classes, with
perspective, occlusion, shadows and reflections, and then varies light, contrast, sharpness and
sensor noise. NumPy and Pillow only; equal arguments give equal pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from vkconv.converters import demo_objects as large
from vkconv.converters import demo_small_objects as small
from vkconv.converters.demo_backdrops import Backdrop, make_backdrop, noise
from vkconv.converters.demo_sprites import Drawn, Sprite

__all__ = [
    "CLASS_NAMES", "EVALUATION_SEED", "EXAMPLE_SEED", "TRAINING_SEED", "draw_object",
    "generate_scene",
]  # fmt: skip

# First seeds of three ranges that never meet: at most a million scenes each.
TRAINING_SEED, EVALUATION_SEED, EXAMPLE_SEED = 1_000_000, 2_000_000, 3_000_000

# An object is kept when at least this share of it can be seen.
VISIBLE = 0.4


@dataclass(frozen=True)
class Kind:
    """How a class is drawn and placed: ``size`` is relative to the square root of the area,
    ``homes`` are the places it belongs to, ``lean`` the largest tilt in radians."""

    paint: Callable[[Sprite, np.random.Generator], None]
    size: float
    homes: tuple[str, ...]
    lean: float


KINDS = {
    "car": Kind(large.paint_car, 0.30, ("land",), 0.08),
    "house": Kind(large.paint_house, 0.36, ("land",), 0.02),
    "tree": Kind(large.paint_tree, 0.38, ("land",), 0.06),
    "boat": Kind(large.paint_boat, 0.34, ("sea",), 0.14),
    "balloon": Kind(large.paint_balloon, 0.34, ("air",), 0.12),
    "rocket": Kind(large.paint_rocket, 0.30, ("air",), 0.9),
    "fish": Kind(small.paint_fish, 0.22, ("sea",), 0.5),
    "mushroom": Kind(small.paint_mushroom, 0.20, ("land",), 0.1),
    "umbrella": Kind(small.paint_umbrella, 0.25, ("land", "air"), 0.5),
    "duck": Kind(small.paint_duck, 0.18, ("land", "sea"), 0.06),
}
CLASS_NAMES = tuple(KINDS)


@dataclass
class Placed:
    """A drawn object with the position of its box's top left corner, in pixels."""

    label: int
    drawn: Drawn
    left: int
    top: int
    depth: float
    home: str

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The unoccluded extent, ``(x1, y1, x2, y2)`` in pixels, right and bottom exclusive."""
        height, width = self.drawn.alpha.shape
        return self.left, self.top, self.left + width, self.top + height


def draw_object(
    name: str,
    pixels: float,
    seed: int | np.random.Generator,
    angle: float = 0.0,
    mirrored: bool = False,
    light: tuple[float, float] = (-0.6, -0.8),
) -> Drawn:
    """One object of the class ``name``, about ``pixels`` large, cropped to its extent."""
    rng = np.random.default_rng(seed)
    sprite = Sprite(pixels, angle, mirrored)
    KINDS[name].paint(sprite, rng)
    return sprite.finish(light)


def _window(
    left: int, top: int, height: int, width: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the picture and of the sprite for the part of the sprite inside the picture."""
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = max(y1, min(top + height, shape[0])), max(x1, min(left + width, shape[1]))
    return np.s_[y1:y2, x1:x2], np.s_[y1 - top : y2 - top, x1 - left : x2 - left]


def _paste(picture: np.ndarray, color: np.ndarray, alpha: np.ndarray, left: int, top: int) -> None:
    """Composite premultiplied ``color`` over ``picture`` in place."""
    target, source = _window(left, top, *alpha.shape, picture.shape)
    picture[target] += color[source] - picture[target] * alpha[source][..., None]


def _place(
    rng: np.random.Generator, backdrop: Backdrop, width: int, height: int, taken: list[Placed]
) -> Placed:
    """Draw one random object where it belongs (mostly) and where there is room (mostly)."""
    unit = math.sqrt(width * height)
    home = "air" if backdrop.ground == "none" or rng.random() < 0.28 else backdrop.ground
    anywhere = backdrop.ground == "none" or rng.random() < 0.12
    fitting = [n for n in CLASS_NAMES if anywhere or home in KINDS[n].homes]
    name = fitting[rng.integers(len(fitting))]
    kind = KINDS[name]
    crowded = rng.random() < 0.3
    for _ in range(12):
        if home == "air":
            depth = rng.random()
            span = height if backdrop.ground == "none" else backdrop.horizon * 1.1
            middle = rng.uniform(0.08, 0.92) * span
        else:
            depth = rng.random() ** 0.8
            middle = backdrop.horizon + (0.06 + 0.92 * depth) * (height - backdrop.horizon)
        across = rng.uniform(0.06, 0.94) * width
        pixels = kind.size * unit * (0.36 + 0.8 * depth) * math.exp(rng.normal(0, 0.16))
        pixels = float(np.clip(pixels, 0.08 * unit, 0.6 * unit))
        reach = pixels / 2
        lower = middle + reach if home == "air" else middle
        box = (across - reach, lower - pixels, across + reach, lower)
        if crowded or all(_overlap(box, other.box) < 0.18 for other in taken):
            break
    lean = 0.6 if anywhere else kind.lean
    drawn = draw_object(
        name, pixels, rng, rng.uniform(-lean, lean), bool(rng.random() < 0.5), backdrop.light
    )
    rows, columns = drawn.alpha.shape
    return Placed(
        CLASS_NAMES.index(name), drawn, round(across - columns / 2),
        round(lower - rows if home != "air" else middle - rows / 2), depth, home,
    )  # fmt: skip


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Shared area relative to the smaller of two boxes."""
    w = min(first[2], second[2]) - max(first[0], second[0])
    h = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return max(w, 0.0) * max(h, 0.0) / max(min(areas), 1.0)


def _visible(objects: list[Placed], width: int, height: int) -> list[Placed]:
    """The objects of a back-to-front list that enough can be seen of, in the same order.

    Goes from the front to the back; only objects that stay cover those behind them.
    """
    covered = np.zeros((height, width), np.float32)
    kept = []
    for item in reversed(objects):
        alpha = item.drawn.alpha
        target, source = _window(item.left, item.top, *alpha.shape, covered.shape)
        seen = float((alpha[source] * (1 - covered[target])).sum())
        if seen >= VISIBLE * float(alpha.sum()):
            covered[target] = np.maximum(covered[target], alpha[source])
            kept.append(item)
    return kept[::-1]


def _ground_it(picture: np.ndarray, item: Placed, backdrop: Backdrop) -> None:
    """The shadow or the reflection that ties an object to what is below or behind it."""
    alpha = item.drawn.alpha
    rows, columns = alpha.shape
    if item.home == "sea":
        reach = max(1, rows // 2)
        fade = np.linspace(0.34, 0.0, reach, dtype=np.float32)[:, None]
        flipped = np.s_[: -reach - 1 : -1]
        _paste(picture, item.drawn.color[flipped] * fade[..., None] * 0.8, alpha[flipped] * fade,
               item.left, item.top + rows)  # fmt: skip
        return
    if item.home == "land":
        wide, high = columns * 0.62, max(2.0, columns * 0.09)
        shift_x, shift_y = -backdrop.light[0] * columns * 0.16, 0.0
        y, x = np.ogrid[-high * 2 : high * 2, -wide * 1.4 : wide * 1.4]
        shadow = 0.42 * np.exp(-(((x / wide) ** 2 + (y / high) ** 2) ** 1.2) * 1.6)
        top = item.top + rows - high * 2.2
        left = item.left + columns / 2 - wide * 1.4
    elif backdrop.ground == "none":
        border = max(2, round(0.08 * max(rows, columns)))
        soft = Image.fromarray((np.pad(alpha, border * 2) * 255).astype(np.uint8))
        soft = soft.filter(ImageFilter.GaussianBlur(border * 0.8))
        shadow = np.asarray(soft, np.float32) / 255 * 0.4
        shift_x, shift_y = -backdrop.light[0] * border, -backdrop.light[1] * border
        left, top = item.left - border * 2, item.top - border * 2
    else:  # in the sky, where nothing is close enough to fall on
        return
    shadow = shadow.astype(np.float32)
    dark = np.zeros((*shadow.shape, 3), np.float32) + shadow[..., None] * (12, 16, 30)
    _paste(picture, dark.astype(np.float32), shadow, round(left + shift_x), round(top + shift_y))


def _develop(
    rng: np.random.Generator, picture: np.ndarray, light: tuple[float, float]
) -> Image.Image:
    """The camera's share: uneven light, vignette, contrast, saturation, blur and noise."""
    height, width, _ = picture.shape
    unit = math.sqrt(width * height)
    rows, columns = np.ogrid[:height, :width]
    x, y = (columns / width - 0.5).astype(np.float32), (rows / height - 0.5).astype(np.float32)
    shade = 1 + rng.uniform(0, 0.3) * (light[0] * x + light[1] * y)
    shade -= rng.uniform(0, 0.35) * (x * x + y * y)
    if rng.random() < 0.2:
        shade *= 0.75 + 0.4 * noise(rng, width, height, 2, 2, 1)
    picture = picture * shade[..., None]
    gray = picture.mean(axis=2, keepdims=True)
    picture = gray + (picture - gray) * rng.uniform(0.8, 1.2)
    picture = (picture - 128) * rng.uniform(0.85, 1.12) + 128 + rng.uniform(-14, 14)
    if rng.random() < 0.2:
        sheet = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        radius = rng.uniform(0.3, 1.1) * unit / 320
        picture = np.asarray(sheet.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    grain = rng.uniform(0, 3) if rng.random() < 0.7 else rng.uniform(3, 10)
    picture = picture + rng.standard_normal((height, width, 3), np.float32) * grain
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def generate_scene(
    seed: int, size: int | tuple[int, int] = 320
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture with its objects.

    Args:
        seed: any non-negative integer.
        size: side of a square picture, or ``(width, height)``, in pixels.

    Returns:
        The RGB picture uint8 ``(height, width, 3)``; the boxes float32 ``(n, 4)`` as x1, y1, x2,
        y2 in pixels, tight around each object as if nothing stood before it but cut at the
        border of the picture; the labels int64 ``(n,)``, indices into :data:`CLASS_NAMES`.
    """
    width, height = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(seed)
    backdrop = make_backdrop(rng, width, height)
    objects: list[Placed] = []
    for _ in range(int(rng.integers(3, 10))):
        objects.append(_place(rng, backdrop, width, height, objects))
    objects.sort(key=lambda item: (item.home != "air" if backdrop.ground != "none" else 0,
                                   item.depth))  # fmt: skip
    objects = _visible(objects, width, height)
    picture = backdrop.picture.astype(np.float32)
    for item in objects:
        _ground_it(picture, item, backdrop)
        alpha = item.drawn.alpha
        veil = 0.0 if backdrop.ground == "none" else 0.3 * (1 - item.depth)
        color = item.drawn.color * backdrop.ambient
        color = color + (backdrop.haze * alpha[..., None] - color) * np.float32(veil)
        _paste(picture, color, alpha, item.left, item.top)
    developed = _develop(rng, picture, backdrop.light)
    boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    labels = np.array([item.label for item in objects], np.int64)
    return np.asarray(developed), boxes, labels
