"""Draw labelled boxes onto a picture, in its own pixels.

Lines and letters grow with the picture. A label sits where it hides the least: it stays inside the
picture and keeps clear of the labels of more confident boxes where it can.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from vkconv.vision.detections import Detections
from vkconv.vision.labels import class_name

__all__ = ["class_color", "draw_detections"]

Color: TypeAlias = tuple[int, int, int]
Rectangle: TypeAlias = tuple[int, int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Ten hues that stay apart from each other, also for most colour-blind eyes (the idea of Okabe and
# Ito, "Color Universal Design", 2008), and bright enough for both light and dark pictures.
_PALETTE: tuple[Color, ...] = (
    (255, 66, 77),
    (34, 139, 255),
    (255, 196, 0),
    (28, 190, 110),
    (255, 122, 24),
    (170, 92, 255),
    (0, 196, 214),
    (255, 84, 178),
    (158, 206, 20),
    (178, 120, 72),
)
_GOLDEN_ANGLE = 0.381966


def class_color(class_id: int) -> Color:
    """The RGB colour of a class, 0..255 each; the same in every picture."""
    if class_id < len(_PALETTE):
        return _PALETTE[class_id]
    # The golden angle never lands near an earlier hue for long; brightness tells near hues apart.
    step = class_id - len(_PALETTE)
    hue = (0.04 + step * _GOLDEN_ANGLE) % 1.0
    saturation, value = ((0.75, 1.0), (0.9, 0.75), (0.5, 0.95))[step % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: Image.Image, detections: Detections, class_names: Sequence[str]
) -> Image.Image:
    """A copy of ``image`` as RGB with each detection's box, class name and confidence.

    ``detections`` are in the pixels of ``image``. A class without a name is shown by its number.
    """
    canvas = image.convert("RGB").copy()
    width, height = canvas.size
    scale = (width * height) ** 0.5
    line = max(2 if scale >= 200 else 1, round(scale * 0.0035))
    font_size = max(11, round(scale * 0.021))

    order = sorted(range(len(detections)), key=lambda index: float(detections.scores[index]))
    boxes = [_box_pixels(detections.boxes[index], width, height) for index in range(len(order))]
    draw = ImageDraw.Draw(canvas, "RGBA")
    # The most confident box is drawn last, on top.
    for index in order:
        _draw_box(draw, boxes[index], class_color(int(detections.class_ids[index])), line)

    taken: list[Rectangle] = []
    # The most confident label chooses its place first.
    for index in reversed(order):
        class_id = int(detections.class_ids[index])
        text = f"{class_name(class_names, class_id)} {_percent(float(detections.scores[index]))}"
        font = _fitting_font(draw, text, font_size, width, height)
        label = _place_label(draw, text, font, boxes[index], line, taken, canvas.size)
        taken.append(label)
        _draw_label(draw, label, text, font, class_color(class_id))
    return canvas


def _percent(score: float) -> str:
    return f"{round(score * 100)}%"


def _box_pixels(box: Sequence[float], width: int, height: int) -> Rectangle:
    """Corners in source pixels -> first and last pixel of each axis, inside the picture."""
    left = min(max(round(float(box[0])), 0), width - 1)
    top = min(max(round(float(box[1])), 0), height - 1)
    right = min(max(round(float(box[2])) - 1, left), width - 1)
    bottom = min(max(round(float(box[3])) - 1, top), height - 1)
    return left, top, right, bottom


def _draw_box(draw: ImageDraw.ImageDraw, box: Rectangle, color: Color, line: int) -> None:
    left, top, right, bottom = box
    # A thin dark seam on both sides keeps the line visible on a background of its own colour.
    seam = max(1, line // 3)
    draw.rectangle(
        (left - seam, top - seam, right + seam, bottom + seam), outline=(0, 0, 0, 110), width=seam
    )
    inner = (left + line, top + line, right - line, bottom - line)
    if inner[2] - inner[0] > 2 * seam and inner[3] - inner[1] > 2 * seam:
        draw.rectangle(inner, outline=(0, 0, 0, 110), width=seam)
    draw.rectangle(box, outline=color, width=line)


def _fitting_font(draw: ImageDraw.ImageDraw, text: str, size: int, width: int, height: int) -> Font:
    """The font at ``size``, or smaller where the label would be larger than the picture."""
    while True:
        font = ImageFont.load_default(size)
        label_width, label_height = _label_size(draw, text, font)
        if size <= 6 or (label_width <= width and label_height <= height):
            return font
        size -= 1


def _label_size(draw: ImageDraw.ImageDraw, text: str, font: Font) -> tuple[int, int]:
    padding = _padding(font)
    # The height of tall and hanging letters, not of this text's: labels line up with each other.
    _, top, _, bottom = draw.textbbox((0, 0), "Ag|", font=font, anchor="ls")
    length = draw.textlength(text, font=font)
    return int(length + 0.999) + 2 * padding, int(bottom - top + 0.999) + 2 * padding - 1


def _padding(font: Font) -> int:
    return max(2, round(getattr(font, "size", 10) * 0.22))


def _place_label(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: Font,
    box: Rectangle,
    line: int,
    taken: Sequence[Rectangle],
    canvas: tuple[int, int],
) -> Rectangle:
    """Where the label goes: first and last pixel of each axis.

    Above the box if that is free, else inside its upper edge, below it, or inside its lower edge;
    if none is free, where it covers the least of other labels.
    """
    width, height = _label_size(draw, text, font)
    left, top, right, bottom = box
    places = [
        (x, y)
        for y in (top - height, top + line, bottom + 1, bottom - line - height + 1)
        for x in (left, right - width + 1)
    ]
    best, least = (0, 0, 0, 0), -1
    for x, y in places:
        inside_x = max(min(x, canvas[0] - width), 0)
        inside_y = max(min(y, canvas[1] - height), 0)
        label = (inside_x, inside_y, inside_x + width - 1, inside_y + height - 1)
        # A place that had to be moved up or down to stay inside may cover the box's own line.
        moved = abs(inside_y - y) * width
        covered = sum(_shared_area(label, other) for other in taken) * 2 + moved
        if 3 * width * height > (right - left + 1) * (bottom - top + 1):
            # On a small box the label would hide the object itself.
            covered += _shared_area(label, box)
        if least < 0 or covered < least:
            best, least = label, covered
        if covered == 0:
            break
    return best


def _shared_area(one: Rectangle, other: Rectangle) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(width, 0) * max(height, 0)


def _draw_label(
    draw: ImageDraw.ImageDraw, label: Rectangle, text: str, font: Font, color: Color
) -> None:
    padding = _padding(font)
    draw.rectangle(label, fill=color)
    _, _, _, below = draw.textbbox((0, 0), "Ag|", font=font, anchor="ls")
    baseline = label[3] - padding - int(below)
    # Relative luminance of WCAG 2: black text reads better above 0.18.
    linear = [(channel / 255) ** 2.2 for channel in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = (0, 0, 0) if luminance > 0.24 else (255, 255, 255)
    draw.text((label[0] + padding, baseline), text, font=font, fill=ink, anchor="ls")
