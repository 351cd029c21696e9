"""``vkconv tune``: times the kernels for each layer shape of a model on this machine's device, and
keeps the fastest in the tuning record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vkconv.cli.options import add_device, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded, one_line

if TYPE_CHECKING:
    from pathlib import Path

    import vkconv
    from vkconv.tuning import Progress

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, program: str = "vkconv tune") -> int:
    """Entry point of ``vkconv tune``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _tune(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Time the kernels there are for each convolution of a model on the device, and "
        "keep the fastest in the tuning record. Sessions on the same device and driver use them "
        "from then on. Ctrl-C ends it early and keeps what was found.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the record to add to (default: VKCONV_TUNING, or the one in the cache folder)",
    )
    add_shape(parser)
    add_device(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="the time it may take (default: 120); what is not reached is left to the rules",
    )
    parser.add_argument(
        "--again", action="store_true", help="time shapes that the record knows already, too"
    )
    return parser


def _tune(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    if not 0 < options.seconds < float("inf"):
        parser.error(f"--seconds takes a number above 0, not {options.seconds}")

    from vkconv.cli.inputs import zeros_for
    from vkconv.cli.output import check_apart, check_writable

    if options.output is not None:
        check_writable(options.output, "the tuning record")
        check_apart([("the tuning record", options.output)], [("the model", options.model)])

    import vkconv
    from vkconv.errors import InvalidInputError
    from vkconv.plan_file import is_plan
    from vkconv.tuning import Tuning, record_path

    # the session says what is wrong with a plan file
    feeds = {} if is_plan(options.model) else zeros_for(options.model, options.shape)
    steps: list[Progress] = []
    device: vkconv.DeviceInfo | None = None
    try:
        with (
            _progress_bar(steps) as tell,
            vkconv.InferenceSession(
                options.model,
                device=options.device,
                tune=Tuning(options.seconds, options.again, tell),
                tuning=options.output,
            ) as session,
        ):
            if session.device.kind == "reference":
                raise InvalidInputError("the reference device has no kernels to choose from")
            if options.shape:
                session.warmup(feeds)
            device = session.device
    finally:
        # also after Ctrl-C, or when the device fails: what was found is kept
        if steps or device is not None:
            _print_found(steps, device, record_path(options.output))
    return 0


@contextmanager
def _progress_bar(steps: list[Progress]) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr, of the shapes and within each of its candidates; ``steps`` gets those that
    are done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    console = console_on(sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("tuning", total=None, state="")

        def tell(step: Any) -> None:
            part = step.tried / step.candidates if step.candidates else 0.0
            state = f"{step.done}/{step.shapes} shapes"
            if step.timing is not None:
                steps.append(step)
                state += f", last {_gain(step):.2f}x: {one_line(step.key)}"
            bar.update(task, completed=step.done + part, total=step.shapes, state=state)

        yield tell


def _gain(step: Progress) -> float:
    """How many times faster the winner is than the choice without tuning."""
    timing = step.timing
    return timing.untuned_ms / max(timing.ms, 1e-9) if timing is not None else 1.0


def _print_found(
    steps: Sequence[Progress], device: vkconv.DeviceInfo | None, path: Path | None
) -> None:
    from vkconv.cli.report import describe_device, print_pairs, print_table

    console = console_on(sys.stdout)
    rows = []
    before = after = 0.0
    for step in sorted(steps, key=lambda s: -s.layers * (s.timing.untuned_ms if s.timing else 0)):
        timing = step.timing
        if timing is None:
            continue
        before, after = before + step.layers * timing.untuned_ms, after + step.layers * timing.ms
        kept = timing.choice == timing.untuned
        rows.append(
            [
                one_line(step.key),
                step.layers,
                f"{timing.untuned_ms:.3f}",
                f"{timing.ms:.3f}",
                f"{_gain(step):.2f}x",
                "as untuned" if kept else timing.choice,
            ]
        )
    if rows:
        headings = ["layer shape", "layers", "untuned ms", "tuned ms", "gain", "kernel"]
        print_table(console, headings, rows, right=headings[1:5])
        console.print()
    pairs = [] if device is None else [("device", describe_device(device))]
    pairs.append(("shapes", _how_many(steps)))
    if rows:
        share = f"{before / max(after, 1e-9):.2f}x"
        pairs.append(("in all", f"{before:.2f} ms untuned, {after:.2f} ms tuned ({share})"))
    if path is not None and rows:
        pairs.append(("record", one_line(str(path))))
    print_pairs(console, pairs)


def _how_many(steps: Sequence[Progress]) -> str:
    if not steps:
        return "none were timed; --again times those that the record knows"
    timings = [s.timing for s in steps if s.timing is not None]
    faster = sum(t.choice != t.untuned for t in timings)
    left = steps[-1].shapes - steps[-1].done
    more = f", {left} not reached" if left else ""
    return f"{len(timings)} timed{more}; faster than by rule: {faster}"


if __name__ == "__main__":
    sys.exit(main())
