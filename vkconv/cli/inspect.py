"""``vkconv inspect``: what is in a model, and where each of its nodes runs on a device."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vkconv.cli.options import add_device, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded, one_line, printable
from vkconv.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console

    import vkconv
    from vkconv.ir import Graph

__all__ = ["main"]

_LONGEST_VALUE = 200
_HINT = "The model leaves sizes open: --shape NAME=N,N,... plans it for some."


def main(argv: Sequence[str] | None = None, program: str = "vkconv inspect") -> int:
    """Entry point of ``vkconv inspect``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _inspect(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Show a model's inputs, outputs, metadata and operators, and where each node "
        "runs: on the device (gpu), on the processor (host), computed once (folded), or as part "
        "of another node (fused).",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX or a plan file")
    add_shape(parser)
    add_device(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--plan", action="store_true", help="print the plan: every step, and the memory"
    )
    shown.add_argument(
        "--after",
        metavar="PASS",
        help="print the graph as it is after one rewriting pass; 'all' for the last; needs no GPU",
    )
    shown.add_argument(
        "--pipelines",
        action="store_true",
        help="have the driver compile each kernel of the plan, and print what its compiler says of "
        "it: registers, spilling, scratch memory, occupancy, code size (each in the driver's own "
        "unit); nothing is run",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="with --pipelines: write all that the driver says as JSON; - for stdout",
    )
    return parser


def _inspect(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    if options.shape and options.after is not None:
        parser.error("--shape goes with the placement, --plan or --pipelines, not with --after")
    if options.json is not None and not options.pipelines:
        parser.error("--json goes with --pipelines")
    from vkconv.plan_file import is_plan

    compiled = is_plan(options.model)
    if options.shape and compiled:
        raise InvalidInputError("a plan file has its sizes already; --shape takes an ONNX model")
    if options.after is not None:
        if compiled:
            raise InvalidInputError("a plan file holds no graph to show; inspect the ONNX model")
        from vkconv.inspection import describe_graph

        after = None if options.after == "all" else options.after
        _print_lines(describe_graph(options.model, after=after))
        return 0

    if options.pipelines:
        _print_pipelines(options)
        return 0

    if options.plan:
        with _session(options) as session:
            _print_lines(session.describe_plan())
            if not session.memory.plans:
                print(_HINT)
            _print_lines(str(session.memory))
        return 0

    console = console_on(sys.stdout)
    if compiled:
        _print_plan(console, options.model)
        _print_placement(console, options)
        return 0

    # What the file says is shown first: it holds also where no device can run the model.
    from vkconv.onnx_reader import read_model

    _print_contents(console, options.model, read_model(options.model))
    _print_placement(console, options)
    return 0


@contextmanager
def _session(options: argparse.Namespace) -> Iterator[vkconv.InferenceSession]:
    """A session of the model; with ``--shape`` it has planned, and run on zeros, for these sizes
    (what follows a node whose output size depends on data is planned by running)."""
    import vkconv
    from vkconv.cli.inputs import zeros_for

    feeds = zeros_for(options.model, options.shape) if options.shape else None
    with vkconv.InferenceSession(options.model, device=options.device) as session:
        if feeds is not None:
            session.warmup(feeds)
        yield session


def _print_contents(console: Console, path: str, graph: Graph) -> None:
    from vkconv.cli.report import format_bytes, print_pairs, print_table

    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in graph.opsets.items()
    )
    constants = [value for value in graph.values() if value.array is not None]
    count = sum(value.array.size for value in constants if value.array is not None)
    size = sum(value.array.nbytes for value in constants if value.array is not None)
    pairs = [
        ("model", f"{path} ({format_bytes(os.path.getsize(path))})"),
        ("graph", graph.name or "(no name)"),
        ("producer", graph.producer or "(not said)"),
        ("opset", opsets),
        ("parameters", f"{count:,} in {len(constants)} initializers ({format_bytes(size)})"),
    ]
    print_pairs(console, [(heading, one_line(text)) for heading, text in pairs])

    rows = []
    for direction, values in (("input", graph.inputs), ("output", graph.outputs)):
        rows += [
            [direction, one_line(value.name), one_line(str(value.type or "unknown"))]
            for value in values
        ]
    print_table(console, ["", "name", "type"], rows)

    if graph.metadata:
        rows = [[one_line(key), _short(value)] for key, value in sorted(graph.metadata.items())]
        print_table(console, ["metadata", "value"], rows)

    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in graph.nodes
    )
    rows = [[one_line(name), str(number)] for name, number in counts.most_common()]
    rows.append(["all", str(len(graph.nodes))])
    print_table(console, ["operator", "nodes"], rows, right=("nodes",))


