"""``vkconv-run`` and ``vkconv run``: an image in, boxes out, as a picture, a table and JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vkconv.cli.options import add_device, add_head, picture_size
from vkconv.cli.terminal import Parser, console_on, guarded, printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from vkconv.cli.detection import Outcome, Settings
    from vkconv.verification import Verification

__all__ = ["main"]

_DESCRIPTION = """\
Detect objects in IMAGE and draw them. Without MODEL, the small demo detector that comes with
vkconv is used. MODEL is an ONNX detector: of the YOLO family, RT-DETR or D-FINE, one that returns
final boxes, or what 'vkconv convert' writes.
"""


def main(argv: Sequence[str] | None = None, program: str = "vkconv-run") -> int:
    """Entry point of ``vkconv-run``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _run(_parser(program), arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        usage=f"{program} [MODEL] IMAGE [-o OUT.png] [--json FILE|-] [options]",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="[MODEL] IMAGE",
        help="an ONNX detector, and the image to run it on",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT.png",
        help="the picture with boxes (default: IMAGE's name with _detections.png, in this folder)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the detections as JSON; - for stdout")
    add_device(parser)
    parser.add_argument(
        "--conf",
        type=_fraction,
        default=0.25,
        metavar="C",
        help="least confidence, 0..1 (default: %(default)s)",
    )
    parser.add_argument(
        "--iou",
        type=_fraction,
        default=0.45,
        metavar="I",
        help="boxes of a class that overlap by more are one, 0..1 (default: %(default)s)",
    )
    add_head(parser)
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line, in class order")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="input size of a model that leaves it open, rounded up to 32 (default: the one it was "
        "exported for where its metadata says, else 640x640)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every node with the reference on this picture (slow); exit code 1 when one "
        "differs; 'vkconv verify --image IMAGE MODEL' exports what fails",
    )
    parser.add_argument(
        "--profile", metavar="TRACE.json", help="write the time of each node as a Chrome trace"
    )
    return parser


def _run(parser: Parser, arguments: list[str]) -> int:
    # argparse does not know "--" when positional arguments and options are mixed.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_intermixed_args(arguments[:end])
    paths: list[str] = options.paths + arguments[end + 1 :]
    if len(paths) not in (1, 2):
        parser.error("name an image" if not paths else "too many files: name a model and an image")
    model, image_path = paths if len(paths) == 2 else (None, paths[0])
    if image_path.lower().endswith(".onnx"):
        other = model or "IMAGE"
        parser.error(f"'{image_path}' is a model; give the image last: {image_path} {other}")
    output = options.output
    if output is None:
        output = f"{os.path.splitext(os.path.basename(image_path))[0]}_detections.png"
    if "-" in (output, options.profile):
        parser.error("only --json can go to stdout; name a file for the picture and the trace")

    # Everything that can be wrong with the files is found before the model is loaded.
    _check_outputs(options, model, image_path, output)
    from vkconv.vision import draw_detections, load_image, read_labels

    labels = read_labels(options.labels) if options.labels is not None else None
    image = load_image(image_path)

    from vkconv.cli.detection import Settings, run_detector
    from vkconv.cli.output import encode_image, write_text
    from vkconv.files import write_bytes

    settings = Settings(
        model=model,
        device=options.device,
        confidence=options.conf,
        iou=options.iou,
        labels=labels,
        size=options.size,
        trace=options.profile,
        head=options.head,
    )
    outcome = run_detector(image, settings)
    found = _verified(image, settings) if options.verify else None
    picture = draw_detections(image, outcome.detections, outcome.names)
    write_bytes(output, encode_image(picture, output), "the picture")
    written = [("picture", output)]
    if options.json is not None:
        text = _json_text(_record(model, image_path, image, output, outcome, found))
        write_text(options.json, text, "the JSON")
        if options.json != "-":
            written.append(("JSON", options.json))
    if options.profile is not None:
        written.append(("trace", options.profile))

    from vkconv.cli.report import print_run

    # With the JSON on stdout, the text for people goes to stderr.
    console = console_on(sys.stderr if options.json == "-" else sys.stdout)
    classes = f"{len(outcome.names)} classes, " if outcome.names else ""
    print_run(
        console,
        device=outcome.device,
        model=f"{printable(model or 'demo detector of vkconv')} "
        f"({outcome.head.kind}, {classes}"
        f"{outcome.input_size[0]}x{outcome.input_size[1]})",
        image=f"{printable(image_path)} ({image.width}x{image.height})",
        milliseconds=outcome.milliseconds,
        detections=outcome.detections,
        names=outcome.names,
        written=[(what, printable(path)) for what, path in written],
        profile=outcome.profile,
    )
    if found is None:
        return 0
    from vkconv.cli.verification_report import print_verification

    console.print()
    print_verification(console, model or "demo detector of vkconv", found)
    return 0 if found.holds else 1


