"""The small things the demo detector knows: fish, mushroom, umbrella and duck.

Same rules as in :mod:`vkconv.converters.demo_objects`.
"""

from __future__ import annotations

import math

import numpy as np

from vkconv.converters.demo_sprites import (
    BLACK,
    INK,
    WHITE,
    WOOD,
    Sprite,
    mix,
    pair,
    rounded,
)

__all__ = ["paint_duck", "paint_fish", "paint_mushroom", "paint_umbrella"]


def paint_fish(s: Sprite, rng: np.random.Generator) -> None:
    color, second = pair(rng)
    tall, fin = rng.uniform(0.34, 0.58), mix(color, second, 0.6)
    spread = tall * rng.uniform(0.8, 1.15)
    s.body(rounded([(-0.4, 0), (-0.75, -spread), (-1.05, -spread), (-0.84, 0), (-1.05, spread),
                    (-0.75, spread)], 2), fin)  # fmt: skip
    s.body(rounded([(0.35, -tall * 0.7), (0.0, -tall * 1.55), (-0.4, -tall * 1.35),
                    (-0.4, -tall * 0.4)], 2), fin)  # fmt: skip
    s.body(rounded([(0.1, tall * 0.7), (-0.2, tall * 1.35), (-0.3, tall * 0.5)], 2), fin)
    trunk = rounded([(0.98, 0.02), (0.6, -tall * 0.9), (0.0, -tall * 1.15), (-0.68, -0.18),
                     (-0.68, 0.18), (0.0, tall * 1.15), (0.6, tall * 0.9)], 3)  # fmt: skip
    s.body(trunk, color)
    with s.inside(trunk):
        s.detail(s.oval(0.1, tall * 1.0, 0.8, tall * 0.62), (*mix(color, WHITE, 0.6), 200))
        style = rng.integers(3)
        if style == 0:
            for x in (-0.38, -0.1, 0.2):
                s.detail(rounded([(x, -1), (x + 0.12, -1), (x + 0.18, 0), (x + 0.12, 1),
                                  (x, 1), (x + 0.06, 0)], 2), second)  # fmt: skip
        elif style == 1:
            for x in np.arange(-0.5, 0.35, 0.17):
                for y in (-0.24, -0.08, 0.08):
                    ring = s.oval(x + (0.08 if y == -0.08 else 0), y, 0.09)[:16] * (1, 1)
                    s.stroke(ring, 0.02, (*mix(second, BLACK, 0.2), 150))
        else:
            for _ in range(8):
                x, y = rng.uniform(-0.5, 0.3), rng.uniform(-tall * 0.8, tall * 0.4)
                s.detail(s.oval(x, y, rng.uniform(0.04, 0.09)), second)
    gill = s.oval(0.34, 0.0, 0.12, tall * 0.62)
    s.stroke(np.concatenate([gill[-8:], gill[:9]]), 0.03, (*mix(color, BLACK, 0.4), 190))
    s.detail(rounded([(0.2, 0.08), (-0.12, 0.0), (-0.16, 0.24), (0.02, 0.24)], 2),
             mix(fin, BLACK, 0.15))  # fmt: skip
    s.detail(s.oval(0.6, -tall * 0.28, 0.11), WHITE)
    s.detail(s.oval(0.63, -tall * 0.28, 0.06), BLACK)
    s.stroke([(0.84, 0.14), (0.72, 0.16)], 0.03, (*BLACK, 150))


