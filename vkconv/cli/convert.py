"""``vkconv convert``: trained weights in, one fused ONNX file out.

The converters need PyTorch, which vkconv itself does without: they are loaded when they are needed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vkconv.cli.options import picture_size
from vkconv.cli.terminal import Parser, console_on, guarded, one_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]

#: what a missing module means: the extra that brings it is not installed
_EXTRA = ("torch", "onnxscript", "yaml")
_MOST_PICTURES = 1024


@dataclass(frozen=True, slots=True)
class _Family:
    """A kind of network: what loads its weights, and the options that only it has.

    loader:  module of vkconv.converters.checkpoints and function.
    """

    about: str
    loader: tuple[str, str]
    options: Callable[[Parser], None] = lambda _: None


def _yolov7_options(parser: Parser) -> None:
    parser.add_argument(
        "--cfg", required=True, metavar="CFG.yaml", help="the yaml the network was trained with"
    )


def _repvgg_options(parser: Parser) -> None:
    parser.add_argument(
        "--arch", metavar="A0", help="what the weights have to be: A0..B3, B1g4... (default: any)"
    )


def _fcos_options(parser: Parser) -> None:
    parser.add_argument(
        "--style",
        choices=("caffe", "pytorch"),
        default="caffe",
        help="of the backbone, as in its config; pictures are normalized accordingly (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--norm-on-bbox", action="store_true", help="the config's bbox_head has norm_on_bbox=True"
    )
    parser.add_argument(
        "--centerness-on-reg",
        action="store_true",
        help="the config's bbox_head has centerness_on_reg=True",
    )


def _rtmdet_options(parser: Parser) -> None:
    parser.add_argument(
        "--exp-on-reg",
        action=argparse.BooleanOptionalAction,
        help="whether the config's bbox_head has exp_on_reg=True (default: as published weights "
        "of that width have it)",
    )


_FAMILIES = {
    "yolov7": _Family("YOLOv7, from its yaml", ("yolov7", "load_yolov7"), _yolov7_options),
    "repvgg": _Family("RepVGG", ("repvgg", "load_repvgg"), _repvgg_options),
    "acnet": _Family("ResNet of ACNet's blocks", ("acnet", "load_acnet")),
    "fcos": _Family("FCOS of mmdetection", ("fcos", "load_fcos"), _fcos_options),
    "rtmdet": _Family("RTMDet of mmdetection", ("rtmdet", "load_rtmdet"), _rtmdet_options),
    "rtmdet-ins": _Family("RTMDet-Ins: instances with masks", ("rtmdet", "load_rtmdet_ins")),
}
#: options of every family; what is not here goes to its loader
_SHARED = ("weights", "output", "size", "batch", "names")


def main(argv: Sequence[str] | None = None, program: str = "vkconv convert") -> int:
    """Entry point of ``vkconv convert``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _dispatch(program, arguments))


