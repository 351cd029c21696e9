"""Backgrounds for the demo scenes: landscapes, seas, an underwater view and printed patterns.

A backdrop is a float32 picture ``(h, w, 3)`` in 0..255 together with what the composition needs
to know about it: where the horizon is, what the ground is made of and where the light comes from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["Backdrop", "make_backdrop", "noise"]


@dataclass(frozen=True)
class Backdrop:
    """A background picture.

    ``horizon`` is a row in pixels (the top edge where there is none), ``light`` points towards
    the light, ``haze`` and ``ambient`` colour what stands far away and everything, respectively.
    """

    picture: np.ndarray
    ground: Literal["land", "sea", "none"]
    horizon: float
    light: tuple[float, float]
    haze: np.ndarray
    ambient: np.ndarray


def noise(
    rng: np.random.Generator, width: int, height: int, across: float, down: float, octaves: int = 4
) -> np.ndarray:
    """Smooth noise ``(height, width)`` in about 0..1: octaves of enlarged random grids.

    ``across`` and ``down`` are the grid cells over the picture in the first octave.
    """
    total, weight = np.zeros((height, width), np.float32), 0.0
    for octave in range(octaves):
        cells = (max(2, round(across * 2**octave)), max(2, round(down * 2**octave)))
        grid = Image.fromarray(rng.random((cells[1], cells[0]), np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.5**octave
        weight += 0.5**octave
    return total / weight


def _rgb(*values: int) -> np.ndarray:
    return np.array(values, np.float32)


def _over(picture: np.ndarray, color: np.ndarray, amount: np.ndarray) -> None:
    """Blend ``color`` (broadcast to ``(h, w, 3)``) over ``picture`` in place."""
    picture += (color - picture) * amount[..., None]


# Sky at the zenith and at the horizon, clouds, and the colour of the light on everything.
SKIES = (
    (_rgb(70, 148, 220), _rgb(200, 228, 244), _rgb(255, 255, 255), _rgb(255, 253, 248)),
    (_rgb(38, 110, 190), _rgb(160, 208, 236), _rgb(250, 250, 252), _rgb(255, 252, 244)),
    (_rgb(94, 100, 168), _rgb(252, 190, 140), _rgb(255, 206, 186), _rgb(255, 228, 206)),
    (_rgb(150, 178, 200), _rgb(226, 230, 230), _rgb(240, 242, 244), _rgb(236, 240, 244)),
    (_rgb(120, 190, 210), _rgb(252, 236, 200), _rgb(255, 246, 230), _rgb(255, 246, 228)),
    (_rgb(22, 26, 66), _rgb(110, 90, 140), _rgb(110, 108, 150), _rgb(172, 176, 226)),
)
GROUNDS = (
    (_rgb(150, 186, 98), _rgb(84, 140, 56)),  # meadow
    (_rgb(176, 196, 104), _rgb(116, 152, 58)),  # dry grass
    (_rgb(236, 212, 160), _rgb(214, 178, 118)),  # sand
    (_rgb(222, 232, 242), _rgb(244, 248, 252)),  # snow
    (_rgb(126, 164, 116), _rgb(58, 108, 70)),  # dark meadow
)
SEAS = (
    (_rgb(96, 170, 204), _rgb(18, 92, 140)),
    (_rgb(120, 208, 206), _rgb(18, 130, 150)),
    (_rgb(140, 150, 190), _rgb(44, 62, 116)),
)
DEPTHS = (
    (_rgb(110, 214, 226), _rgb(10, 62, 116)),
    (_rgb(80, 190, 214), _rgb(16, 86, 96)),
)


def _sky(
    rng: np.random.Generator, width: int, height: int, horizon: float, night: bool, colors: tuple
) -> tuple[np.ndarray, tuple[float, float]]:
    """Sky down to the bottom edge, with a sun or moon and clouds; also the light's direction."""
    zenith, low, cloud, _ = colors
    unit = math.sqrt(width * height)
    y = np.linspace(0, 1, height, dtype=np.float32) * height / max(horizon, 1.0)
    ramp = np.clip(y, 0, 1)[:, None, None] ** 1.3
    picture = np.broadcast_to(zenith + (low - zenith) * ramp, (height, width, 3)).copy()
    sun_x, sun_y = rng.uniform(0.08, 0.92) * width, rng.uniform(0.08, 0.6) * horizon
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(columns - sun_x, rows - sun_y) / unit
    glow = _rgb(255, 250, 226) if not night else _rgb(214, 220, 255)
    if night:
        for _ in range(rng.integers(30, 70)):
            x, line = rng.integers(width), rng.integers(max(1, int(horizon)))
            picture[line, x] += rng.uniform(60, 150)
    _over(picture, glow, 0.55 * np.exp(-((distance / 0.16) ** 1.2)))
    _over(picture, glow, np.clip((rng.uniform(0.03, 0.05) - distance) * unit, 0, 1))
    drift = noise(rng, width, height, 3, 7, 5)
    cover = np.clip((drift - rng.uniform(0.5, 0.64)) * 5, 0, 1) * (1 - ramp[..., 0] ** 3)
    _over(picture, cloud, (rng.uniform(0.5, 0.95) * cover).astype(np.float32))
    side = (sun_x - width / 2) / width
    return picture, (1.2 * side / math.hypot(1.2 * side, 0.8), -0.8 / math.hypot(1.2 * side, 0.8))