def paint_mushroom(s: Sprite, rng: np.random.Generator) -> None:
    cap = [(204, 44, 44), (226, 110, 44), (150, 92, 60), (172, 70, 120), (92, 104, 170)][
        rng.choice(5, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    ]
    flesh = (246, 234, 212)
    thick, wide = rng.uniform(0.2, 0.34), rng.uniform(0.78, 0.98)
    brim, crown = rng.uniform(-0.05, 0.15), rng.uniform(-0.95, -0.7)
    stem = rounded(
        [
            (-thick * 0.8, brim - 0.1),
            (thick * 0.8, brim - 0.1),
            (thick * 0.9, 0.5),
            (thick * 1.45, 1.05),
            (-thick * 1.45, 1.05),
            (-thick * 0.9, 0.5),
        ],
        3,
    )
    s.body(stem, flesh)
    with s.inside(stem):
        s.detail(s.box(thick * 0.25, brim, 1, 1.1), (*WOOD, 60))
        s.detail(s.oval(0, brim + 0.08, thick * 1.2, 0.16), (*BLACK, 60))
    s.body(s.oval(0, brim, wide * 0.9, 0.17), mix(flesh, WOOD, 0.25))
    for x in np.linspace(-0.7, 0.7, 9):
        s.stroke([(x * 0.4, brim + 0.1), (x * wide, brim)], 0.015, (*WOOD, 120))
    dome = rounded(
        [
            (-wide, brim + 0.06),
            (-wide, brim + 0.06),
            (-wide * 0.95, brim - 0.35),
            (-wide * 0.5, crown),
            (wide * 0.5, crown),
            (wide * 0.95, brim - 0.35),
            (wide, brim + 0.06),
            (wide, brim + 0.06),
            (0, brim - 0.1),
        ],
        3,
    )
    s.body(dome, cap)
    with s.inside(dome):
        s.detail(s.oval(0, brim + 0.2, wide * 1.1, 0.3), (*mix(cap, BLACK, 0.5), 90))
        if rng.random() < 0.8:
            spots = (
                (0.0, 0.3, 0.15),
                (-0.45, 0.45, 0.12),
                (0.46, 0.5, 0.13),
                (-0.2, 0.72, 0.1),
                (0.22, 0.75, 0.11),
                (-0.78, 0.8, 0.09),
                (0.8, 0.84, 0.08),
            )
            for x, down, r in spots:
                y = crown + 0.05 + down * (brim - crown)
                r *= rng.uniform(0.7, 1.15)
                s.detail(s.oval(x * wide + rng.uniform(-0.05, 0.05), y, r, r * 0.85), flesh)


def paint_umbrella(s: Sprite, rng: np.random.Generator) -> None:
    first, second = pair(rng)
    if rng.random() < 0.35:
        second = mix(first, WHITE, 0.3)
    rim, tall, wide = rng.uniform(-0.1, 0.08), rng.uniform(0.62, 0.8), rng.uniform(0.86, 0.98)
    grip = mix(WOOD, BLACK, rng.uniform(0, 0.5))
    hook = s.oval(0.14, 0.8, 0.14)[:17]
    s.stroke([(0, rim - tall - 0.1), (0, 0.8)], 0.045, grip, body=True)
    s.stroke(hook, 0.06, grip, body=True)
    panels = int(rng.choice([5, 6, 7]))
    edges = np.sin(np.linspace(-math.pi / 2, math.pi / 2, panels + 1))
    climb = np.linspace(0.0, 1.0, 14)
    dome = np.sqrt(np.clip(1 - climb**2, 0, 1))
    for i in range(panels):
        left = np.stack([edges[i] * wide * dome, rim - tall * climb], axis=1)
        right = np.stack([edges[i + 1] * wide * dome, rim - tall * climb], axis=1)[::-1]
        t = np.linspace(1.0, 0.0, 8)[1:-1]
        # Each panel hangs between two ribs, so its rim is a shallow arch.
        arch = np.stack(
            [
                (edges[i] + (edges[i + 1] - edges[i]) * t) * wide,
                rim - 0.36 * (edges[i + 1] - edges[i]) * 4 * t * (1 - t),
            ],
            axis=1,
        )
        color = (first, second)[i % 2]
        s.body(np.concatenate([left, right, arch]), mix(color, BLACK, 0.05 * (i % 3)))
        s.stroke(left, 0.015, (*mix(color, BLACK, 0.5), 120))
    s.stroke([(0, rim - tall - 0.1), (0, rim - tall)], 0.05, INK, body=True)


def paint_duck(s: Sprite, rng: np.random.Generator) -> None:
    feather = [(250, 206, 60), (248, 244, 232), (240, 150, 168), (118, 186, 226), (150, 108, 74)][
        rng.choice(5, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    ]
    hood = (32, 110, 82) if feather[0] == 150 else feather
    beak = mix((240, 126, 34), (214, 60, 40), rng.random() * 0.6)
    s.body(rounded([(0.5, -0.5), (0.96, -0.4), (1.0, -0.3), (0.9, -0.22), (0.5, -0.24)], 2), beak)
    s.stroke([(0.6, -0.35), (0.92, -0.33)], 0.02, (*BLACK, 110))
    trunk = rounded(
        [
            (0.62, 0.1),
            (0.66, 0.5),
            (0.3, 0.86),
            (-0.4, 0.88),
            (-0.86, 0.5),
            (-1.08, -0.16),
            (-0.6, 0.12),
            (-0.2, 0.16),
            (0.1, -0.1),
        ],
        3,
    )
    s.body(trunk, feather)
    s.body(s.oval(0.34, -0.4, 0.37 * rng.uniform(0.92, 1.08)), hood)
    if hood != feather:
        s.stroke([(0.02, -0.1), (0.3, 0.0), (0.6, -0.1)], 0.07, WHITE)
    with s.inside(trunk):
        s.detail(s.oval(0, 1.0, 1.0, 0.3), (*mix(feather, BLACK, 0.4), 90))
    wing = rounded([(0.24, 0.3), (-0.05, 0.62), (-0.5, 0.52), (-0.72, 0.14), (-0.1, 0.2)], 3)
    s.detail(wing, mix(feather, (150, 90, 40), 0.28))
    s.stroke([(-0.5, 0.36), (-0.1, 0.46)], 0.025, (*mix(feather, BLACK, 0.5), 120))
    s.detail(s.oval(0.45, -0.48, 0.1), WHITE)
    s.detail(s.oval(0.48, -0.48, 0.065), BLACK)
    s.detail(s.oval(0.5, -0.51, 0.022), WHITE)
    if rng.random() < 0.3:
        s.detail(s.oval(0.42, -0.24, 0.07, 0.05), (236, 120, 110, 150))
