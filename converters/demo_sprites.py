"""A tiny vector painter: antialiased, shaded sprites with an exact outline.

A :class:`Sprite` is a square sheet with the local coordinates -1..1 (x to the right, y down).
Shapes are filled polygons drawn with Pillow at two to four times the final resolution;
:meth:`Sprite.finish` averages them down, shades the result like a soft solid lit from one side,
and crops it to its extent. ``body`` shapes define the outline, ``detail`` shapes only repaint
what is already there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["COVERAGE", "Color", "Drawn", "Sprite", "mix", "pair", "rounded", "tint"]

Color = tuple[int, ...]
Points = Sequence[tuple[float, float]] | np.ndarray

# A pixel belongs to the object when its coverage is above this; thin masts and ropes are about
# one pixel wide and must still count.
COVERAGE = 0.35

WHITE, BLACK, INK = (250, 249, 244), (18, 20, 26), (44, 42, 52)
GLASS, WOOD, GOLD = (170, 214, 232), (124, 84, 56), (247, 198, 72)
PALETTE: tuple[Color, ...] = (
    (228, 87, 46), (243, 167, 18), (42, 157, 143), (51, 66, 128), (78, 165, 217),
    (176, 52, 72), (132, 204, 158), (121, 92, 140), (232, 122, 128), (250, 236, 204),
    (96, 150, 78), (168, 164, 226), (72, 191, 200), (214, 40, 57), (246, 246, 240),
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A finished sprite: premultiplied ``color`` (h, w, 3) in 0..255, ``alpha`` (h, w) in 0..1.

    Every border row and column of ``alpha`` has at least one pixel above :data:`COVERAGE`, so
    the array is the tight box of the object.
    """

    color: np.ndarray
    alpha: np.ndarray


def mix(first: Color, second: Color, amount: float) -> Color:
    """The colour ``amount`` (0..1) of the way from ``first`` to ``second``."""
    return tuple(round(a + (b - a) * amount) for a, b in zip(first[:3], second[:3], strict=True))


def rounded(points: Points, rounds: int = 3) -> np.ndarray:
    """Round the corners of a closed polygon, ``(n, 2) -> (n * 2**rounds, 2)``.

    Chaikin's corner cutting: each edge keeps its middle half. A point given twice stays sharper.
    """
    path = np.asarray(points, np.float64)
    for _ in range(rounds):
        following = np.roll(path, -1, axis=0)
        near, far = 0.75 * path + 0.25 * following, 0.25 * path + 0.75 * following
        path = np.stack([near, far], axis=1).reshape(-1, 2)
    return path


def tint(rng: np.random.Generator) -> Color:
    """A palette colour, slightly varied."""
    base = PALETTE[rng.integers(len(PALETTE))]
    return tuple(int(np.clip(v + rng.integers(-14, 15), 0, 255)) for v in base)


def pair(rng: np.random.Generator) -> tuple[Color, Color]:
    """Two colours that can be told apart."""
    first = tint(rng)
    while True:
        second = tint(rng)
        if sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 150:
            return first, second


class Sprite:
    """A sheet to draw one object on, ``pixels`` wide for the local range -1..1.

    ``angle`` (radians, clockwise on screen) and ``mirrored`` place everything that is drawn.
    """

    def __init__(self, pixels: float, angle: float = 0.0, mirrored: bool = False) -> None:
        self.pixels = pixels
        self.oversampling = 4 if pixels < 70 else 3 if pixels < 180 else 2
        self.scale = pixels / 2 * self.oversampling
        # A square turned by 45 degrees needs sqrt(2) times its side; a little more for lines.
        side = (math.ceil(pixels * 1.5) + 4) * self.oversampling
        self.middle = side / 2
        across = -1.0 if mirrored else 1.0
        cosine, sine = math.cos(angle), math.sin(angle)
        self.turn = np.array([[cosine * across, -sine], [sine * across, cosine]]).T * self.scale
        self.sheet = Image.new("RGB", (side, side))
        self.outline = Image.new("L", (side, side))

    def place(self, points: Points) -> list[tuple[float, float]]:
        """Local points to sheet pixels."""
        placed = np.asarray(points, np.float64) @ self.turn + self.middle
        return list(map(tuple, placed))

    def body(self, points: Points, color: Color) -> None:
        """Fill a polygon that is part of the object's outline."""
        placed = self.place(points)
        ImageDraw.Draw(self.sheet).polygon(placed, fill=color[:3])
        ImageDraw.Draw(self.outline).polygon(placed, fill=255)

    def detail(self, points: Points, color: Color) -> None:
        """Repaint a polygon inside the outline; a fourth colour value is its opacity."""
        ImageDraw.Draw(self.sheet, "RGBA").polygon(self.place(points), fill=color)

    @staticmethod
    def oval(x: float, y: float, wide: float, high: float | None = None) -> np.ndarray:
        """Points of an ellipse with the half axes ``wide`` and ``high``, ``(32, 2)``."""
        angle = np.linspace(0.0, 2.0 * math.pi, 32, endpoint=False)
        high = wide if high is None else high
        return np.stack([x + wide * np.cos(angle), y + high * np.sin(angle)], axis=1)

    @staticmethod
    def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """Corners of an upright rectangle, ``(4, 2)``."""
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])

    def stroke(self, points: Points, width: float, color: Color, body: bool = False) -> None:
        """An open line of local ``width`` with round ends, at least a pixel wide when finished."""
        placed = self.place(points)
        thick = max(round(width * self.scale), self.oversampling)
        canvases: list[tuple[ImageDraw.ImageDraw, Color | int]] = [
            (ImageDraw.Draw(self.sheet, "RGBA"), color)
        ]
        if body:
            canvases.append((ImageDraw.Draw(self.outline), 255))
        for canvas, fill in canvases:
            canvas.line(placed, fill=fill, width=thick, joint="curve")
            if body:
                for x, y in (placed[0], placed[-1]):
                    r = thick / 2
                    canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    @contextmanager
    def inside(self, points: Points) -> Iterator[None]:
        """Keep whatever is drawn in the block within the polygon ``points``."""
        before = self.sheet.copy()
        yield
        stencil = Image.new("L", self.sheet.size)
        ImageDraw.Draw(stencil).polygon(self.place(points), fill=255)
        self.sheet = Image.composite(self.sheet, before, stencil)

    def finish(self, light: tuple[float, float], relief: float = 0.3) -> Drawn:
        """Average down, shade and crop.

        ``light`` is the direction towards the light on screen, ``(x, y)`` of length 1. The blurred
        outline serves as a height map: where it falls off towards the light the surface faces
        the light and gets brighter by up to about ``relief``, on the far side darker.
        """
        sheet = self.sheet.reduce(self.oversampling)
        outline = self.outline.reduce(self.oversampling)
        alpha = np.asarray(outline, np.float32) / 255.0
        color = np.asarray(sheet, np.float32)
        radius = max(1.0, 0.07 * self.pixels)
        height = np.asarray(outline.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255.0
        slope_y, slope_x = np.gradient(height)
        facing = -(slope_x * light[0] + slope_y * light[1]) * radius * 2.0
        rows, columns = np.indices(alpha.shape, dtype=np.float32) / alpha.shape[0] - 0.5
        brightness = 1.0 + relief * facing + 0.35 * relief * (columns * light[0] + rows * light[1])
        color = np.minimum(color * brightness[..., None], 255.0 * alpha[..., None])
        kept = alpha > COVERAGE
        ys, xs = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
        window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        return Drawn(color[window], alpha[window])