def _ridges(
    rng: np.random.Generator,
    picture: np.ndarray,
    horizon: float,
    haze: np.ndarray,
    near: np.ndarray,
) -> None:
    """Two or three ranges of hills, paler the further away."""
    height, width, _ = picture.shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    layers = int(rng.integers(1, 4))
    rough = rng.choice([1, 4])
    for layer in range(layers):
        share = (layer + 1) / (layers + 1)
        profile = noise(rng, width, 2, rng.uniform(2, 6), 2, 2 + rough)[0]
        rise = (1 - share) * rng.uniform(0.25, 0.55) * horizon + 0.03 * height
        crest = horizon - rise * (0.25 + profile)
        color = haze + (near * 0.8 - haze) * (0.25 + 0.6 * share)
        _over(picture, color, np.clip(rows - crest[None, :], 0, 1))


def _landscape(rng: np.random.Generator, width: int, height: int, sea: bool) -> Backdrop:
    horizon = rng.uniform(0.3, 0.55) * height
    choice = int(rng.choice(len(SKIES), p=[0.26, 0.2, 0.17, 0.11, 0.16, 0.1]))
    colors = SKIES[choice]
    night = choice == 5
    picture, light = _sky(rng, width, height, horizon, night, colors)
    if sea:
        far, near = SEAS[rng.integers(len(SEAS))]
    else:
        far, near = GROUNDS[rng.choice(len(GROUNDS), p=[0.4, 0.2, 0.13, 0.12, 0.15])]
    if not sea or rng.random() < 0.5:
        _ridges(rng, picture, horizon, colors[1], _rgb(70, 110, 110) if sea else near)
    rows = np.arange(height, dtype=np.float32)[:, None]
    depth = np.clip((rows - horizon) / (height - horizon), 0, 1)
    ground = far + (near - far) * depth[..., None] ** 0.7
    if sea:
        ripple = noise(rng, width, height, 5, 40, 3) - 0.5
        fine = noise(rng, width, height, 16, 90, 2) - 0.5
        ground = ground + (90 * ripple * (0.3 + depth) + 70 * fine)[..., None]
        edge = np.clip(rows - horizon, 0, 1) * np.ones((1, width), np.float32)
    else:
        blades = noise(rng, width, height, width / 5, height / 12, 1) - 0.5
        ground = ground * (0.86 + 0.28 * noise(rng, width, height, 5, 8))[..., None]
        ground = ground + (26 * blades * depth)[..., None]
        roll = 0.04 * height * (noise(rng, width, 2, 3, 2, 2)[0] - 0.5)
        edge = np.clip(rows - horizon - roll[None, :], 0, 1)
    picture += (ground - picture) * edge[..., None]
    if not sea and rng.random() < 0.55:
        picture = _flowers(rng, picture, horizon)
    return Backdrop(picture, "sea" if sea else "land", horizon, light, colors[1], colors[3] / 255.0)


