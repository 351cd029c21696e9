"""The large things the demo detector knows: car, house, tree, boat, balloon and rocket.

A drawing function takes the sprite and a random generator and paints one variant in the local
coordinates -1..1; proportions, colours and details vary with the generator.
"""

from __future__ import annotations

import math

import numpy as np

from vkconv.converters.demo_sprites import (
    BLACK,
    GLASS,
    GOLD,
    INK,
    WHITE,
    WOOD,
    Sprite,
    mix,
    pair,
    rounded,
    tint,
)

__all__ = ["paint_balloon", "paint_boat", "paint_car", "paint_house", "paint_rocket", "paint_tree"]


def paint_car(s: Sprite, rng: np.random.Generator) -> None:
    color, roof = tint(rng), rng.uniform(-0.52, -0.36)
    back, front = rng.uniform(-0.9, -0.4), rng.uniform(0.15, 0.4)
    hood = rng.uniform(-0.12, 0.0)
    for x in (-0.56, 0.56):
        s.body(s.oval(x, 0.3, 0.21), BLACK)
    hull = rounded(
        [(-1, 0.34), (-1, 0.0), (back - 0.1, hood - 0.06), (back + 0.08, roof), (front, roof),
         (front + 0.3, hood - 0.02), (0.96, hood + 0.07), (1, 0.34)], 3,
    )  # fmt: skip
    s.body(hull, color)
    with s.inside(hull):
        s.detail(s.box(-1, 0.2, 1, 0.4), mix(color, BLACK, 0.35))
        s.stroke([(-1, 0.1), (1, 0.1)], 0.02, (*mix(color, WHITE, 0.5), 160))
        s.detail(s.oval(0.95, 0.1, 0.09, 0.07), GOLD)
        s.detail(s.oval(-0.98, 0.08, 0.07, 0.08), (200, 30, 40))
    pillar = (back + front) / 2 + 0.08
    low = hood - 0.01
    for left, right, lean_left, lean_right in (
        (back + 0.08, pillar - 0.03, 0.09, 0.0),
        (pillar + 0.03, front + 0.2, 0.0, 0.2),
    ):
        window = [
            (left, low), (left + lean_left, roof + 0.07), (right - lean_right, roof + 0.07),
            (right, low),
        ]  # fmt: skip
        s.detail(window, mix(GLASS, BLACK, 0.3))
        with s.inside(window):
            s.stroke([(left, low), (right, roof - 0.05)], 0.07, (*WHITE, 90))
    s.stroke([(pillar, hood), (pillar, 0.22)], 0.015, (*BLACK, 130))
    s.stroke([(pillar - 0.17, 0.04), (pillar - 0.07, 0.04)], 0.03, (*BLACK, 150))
    for x in (-0.56, 0.56):
        s.body(s.oval(x, 0.3, 0.19), INK)
        s.detail(s.oval(x, 0.3, 0.11), (205, 208, 214))
        s.detail(s.oval(x, 0.3, 0.04), INK)


def paint_house(s: Sprite, rng: np.random.Generator) -> None:
    wall, roof = pair(rng)
    wall = mix(wall, (255, 246, 226), rng.uniform(0.35, 0.75))
    roof = mix(roof, (120, 50, 40), rng.uniform(0.1, 0.5))
    half, eaves = rng.uniform(0.6, 0.84), rng.uniform(-0.2, 0.12)
    flat = rng.uniform(0.0, 0.45) * (rng.random() < 0.5)
    x = rng.choice([-1, 1]) * half * 0.55
    s.body(s.box(x - 0.1, -0.86, x + 0.1, eaves), mix(roof, BLACK, 0.3))
    walls = s.box(-half, eaves - 0.05, half, 1.0)
    s.body(walls, wall)
    with s.inside(walls):
        for y in np.arange(eaves + 0.1, 1.0, 0.13):
            s.stroke([(-1, y), (1, y)], 0.012, (*mix(wall, BLACK, 0.35), 90))
        s.detail(s.box(-1, eaves, 1, eaves + 0.1), (*BLACK, 60))
    top = [(-half - 0.14, eaves), (-flat, -0.92), (flat, -0.92), (half + 0.14, eaves)]
    s.body(top, roof)
    with s.inside(top):
        for y in np.arange(-0.8, eaves, 0.14):
            s.stroke([(-1, y), (1, y)], 0.02, (*mix(roof, BLACK, 0.5), 110))
    lamp = GOLD if rng.random() < 0.35 else GLASS
    spots = [(-half * 0.55, eaves + 0.38), (half * 0.55, eaves + 0.38)]
    if flat < 0.1 and eaves > -0.1:
        s.detail(s.oval(0, eaves - 0.32, 0.12), WHITE)
        s.detail(s.oval(0, eaves - 0.32, 0.09), lamp)
    for wx, wy in spots:
        s.detail(s.box(wx - 0.17, wy - 0.18, wx + 0.17, wy + 0.18), WHITE)
        s.detail(s.box(wx - 0.13, wy - 0.14, wx + 0.13, wy + 0.14), mix(lamp, BLACK, 0.15))
        s.stroke([(wx, wy - 0.15), (wx, wy + 0.15)], 0.03, WHITE)
        s.stroke([(wx - 0.15, wy), (wx + 0.15, wy)], 0.03, WHITE)
    door = mix(tint(rng), BLACK, 0.2)
    s.detail(s.box(-0.17, 0.44, 0.17, 1.0), WHITE)
    s.detail(s.box(-0.13, 0.48, 0.13, 1.0), door)
    s.detail(s.oval(0.08, 0.76, 0.03), GOLD)