def _verified(image: Image, settings: Settings) -> Verification:
    """Every node on what the picture feeds the model with."""
    from vkconv.cli.detection import detector_feeds, model_path
    from vkconv.verification import verify

    feeds, images = detector_feeds(image, settings)
    with model_path(settings.model) as path:
        return verify(path, feeds, device=settings.device, images=images)


def _check_outputs(options: argparse.Namespace, model: str | None, image: str, output: str) -> None:
    from vkconv.cli.output import check_apart, check_image_name, check_writable

    outputs = [("the picture", output)]
    if options.json not in (None, "-"):
        outputs.append(("the JSON", options.json))
    if options.profile is not None:
        outputs.append(("the trace", options.profile))
    for what, path in outputs:
        check_writable(path, what)
    check_image_name(output)
    inputs = [("the image", image), ("the model", model), ("the labels", options.labels)]
    check_apart(outputs, [(what, path) for what, path in inputs if path is not None])


def _record(
    model: str | None,
    image_path: str,
    image: Image,
    output: str,
    outcome: Outcome,
    verification: Verification | None = None,
) -> dict[str, Any]:
    """The JSON document; boxes in pixels of the upright image, times in milliseconds."""
    verified: dict[str, Any] = {}
    if verification is not None:
        first = None if verification.first is None else verification.first.node
        about = {"holds": verification.holds, "verdict": verification.verdict, "first": first}
        verified = {"verification": about}
    from vkconv.vision import class_name

    found = outcome.detections
    device = outcome.device
    return {
        "model": model or "demo",
        "image": image_path,
        "size": [image.width, image.height],
        "output": output,
        "head": outcome.head.kind,
        "input_size": list(outcome.input_size),
        "device": {
            "index": device.index,
            "name": device.name,
            "kind": device.kind,
            "driver": device.driver,
        },
        "timings_ms": {key: round(value, 3) for key, value in outcome.milliseconds.items()},
        **verified,
        "detections": [
            {
                "label": class_name(outcome.names, class_id),
                "class_id": class_id,
                "confidence": round(score, 4),
                "box": [round(side, 2) for side in box],
            }
            for box, score, class_id in zip(
                found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
            )
        ],
    }


def _json_text(record: dict[str, Any]) -> str:
    """JSON with one line for each entry and each detection: short to read, easy to compare."""
    lines = []
    for key, value in record.items():
        text = json.dumps(value, allow_nan=False)
        if key == "detections" and value:
            rows = ",\n    ".join(json.dumps(row, allow_nan=False) for row in value)
            text = f"[\n    {rows}\n  ]"
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def _size(text: str) -> tuple[int, int]:
    """From "640" or "640x480" (width x height), each rounded up to the largest stride."""
    from vkconv.cli.detection import SIZE_STEP

    width, height = picture_size(text)
    return -(-width // SIZE_STEP) * SIZE_STEP, -(-height // SIZE_STEP) * SIZE_STEP


if __name__ == "__main__":
    sys.exit(main())
