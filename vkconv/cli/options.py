"""Options that several commands have, spelt and read the same way in each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

__all__ = ["LARGEST_SIDE", "add_device", "add_head", "add_shape", "picture_size"]

#: pixels along a side of a picture that a network takes
LARGEST_SIDE = 8192
_MOST_DIGITS = 9  # no tensor has more elements along an axis than the 2**31 of GLSL's int


def add_device(parser: argparse.ArgumentParser, about: str = "") -> None:
    """``--device``; ``about`` says what it is for where that is not plain."""
    listed = "index or name as 'vkconv devices' lists them"
    parser.add_argument("--device", default="auto", metavar="D", help=about or listed)


def add_head(parser: argparse.ArgumentParser) -> None:
    """``--head``, for commands that feed a detector with a picture."""
    parser.add_argument(
        "--head",
        metavar="KIND",
        help="what the detector returns, where it does not say: see 'Which detectors it "
        "understands' in the guide",
    )


def add_shape(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """``--shape NAME=N,N,...``, any number of times: a dict of tuples by the input's name."""
    parser.add_argument(
        "--shape",
        action=_Shapes,
        default={},
        metavar="NAME=N,N,...",
        help=f"the size of an input that the model leaves open{purpose}; once for each such input",
    )


def picture_size(text: str) -> tuple[int, int]:
    """Width and height in pixels, from "640" or "640x480"."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 640 or 640x480")
    width, height = int(sides[0][:_MOST_DIGITS]), int(sides[-1][:_MOST_DIGITS])
    if not 1 <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"'{text}' is not within 1 to {LARGEST_SIDE} pixels")
    return width, height


class _Shapes(argparse.Action):
    """``images=1,3,320,320`` or ``images=1x3x320x320``; the name may hold any character."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        text: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        name, _, sizes = str(text).rpartition("=")
        parts = [part.strip() for part in sizes.lower().replace("x", ",").split(",")]
        if not name or not all(_is_size(part) for part in parts):
            parser.error(f"--shape takes NAME=N,N,... as in images=1,3,320,320, not '{text}'")
        known = getattr(namespace, self.dest)
        if name in known:
            parser.error(f"--shape says the size of '{name}' twice")
        setattr(namespace, self.dest, {**known, name: tuple(int(part) for part in parts)})


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
