"""``vkconv verify``: every node of a model on the device against the reference, in a table."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.cli.options import add_device, add_head, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded, printable
from vkconv.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console

    from vkconv.ir import Array
    from vkconv.verification import NodeCheck, Verification

__all__ = ["main", "read_npz"]


def main(argv: Sequence[str] | None = None, program: str = "vkconv verify") -> int:
    """Entry point of ``vkconv verify``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _verify(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        usage=f"{program} [MODEL] [--inputs FILE.npz | --image IMAGE] [--bisect FOLDER] [options]",
        description="Run MODEL (without one, the demo detector) on the device and compare every "
        "node with the reference, in numpy, on the same inputs. Names the first node that differs, "
        "its kernel and the worst element; the exit code is 1 when something differs.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="an ONNX file")
    fed = parser.add_mutually_exclusive_group()
    fed.add_argument("--inputs", metavar="FILE.npz", help="the inputs by name; random by default")
    fed.add_argument("--image", metavar="IMAGE", help="a picture, prepared as vkconv-run does")
    add_head(parser)
    add_shape(parser)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of random inputs (default: %(default)s)"
    )
    add_device(parser)
    parser.add_argument(
        "--tuning",
        metavar="RECORD.json",
        help="the tuning record to choose kernels by, instead of VKCONV_TUNING or the user's own",
    )
    parser.add_argument(
        "--nodes-only",
        action="store_true",
        help="leave out the comparison of the outputs with those of the unchanged model, which "
        "takes half of the time",
    )
    parser.add_argument(
        "--bisect",
        metavar="FOLDER",
        help="when a node differs, write the smallest sub-model that does, its inputs and what is "
        "expected to this new folder: a bug report to attach",
    )
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON; - for stdout")
    return parser


def _verify(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error(f"--seed takes a whole number from 0 on, not {options.seed}")

    if options.shape and (options.inputs or options.image):
        parser.error("--shape is for random inputs; --inputs and --image have sizes")
    if options.head and not options.image:
        parser.error("--head says how to feed a detector with --image")

    from vkconv.cli.detection import model_path
    from vkconv.cli.output import check_apart, check_writable, write_text
    from vkconv.cli.verification_report import print_verification, record

    if options.json not in (None, "-"):
        check_writable(options.json, "the JSON")
        read = [("the model", options.model), ("the inputs", options.inputs)]
        read.append(("the image", options.image))
        check_apart([("the JSON", options.json)], [(w, p) for w, p in read if p is not None])

    from vkconv.verification import verify
    from vkconv.verification.bisection import check_folder

    if options.bisect is not None:
        check_folder(options.bisect)
    console = console_on(sys.stderr if options.json == "-" else sys.stdout)
    with model_path(options.model) as path:
        feeds, images = _inputs(options, path)
        with _Progress() as progress:
            found = verify(
                path,
                feeds,
                device=options.device,
                shapes=options.shape,
                seed=options.seed,
                images=images,
                end_to_end=not options.nodes_only,
                tell=progress.tell,
                tuning=options.tuning,
            )
        print_verification(console, options.model or "demo detector of vkconv", found)
        if options.bisect is not None:
            _bisect(console, options, path, found, images)
    if options.json is not None:
        text = json.dumps(record(options.model or "demo", found), indent=1, allow_nan=False) + "\n"
        write_text(options.json, text, "the JSON")
    return 0 if found.holds else 1


def _inputs(options: argparse.Namespace, path: str) -> tuple[dict[str, Any] | None, Any]:
    """What the model is fed with, and which inputs are pixels."""
    if options.inputs is not None:
        return read_npz(options.inputs), None
    if options.image is None:
        return None, None
    from vkconv.cli.detection import Settings, detector_feeds
    from vkconv.vision import load_image

    image = load_image(options.image)
    return detector_feeds(image, Settings(model=path, device=options.device, head=options.head))


def read_npz(path: str) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises InvalidInputError where it is none."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise InvalidInputError(
                f"'{path}' is no .npz file; write one with numpy.savez('inputs.npz', **arrays)"
            )
        with loaded as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InvalidInputError(f"no inputs file '{path}'; check the path") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError, MemoryError) as error:
        raise InvalidInputError(
            f"'{path}' cannot be read as .npz of numbers ({error}); write it with numpy.savez"
        ) from None


class _Progress:
    """One line on a terminal's stderr that tells how far it got; nothing elsewhere."""

    def __init__(self) -> None:
        self._count = 0
        self._on = bool(sys.stderr is not None and sys.stderr.isatty())

    def __enter__(self) -> _Progress:
        return self

    def tell(self, check: NodeCheck) -> None:
        self._count += 1
        if self._on:
            text = f"{self._count} nodes compared: {check.op_type} '{check.node}'"
            print(f"\r\x1b[K{printable(text)[:78]}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._on and self._count:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _bisect(
    console: Console,
    options: argparse.Namespace,
    path: str,
    found: Verification,
    images: Any,
) -> None:
    from vkconv.cli.report import print_pairs
    from vkconv.verification import bisect, verify

    if found.holds:
        print_pairs(console, [("sub-model", "none written: nothing differs")])
        return

    def again(model: Any, feeds: Mapping[str, Array], keep: Iterable[str]) -> Verification:
        # the whole model is fed as before; a part of it takes tensors
        fed = images if model is path else None
        made: Verification = verify(
            model, feeds, device=options.device, images=fed, keep=tuple(keep), end_to_end=False,
            tuning=options.tuning,
        )  # fmt: skip
        return made

    made = bisect(path, found, options.bisect, again)
    nodes = f"{made.nodes} node{'s' * (made.nodes != 1)}"
    alone = "which fails alone" if made.reproduces else "the whole model: no part fails alone"
    print_pairs(console, [("sub-model", f"{printable(made.folder)} ({nodes}, {alone})")])


if __name__ == "__main__":
    sys.exit(main())
