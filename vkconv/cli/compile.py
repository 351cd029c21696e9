"""``vkconv compile``: plans a model for a device and writes the plan with the packed weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from vkconv.cli.options import add_device, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded, one_line

if TYPE_CHECKING:
    from vkconv.image_inputs import ImageInput

__all__ = ["main"]

Images: TypeAlias = "ImageInput | Mapping[str, ImageInput] | None"


def main(argv: Sequence[str] | None = None, program: str = "vkconv compile") -> int:
    """Entry point of ``vkconv compile``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _compile(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Plan a model for a device, and write plan and packed weights to one file. It "
        "loads faster than the model and without the onnx package, on devices of the same kind.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write (default: the model's name, ending in .vkplan)",
    )
    add_shape(parser)
    add_device(parser)
    pixels = parser.add_argument_group(
        "inputs fed with pixels, uint8 (N, H, W, C)",
        "Normalised on the device: (pixel * scale - mean) / std. One number, or one for each "
        "channel in the model's order: 0.485,0.456,0.406.",
    )
    pixels.add_argument("--images", action="store_true", help="every input that can take them")
    pixels.add_argument(
        "--image", action="append", default=[], metavar="NAME", help="this input; any number"
    )
    pixels.add_argument(
        "--scale", type=_numbers, metavar="X", help="1/255 unless given; as in 1 or 1/255"
    )
    pixels.add_argument("--mean", type=_numbers, metavar="X,X,X", help="0 unless given")
    pixels.add_argument("--std", type=_numbers, metavar="X,X,X", help="1 unless given")
    pixels.add_argument(
        "--channel-order",
        choices=("rgb", "bgr"),
        help="the order in which the model takes the channels of RGB pixels (default: rgb)",
    )
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers or fractions with commas between them."""
    found = []
    for part in text.split(","):
        above, slash, below = part.partition("/")
        try:
            found.append(float(above) / float(below) if slash else float(above))
        except (ValueError, ZeroDivisionError):
            raise argparse.ArgumentTypeError(
                f"'{text}' is no list of numbers such as 0.485,0.456,0.406 or 1/255"
            ) from None
    return tuple(found)


def _images(parser: Parser, options: argparse.Namespace) -> Images:
    """What the options say of inputs that take pixels."""
    given: dict[str, Any] = {
        name: value[0] if isinstance(value, tuple) and len(value) == 1 else value
        for name in ("scale", "mean", "std", "channel_order")
        if (value := getattr(options, name)) is not None
    }
    if not options.images and not options.image:
        if given:
            named = f"--{next(iter(given)).replace('_', '-')}"
            parser.error(f"{named} is about pixels: give --images, or --image NAME, too")
        return None
    if isinstance(given.get("scale"), tuple):
        parser.error("--scale is one number, for all channels")

    from vkconv.image_inputs import ImageInput

    image = ImageInput(**given)
    return image if options.images else dict.fromkeys(options.image, image)


def _compile(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    images = _images(parser, options)
    path = options.output or f"{os.path.splitext(options.model)[0]}.vkplan"

    from vkconv.cli.output import check_apart, check_writable
    from vkconv.cli.report import describe_device, format_bytes, print_pairs

    check_writable(path, "the plan file")
    check_apart([("the plan file", path)], [("the model", options.model)])

    from vkconv.compilation import compile_model

    made = compile_model(
        options.model, path, shapes=options.shape, device=options.device, images=images
    )
    pairs = [("written", f"{path} ({format_bytes(made.bytes)})")]
    pairs += [
        ("input", f"{name} {list(shape)}{' of 8-bit pixels' if name in made.images else ''}")
        for name, shape in made.inputs.items()
    ]
    pairs += [("steps", f"{made.dispatches} dispatches, {len(made.hosts)} nodes on the host")]
    pairs += [("host", f"{node}: {reason}") for node, reason in made.hosts]
    pairs += [("device", describe_device(made.device))]
    print_pairs(console_on(sys.stdout), [(heading, one_line(text)) for heading, text in pairs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
