"""``vkconv fuse``: linear branches of a model made one convolution each, reported and proven."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vkconv.cli.options import add_device, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded

if TYPE_CHECKING:
    from vkconv.fusion import FusedModel

__all__ = ["main"]

_DESCRIPTION = """\
Fuse what training needed and inference does not: batch normalisations, parallel branches (RepVGG,
ACNet, DBB), implicit layers and constant factors go into the convolutions next to them. Nothing
else in the model changes. Both models are run on random inputs before anything is written.
"""


def main(argv: Sequence[str] | None = None, program: str = "vkconv fuse") -> int:
    """Entry point of ``vkconv fuse``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _fuse(_parser(program), arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        usage=f"{program} MODEL.onnx [-o OUT.onnx | --in-place] [options]",
        description=_DESCRIPTION,
        epilog="Without -o or --in-place the report is all there is.",
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="an ONNX file")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", metavar="OUT.onnx", help="the fused model")
    target.add_argument(
        "--in-place", action="store_true", help="write the fused model in place of MODEL.onnx"
    )
    add_shape(parser, ", for the proof and the count of operations")
    add_device(
        parser,
        "what the proof runs on besides onnxruntime: 'reference' (numpy), or a device as "
        "'vkconv devices' lists them (default: numpy for a small model, else the first device)",
    )
    parser.add_argument(
        "--force", action="store_true", help="write the fused model even if the proof fails"
    )
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - for stdout")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print the totals and the verdict only"
    )
    return parser


def _fuse(parser: Parser, arguments: list[str]) -> int:
    options = parser.parse_args(arguments)
    target = options.model if options.in_place else options.output
    if target == "-":
        parser.error("a model cannot go to stdout; name a file")
    # everything that can be wrong with the files is found before the work starts
    _check_outputs(options, target)

    import vkconv

    fused = vkconv.fuse(options.model, shapes=options.shape, device=options.device)
    written: list[tuple[str, str]] = []
    refusal: vkconv.FusionError | None = None
    if target is not None:
        if not options.in_place:
            fused.check_apart(target)
        try:
            fused.save(target, force=options.force, overwrite=options.in_place)
            written.append(("model", target))
        except vkconv.FusionError as error:
            refusal = error
    if options.json is not None:
        _write_json(options.json, _record(options.model, target if written else None, fused))
        if options.json != "-":
            written.append(("report", options.json))

    from vkconv.cli.fusion_report import print_fusion, print_written

    console = console_on(sys.stderr if options.json == "-" else sys.stdout)
    print_fusion(console, options.model, fused, options.quiet)
    print_written(console, written)
    if refusal is not None:
        raise vkconv.FusionError(f"{refusal}; --force writes it all the same")
    return 0 if fused.is_proven or options.force else 1


def _check_outputs(options: argparse.Namespace, target: str | None) -> None:
    from vkconv.cli.output import check_apart, check_writable

    outputs = [] if target is None else [("the fused model", target)]
    if options.json not in (None, "-"):
        outputs.append(("the JSON", options.json))
    for what, path in outputs:
        check_writable(path, what)
    check_apart(
        outputs[1:] if options.in_place else outputs,
        [("the model that is read (--in-place allows it)", options.model)],
    )


# --- for programs ---------------------------------------------------------------------


def _record(model: str, output: str | None, fused: FusedModel) -> dict[str, Any]:
    """The JSON document; an infinite NMSE is null, since JSON has no infinity."""
    proof = fused.proof
    return {
        "model": model,
        "output": output,
        "proven": fused.is_proven,
        **fused.report.as_dict(),
        "proof": None
        if proof is None
        else {
            "holds": proof.holds,
            "verdict": proof.verdict,
            "shapes": {name: list(sizes) for name, sizes in proof.shapes.items()},
            "outputs": [
                {
                    "output": entry.output,
                    "run_by": entry.engine,
                    "max_difference": _finite(entry.difference),
                    "nmse": _finite(entry.nmse),
                    "limit": entry.limit,
                    "varies": entry.varies,
                }
                for entry in proof.comparisons
            ],
            "failures": list(proof.failures),
            "notes": list(proof.notes),
        },
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _write_json(path: str, record: dict[str, Any]) -> None:
    from vkconv.cli.output import write_text

    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n", "the JSON")


if __name__ == "__main__":
    sys.exit(main())