def _print_plan(console: Console, path: str) -> None:
    """What a plan file says of itself."""
    from vkconv.cli.report import format_bytes, print_pairs, print_table
    from vkconv.image_inputs import ImageInputs
    from vkconv.plan_file import read_compiled

    made = read_compiled(path)
    plan, about = made.planned.plan, made.about
    weights = sum(s.size for s in plan.constants)
    pairs = [
        ("plan", f"{path} ({format_bytes(os.path.getsize(path))})"),
        ("graph", about.name or "(no name)"),
        ("producer", about.producer or "(not said)"),
        ("made for", f"{made.device} [{made.caps.kind}]"),
        ("steps", f"{len(plan.dispatches)} dispatches, {len(made.planned.hosts)} host nodes"),
        ("weights", f"{format_bytes(weights)}, packed"),
    ]
    print_pairs(console, [(heading, one_line(text)) for heading, text in pairs])
    pixels = ImageInputs(None, made.model_inputs, made.normalisation)
    rows = [
        ["input", one_line(name), str(pixels.type_of(name, type_))]
        for name, type_ in made.model_inputs
    ]
    rows += [["output", one_line(n), one_line(str(t or "unknown"))] for n, t in made.outputs]
    print_table(console, ["", "name", "type"], rows)
    if about.metadata:
        rows = [[one_line(key), _short(value)] for key, value in sorted(about.metadata.items())]
        print_table(console, ["metadata", "value"], rows)


def _print_placement(console: Console, options: argparse.Namespace) -> None:
    from vkconv.cli.report import describe_device, print_pairs, print_table
    from vkconv.errors import UnsupportedModelError

    try:
        with _session(options) as session:
            placement, device = session.placement, describe_device(session.device)
            is_planned = session.memory.plans > 0
    except UnsupportedModelError as error:
        rows = [
            [one_line(problem.node), one_line(problem.kind), one_line(problem.reason)]
            for problem in error.nodes
        ]
        if rows:
            print_table(console, ["node that cannot be run", "operator", "reason"], rows)
        raise
    rows = [
        [one_line(text) for text in (record.node, record.op_type, record.where, record.detail)]
        for record in placement
    ]
    print_table(console, ["node", "operator", "where", "kernel, target or reason"], rows)
    counts = Counter(record.where for record in placement)
    summary = ", ".join(f"{number} {where}" for where, number in counts.most_common())
    console.print()
    print_pairs(console, [("device", device), ("placed", summary or "no nodes")])
    if not is_planned:
        console.print(_HINT)


def _print_pipelines(options: argparse.Namespace) -> None:
    from vkconv.cli.output import check_apart, check_writable, write_text
    from vkconv.cli.pipeline_report import print_pipelines, record
    from vkconv.pipeline_statistics import compile_pipelines

    if options.json not in (None, "-"):
        check_writable(options.json, "the JSON")
        check_apart([("the JSON", options.json)], [("the model", options.model)])
    found = compile_pipelines(options.model, shapes=options.shape, device=options.device)
    if options.json is not None:
        text = json.dumps(record(options.model, found), indent=1) + "\n"
        write_text(options.json, text, "the JSON")
    console = console_on(sys.stderr if options.json == "-" else sys.stdout)
    print_pipelines(console, options.model, found)


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        print(printable(line))


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