def _flowers(rng: np.random.Generator, picture: np.ndarray, horizon: float) -> np.ndarray:
    """Scatter small blossoms and stones over the ground, larger towards the viewer."""
    height, width, _ = picture.shape
    sheet = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(sheet, "RGBA")
    colors = ((255, 246, 210), (250, 214, 90), (236, 130, 150), (170, 150, 220), (120, 110, 100))
    color = colors[rng.integers(5)]
    for _ in range(rng.integers(20, 90)):
        depth = rng.random() ** 0.6
        x, y = rng.uniform(0, width), horizon + 6 + depth * (height - horizon)
        r = math.sqrt(width * height) * (0.0015 + 0.005 * depth)
        canvas.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=(*color, 210))
    return np.asarray(sheet, np.float32)


def _underwater(rng: np.random.Generator, width: int, height: int) -> Backdrop:
    top, bottom = DEPTHS[rng.integers(len(DEPTHS))]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    picture = top + (bottom - top) * (rows / height)[..., None] ** 0.8
    lean = columns / width + 0.35 * rows / height
    rays = np.clip(np.sin(lean * rng.uniform(14, 26) + rng.uniform(0, 6)), 0, 1) ** 2
    rays *= np.clip(1 - rows / height, 0, 1)
    picture += (46 * rays * (0.4 + noise(rng, width, height, 6, 2)))[..., None]
    bed = height * (0.86 + 0.1 * (noise(rng, width, 2, 4, 2, 3)[0] - 0.5))
    sand = _rgb(206, 190, 140) * (0.7 + 0.4 * noise(rng, width, height, 20, 20))[..., None]
    picture += (sand - picture) * (0.75 * np.clip(rows - bed[None, :], 0, 1))[..., None]
    sheet = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(sheet, "RGBA")
    for _ in range(rng.integers(8, 30)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        r = math.sqrt(width * height) * rng.uniform(0.004, 0.016)
        canvas.ellipse((x - r, y - r, x + r, y + r), outline=(235, 250, 255, 120))
    return Backdrop(
        np.asarray(sheet, np.float32), "none", 0.0, (-0.3, -0.95), bottom, _rgb(228, 250, 255) / 255
    )


def _pattern(rng: np.random.Generator, width: int, height: int) -> Backdrop:
    """Wallpaper: stripes, dots, checks, waves, marble or a plain gradient in two colours."""
    # Muted colours: a random direction in colour space, pulled towards grey.
    bright, hue = rng.uniform(90, 235), rng.uniform(-1, 1, 3)
    first = (bright * (1 + rng.uniform(0.05, 0.3) * hue)).astype(np.float32)
    second = first * rng.uniform(0.72, 1.2) + rng.uniform(-16, 16, 3).astype(np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    turn, pitch = rng.uniform(0, math.pi), math.sqrt(width * height) * rng.uniform(0.03, 0.16)
    along = (columns * math.cos(turn) + rows * math.sin(turn)) / pitch
    across = (-columns * math.sin(turn) + rows * math.cos(turn)) / pitch
    sharp = pitch / math.pi
    match rng.integers(6):
        case 0:
            wave = np.sin(math.pi * along) * sharp
        case 1:
            wave = (0.3 - np.hypot(along % 1 - 0.5, across % 1 - 0.5)) * pitch
        case 2:
            wave = np.sin(math.pi * along) * np.sin(math.pi * across) * sharp
        case 3:
            wave = np.sin(math.pi * (along + 0.4 * np.sin(across * 2))) * sharp
        case 4:
            wave = (noise(rng, width, height, 4, 4, 5) - 0.5) * rng.uniform(4, 14)
        case _:
            wave = (along - along.mean()) / np.ptp(along) * 2
    blend = np.clip(0.5 + 0.5 * wave, 0, 1)[..., None]
    picture = first + (second - first) * blend
    picture *= (0.85 + 0.3 * noise(rng, width, height, 3, 3, 6))[..., None]
    side = rng.uniform(-0.8, 0.8)
    light = (side, -math.sqrt(1 - side * side))
    return Backdrop(picture, "none", 0.0, light, first, np.ones(3, np.float32))


def make_backdrop(rng: np.random.Generator, width: int, height: int) -> Backdrop:
    """A random background of the given size in pixels."""
    kind = rng.random()
    if kind < 0.4:
        return _landscape(rng, width, height, sea=False)
    if kind < 0.62:
        return _landscape(rng, width, height, sea=True)
    if kind < 0.74:
        return _underwater(rng, width, height)
    return _pattern(rng, width, height)