def paint_tree(s: Sprite, rng: np.random.Generator) -> None:
    bark = mix(WOOD, BLACK, rng.uniform(0, 0.3))
    if rng.random() < 0.4:  # a conifer
        leaf = mix((34, 94, 66), (70, 130, 90), rng.random())
        snow = rng.random() < 0.25
        s.body(s.box(-0.09, 0.6, 0.09, 1.0), bark)
        tiers = int(rng.integers(3, 5))
        for i in range(tiers):
            wide = 0.72 - 0.42 * i / tiers
            low, high = 0.72 - 1.3 * i / tiers, 0.72 - 1.3 * (i + 1.35) / tiers
            high = max(high, -1.0)
            x = np.linspace(-wide, wide, 9)
            edge = [(v, low + (0.08 if k % 2 else 0.0)) for k, v in enumerate(x)]
            s.body([(0, high), *edge[::-1]], mix(leaf, BLACK, 0.18 * (tiers - i) / tiers))
            s.detail([(0, high), (-wide * 0.9, low), (-wide * 0.3, low)], (*WHITE, 24))
            if snow:
                s.detail([(0, high), (wide * 0.35, low - 0.22), (0, low - 0.14),
                          (-wide * 0.4, low - 0.2)], WHITE)  # fmt: skip
        return
    leaf = [(88, 148, 62), (62, 124, 70), (126, 166, 66), (222, 132, 48), (236, 158, 176),
            (196, 76, 50)][rng.choice(6, p=[0.28, 0.24, 0.18, 0.12, 0.1, 0.08])]  # fmt: skip
    s.body([(-0.12, 1.0), (-0.07, 0.1), (0.07, 0.1), (0.13, 1.0)], bark)
    s.stroke([(0, 0.45), (0.3, 0.1)], 0.07, bark, body=True)
    count, turn = int(rng.integers(6, 9)), rng.uniform(0, 6)
    puffs = [(0.0, -0.35, 0.5)]
    for i in range(count):
        a = turn + 2 * math.pi * i / count
        puffs.append((0.43 * math.cos(a), -0.36 + 0.3 * math.sin(a), rng.uniform(0.24, 0.34)))
    for x, y, r in puffs:
        s.body(s.oval(x, y, r), mix(leaf, BLACK, 0.22))
    for x, y, r in puffs:
        s.detail(s.oval(x - 0.05, y - 0.06, r * 0.78), leaf)
    for x, y, r in puffs:
        s.detail(s.oval(x - 0.09, y - 0.1, r * 0.42), (*mix(leaf, GOLD, 0.35), 190))
    if rng.random() < 0.3:
        for _ in range(7):
            x, y = rng.uniform(-0.45, 0.45), rng.uniform(-0.7, 0.0)
            s.detail(s.oval(x, y, 0.06), (206, 40, 48))


def paint_boat(s: Sprite, rng: np.random.Generator) -> None:
    hull_color, sail = tint(rng), mix(tint(rng), WHITE, rng.choice([0.0, 0.5, 0.85]))
    s.stroke([(0, 0.6), (0, -0.94)], 0.05, mix(WOOD, BLACK, 0.1), body=True)
    s.body([(0, -0.98), (0.26, -0.9), (0, -0.8)], tint(rng))
    reach = rng.uniform(0.55, 0.85)
    main = rounded([(0.06, -0.78), (0.06, -0.78), (reach * 0.75, -0.1), (reach, 0.42),
                    (reach, 0.42), (0.06, 0.46), (0.06, 0.46)], 2)  # fmt: skip
    jib = rounded([(-0.06, -0.66), (-0.06, -0.66), (-0.06, 0.44), (-0.06, 0.44),
                   (-reach * 0.8, 0.4), (-reach * 0.8, 0.4), (-0.36, -0.1)], 2)  # fmt: skip
    s.body(main, sail)
    s.body(jib, mix(sail, WHITE, 0.35))
    if rng.random() < 0.5:
        stripe = tint(rng)
        with s.inside(main):
            for y in (-0.35, -0.05, 0.25):
                s.detail([(-1, y), (1, y - 0.1), (1, y + 0.02), (-1, y + 0.12)], stripe)
    hull = rounded([(-0.95, 0.5), (-0.95, 0.5), (0.98, 0.46), (0.98, 0.46), (0.7, 0.98),
                    (-0.62, 0.98)], 2)  # fmt: skip
    s.body(hull, hull_color)
    with s.inside(hull):
        s.detail(s.box(-1, 0.44, 1, 0.58), mix(hull_color, WHITE, 0.75))
        s.detail(s.box(-1, 0.84, 1, 1.0), mix(hull_color, BLACK, 0.45))
    if rng.random() < 0.6:
        for x in (-0.4, -0.05, 0.3):
            s.detail(s.oval(x, 0.7, 0.065), WHITE)
            s.detail(s.oval(x, 0.7, 0.04), INK)