def _dispatch(program: str, arguments: list[str]) -> int:
    if arguments and arguments[0] in _FAMILIES:
        name = arguments[0]
        options = _family_parser(f"{program} {name}", _FAMILIES[name]).parse_args(arguments[1:])
        return _convert(name, options)
    listed = "\n".join(f"  {name:<12}{family.about}" for name, family in _FAMILIES.items())
    parser = Parser(
        prog=program,
        usage=f"{program} FAMILY --weights WEIGHTS -o OUT.onnx [options]",
        description="Turn trained weights into one fused ONNX file that vkconv runs.",
        epilog=f"families:\n{listed}\n\n{program} FAMILY --help tells about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("family", metavar="FAMILY", help="one of those below")
    options, _ = parser.parse_known_args(arguments)
    parser.error(f"no family '{options.family}'; there are {', '.join(_FAMILIES)}")


def _family_parser(program: str, family: _Family) -> Parser:
    parser = Parser(
        prog=program,
        description=f"{family.about}: weights in their training or deploy form to one fused ONNX "
        "file, which is compared with PyTorch before it is written.",
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="WEIGHTS",
        help="a state_dict: .pt or .pth as torch.save writes it, or .safetensors",
    )
    family.options(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT.onnx", help="the ONNX file")
    parser.add_argument(
        "--size",
        type=picture_size,
        metavar="WxH",
        help="of the pictures in pixels, rounded up to what the network takes (default: 640x640 "
        "for detectors, 224x224 for others)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        default=1,
        metavar="N",
        help="pictures at a time, or 'dynamic' (default: %(default)s)",
    )
    parser.add_argument(
        "--names", metavar="FILE", help="class names: one a line, or a yaml with 'names'"
    )
    return parser


def _convert(name: str, options: argparse.Namespace) -> int:
    from vkconv.cli.output import check_apart, check_writable
    from vkconv.errors import InvalidInputError

    given = vars(options)
    check_writable(options.output, "the ONNX file")
    inputs = [(f"the {key}", given[key]) for key in ("weights", "cfg", "names") if given.get(key)]
    check_apart([("the ONNX file", options.output)], inputs)

    own = {key: value for key, value in given.items() if key not in _SHARED}
    module, function = _FAMILIES[name].loader
    checkpoint = getattr(_converters(f"checkpoints.{module}"), function)(
        weights=options.weights, **own
    )
    classes = checkpoint.classes
    if options.names is not None:
        read_names = _converters("checkpoints.names").read_names
        classes = read_names(options.names, checkpoint.class_count)
    if checkpoint.fixed_batch and options.batch != 1:
        raise InvalidInputError(f"a {name} takes one picture at a time; leave --batch out")
    width, height = options.size or checkpoint.size[::-1]
    step = checkpoint.size_step
    size = (-(-height // step) * step, -(-width // step) * step)

    console = console_on(sys.stdout)
    with console.status("exporting and comparing with PyTorch"):
        report = _converters("checkpoints.writing").write_onnx(
            checkpoint, options.output, size=size, batch=options.batch, classes=classes
        )
    _print(console, name, checkpoint, report, size, options)
    return 0


def _converters(module: str) -> Any:
    """A module of the converters; where PyTorch is missing, how to get it."""
    from vkconv.errors import InvalidInputError

    try:
        return importlib.import_module(f"vkconv.converters.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise InvalidInputError(
            f"converting needs '{error.name}', which is not installed; install it with: "
            "pip install 'vkconv[torch]'"
        ) from error


def _print(
    console: Console,
    name: str,
    checkpoint: Any,
    report: Any,
    size: tuple[int, int],
    options: argparse.Namespace,
) -> None:
    from vkconv.cli.report import format_bytes, print_pairs

    after = report.fusion.after
    trained = sum(parameter.numel() for parameter in checkpoint.module.parameters())
    batch = "any number of" if options.batch == "dynamic" else str(options.batch)
    pairs = [
        ("network", f"{name}, {checkpoint.class_count} classes"),
        ("input", f"{batch} x 3 x {size[0]} x {size[1]}, RGB"),
        *(("note", note) for note in (*checkpoint.notes, *report.notes)),
        ("nodes", f"{after.node_count:,}: {_kinds(after.nodes)}"),
        ("parameters", f"{trained:,} -> {after.parameters:,}"),
        *(
            (
                "checked",
                f"'{check.output}' by {check.engine}: NMSE {check.nmse:.1e} against PyTorch, "
                f"largest difference {check.difference:.1e}",
            )
            for check in report.checks
        ),
        ("wrote", f"{options.output} ({format_bytes(os.path.getsize(options.output))})"),
    ]
    if checkpoint.head:
        pairs.append(("next", f"vkconv-run {options.output} IMAGE"))
    print_pairs(console, [(heading, one_line(text)) for heading, text in pairs])


def _kinds(nodes: Mapping[str, int]) -> str:
    listed = sorted(nodes.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(listed) - 4} kinds more" if len(listed) > 4 else ""
    return ", ".join(f"{count} {kind}" for kind, count in listed[:4]) + more


def _batch(text: str) -> int | str:
    if text == "dynamic":
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST_PICTURES):
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'dynamic' nor 1 to {_MOST_PICTURES}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
