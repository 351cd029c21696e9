"""Reading pictures and letterboxing them, there and back."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from vkconv.errors import InvalidInputError
from vkconv.vision import image_to_tensor, letterbox, load_image
from vkconv.vision.head_kinds import Fit

SIZES = [(1, 1), (1, 1000), (1000, 1), (7, 5), (97, 331), (640, 480), (320, 320), (1921, 1081)]


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("input_size", [(320, 320), (416, 256), (33, 17)])
@pytest.mark.parametrize("source", SIZES)
def test_boxes_come_back_to_where_they_were(source, input_size, fit) -> None:
    _, transform = letterbox(Image.new("RGB", source), input_size, fit=fit)
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(0, 1, (50, 2, 2)) * np.array(source), axis=1)
    boxes = corners.reshape(50, 4).astype(np.float32)
    inside = transform.to_input(boxes)
    assert inside.min() >= 0
    assert (inside <= np.array(input_size * 2) + 1e-3).all()
    # float32 holds seven digits of an input pixel; one of those is 1 / scale source pixels.
    tolerance = 1e-3 / min(transform.scale_x, transform.scale_y)
    np.testing.assert_allclose(transform.to_source(inside), boxes, atol=tolerance)


@pytest.mark.parametrize("source", SIZES)
def test_the_picture_keeps_its_aspect_and_the_rest_is_gray(source) -> None:
    pixels, transform = letterbox(Image.new("RGB", source, (255, 0, 0)), (320, 256))
    assert pixels.shape == (256, 320, 3) and pixels.dtype == np.uint8
    red = (pixels == (255, 0, 0)).all(axis=2)
    gray = (pixels == 114).all(axis=2)
    assert (red | gray).all()
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert (columns[0], rows[0]) == (transform.left, transform.top)
    ratio = min(320 / source[0], 256 / source[1])
    assert len(columns) == max(round(source[0] * ratio), 1)
    assert len(rows) == max(round(source[1] * ratio), 1)
    # Centred: the two sides differ by one pixel at most.
    assert 0 <= 320 - len(columns) - 2 * transform.left <= 1
    assert 0 <= 256 - len(rows) - 2 * transform.top <= 1


def test_a_corner_letterbox_pads_right_and_below() -> None:
    pixels, transform = letterbox(Image.new("RGB", (100, 50), "red"), (64, 64), fit="corner")
    assert (transform.left, transform.top) == (0, 0)
    assert (pixels[:32] == (255, 0, 0)).all() and (pixels[32:] == 114).all()


def test_boxes_are_clipped_to_the_picture() -> None:
    _, transform = letterbox(Image.new("RGB", (100, 50)), (100, 100))
    boxes = np.array([[-5, 0, 120, 100], [10, 80, 20, 95]], np.float32)
    source = transform.to_source(boxes)
    assert source.tolist() == [[0, 0, 100, 50], [10, 50, 20, 50]]


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_a_size_without_pixels_is_refused(size) -> None:
    with pytest.raises(InvalidInputError, match="positive"):
        letterbox(Image.new("RGB", (4, 4)), size)


def test_tensor_layout_types_and_order() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    tensor = image_to_tensor(pixels)
    assert tensor.shape == (1, 3, 2, 3) and tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor[0, 1], pixels[:, :, 1] / 255, rtol=1e-6)

    raw = image_to_tensor(pixels, scale=1.0, channel_order="bgr")
    assert (raw[0, 0] == pixels[:, :, 2]).all() and (raw[0, 2] == pixels[:, :, 0]).all()

    as_bytes = image_to_tensor(pixels, dtype=np.uint8)
    assert as_bytes.dtype == np.uint8 and (as_bytes[0, 2] == pixels[:, :, 2]).all()

    half = image_to_tensor(pixels, dtype=np.float16)
    assert half.dtype == np.float16
    assert (half == tensor.astype(np.float16)).all()
    with pytest.raises(InvalidInputError, match="channel_order"):
        image_to_tensor(pixels, channel_order="hsv")


# -- reading ---------------------------------------------------------------------------------------


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "blue")
    image.paste((255, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 0, 0) and upright.getpixel((10, 35)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    suffix = ".tiff" if mode in ("CMYK", "YCbCr") else ".png"
    path = tmp_path / f"image{suffix}"
    Image.new(mode, (5, 4)).save(path)
    image = load_image(path)
    assert image.mode == "RGB" and image.size == (5, 4)


def test_sixteen_bit_gray_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.asarray(load_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_between_the_bomb_limits_is_read_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert load_image(tmp_path / "large.png").size == (30, 30)
    assert not recwarn.list


def bomb() -> bytes:
    """A PNG that claims 60000 x 60000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def test_unreadable_pictures_are_one_clear_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "bomb.png").write_bytes(bomb())
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        "missing.png": "no such image file",
        "cut.png": "damaged",
        "cut.jpg": "damaged",
        "text.png": "not an image",
        "empty.png": "not an image",
        "bomb.png": "million pixels",
        "pipe.png": "not a regular file",
        ".": "is a folder",
        "whole.png/below.png": "cannot read",
        "x" * 300 + ".png": "cannot read",
    }
    for name, message in cases.items():
        with pytest.raises(InvalidInputError, match=message) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_damaged_exif_does_not_spoil_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert load_image(path).size == (8, 8)


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_never_raises_anything_else(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / ("image.png", "image.jpg", "image.webp", "image.bmp", "image.tiff")[seed % 5]
    Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 12):
        data[position] = int(rng.integers(0, 256))
    path.write_bytes(bytes(data))
    # Whether a byte matters depends on where it lies; either way no other exception may come out.
    with contextlib.suppress(InvalidInputError):
        assert load_image(path).mode == "RGB"