def paint_balloon(s: Sprite, rng: np.random.Generator) -> None:
    first, second = pair(rng)
    third = tint(rng) if rng.random() < 0.4 else first
    for x in (-0.15, 0.15):
        s.stroke([(x * 1.3, 0.38), (x * 0.9, 0.8)], 0.02, mix(WOOD, BLACK, 0.4), body=True)
    # Half width over height: a circle that tapers to the throat.
    y = np.linspace(-0.98, 0.48, 24)
    radius = rng.uniform(0.62, 0.72)
    angle = np.clip((y + 0.98) / 1.46, 0, 1)
    half = radius * np.sin(np.pi * angle**0.78) ** 0.72 * (1 - 0.12 * angle) + 0.17 * angle
    gores = int(rng.integers(6, 10))
    edges = np.sin(np.linspace(-math.pi / 2, math.pi / 2, gores + 1))
    for i in range(gores):
        left = np.stack([edges[i] * half, y], axis=1)
        right = np.stack([edges[i + 1] * half, y], axis=1)[::-1]
        color = (first, second, third, second)[i % 4]
        s.body(np.concatenate([left, right]), color)
    envelope = np.concatenate([np.stack([-half, y], 1), np.stack([half, y], 1)[::-1]])
    if rng.random() < 0.5:
        band = tint(rng)
        with s.inside(envelope):
            x = np.linspace(-0.8, 0.8, 17)
            zigzag = np.where(np.arange(17) % 2, 0.05, -0.07)
            ring = np.concatenate([np.stack([x, zigzag - 0.36], 1),
                                   np.stack([x, -zigzag - 0.12], 1)[::-1]])  # fmt: skip
            s.detail(ring, band)
    with s.inside(envelope):
        s.detail(s.oval(-0.28, -0.55, 0.1, 0.24), (*WHITE, 70))
    basket = rounded([(-0.17, 0.74), (-0.17, 0.74), (0.17, 0.74), (0.17, 0.74), (0.13, 1.0),
                      (-0.13, 1.0)], 2)  # fmt: skip
    s.body(basket, WOOD)
    with s.inside(basket):
        s.detail(s.box(-0.2, 0.72, 0.2, 0.8), mix(WOOD, GOLD, 0.4))
        for level in (0.86, 0.93):
            s.stroke([(-0.2, level), (0.2, level)], 0.015, (*BLACK, 120))


def paint_rocket(s: Sprite, rng: np.random.Generator) -> None:
    shell = mix(tint(rng), WHITE, rng.choice([0.1, 0.85]))
    accent = tint(rng)
    if sum(abs(a - b) for a, b in zip(shell, accent, strict=True)) < 110:
        accent = (214, 40, 57)
    if rng.random() < 0.75:
        flare = rng.uniform(0.85, 1.0)
        for wide, reach, color in ((0.2, flare, (238, 92, 42)), (0.12, flare - 0.12, GOLD)):
            s.body(rounded([(-wide, 0.5), (wide, 0.5), (wide, 0.65), (0, reach), (0, reach),
                            (-wide, 0.65)], 2), color)  # fmt: skip
    wide, dark = rng.uniform(0.22, 0.32), mix(accent, BLACK, 0.15)
    for side in (-1, 1):
        s.body(rounded([(side * wide * 0.7, 0.05), (side * (wide + 0.3), 0.45),
                        (side * (wide + 0.3), 0.72), (side * (wide + 0.28), 0.72),
                        (side * wide * 0.5, 0.5)], 2), dark)  # fmt: skip
    s.body(s.box(-wide * 0.6, 0.45, wide * 0.6, 0.6), INK)
    tube = rounded([(0, -1.06), (0, -1.0), (wide * 1.05, -0.5), (wide * 1.1, 0.1),
                    (wide * 0.7, 0.55), (wide * 0.7, 0.55), (-wide * 0.7, 0.55),
                    (-wide * 0.7, 0.55), (-wide * 1.1, 0.1), (-wide * 1.05, -0.5)], 3)  # fmt: skip
    s.body(tube, shell)
    with s.inside(tube):
        s.detail(s.box(-1, -1.1, 1, -0.56), accent)
        if rng.random() < 0.6:
            s.detail(s.box(-1, 0.2, 1, 0.3), accent)
        s.detail(s.box(wide * 0.45, -1.1, 1, 0.6), (*BLACK, 40))
    s.detail(s.oval(0, -0.24, 0.15), mix(accent, INK, 0.6))
    s.detail(s.oval(0, -0.24, 0.11), GLASS)
    s.detail(s.oval(-0.03, -0.28, 0.04), WHITE)
    s.detail([(-0.04, 0.32), (0.04, 0.32), (0.04, 0.7), (-0.04, 0.7)], dark)
