"""The text a run prints: device, times, the table of detections, and what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vkconv.cli.terminal import one_line

if TYPE_CHECKING:
    from rich.console import Console

    import vkconv
    from vkconv.profiler import Profile, ProfileRow
    from vkconv.vision import Detections

__all__ = ["describe_device", "format_bytes", "print_pairs", "print_run", "print_table"]

CPU_NOTICE = (
    "This is a CPU driver: Vulkan runs on the processor. With a GPU, install its Vulkan driver."
)
_COSTLIEST = 10
_PROFILE_COLUMNS = (
    "costliest nodes", "kernel", "ms", "share", "GFLOP/s", "GB/s", "of ceiling", "variant and tile"
)  # fmt: skip
_ABOUT_TIMES = {"first_run": "first run", "run": "next run", "detect": "decode + NMS"}


def describe_device(device: vkconv.DeviceInfo) -> str:
    """One line, as in "Radeon RX 6600 [discrete, radv 23.2.1]"."""
    about = ", ".join(text for text in (device.kind, device.driver) if text)
    return one_line(f"{device.name} [{about}]")


def format_bytes(size: int) -> str:
    """A size in the unit that leaves it readable: "2.0 GiB", "3.6 MiB", "12.4 KiB"."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1024:.1f} KiB"


def print_run(
    console: Console,
    *,
    device: vkconv.DeviceInfo,
    model: str,
    image: str,
    milliseconds: dict[str, float],
    detections: Detections,
    names: Sequence[str],
    written: Sequence[tuple[str, str]],
    profile: Profile | None = None,
) -> None:
    """Print what a run did, for people."""
    from rich.text import Text

    from vkconv.vision import class_color, class_name

    lines = [("device", describe_device(device))]
    if device.kind == "cpu":
        lines.append(("", CPU_NOTICE))
    times = ", ".join(
        f"{_ABOUT_TIMES.get(key, key)} {value:.1f} ms" for key, value in milliseconds.items()
    )
    lines += [("model", model), ("image", image), ("time", times)]
    print_pairs(console, lines)

    if len(detections):
        rows = []
        for index in range(len(detections)):
            class_id = int(detections.class_ids[index])
            red, green, blue = class_color(class_id)
            label = Text(class_name(names, class_id), style=f"bold rgb({red},{green},{blue})")
            sides = [f"{side:.0f}" for side in detections.boxes[index].tolist()]
            rows.append([label, f"{detections.scores[index]:.1%}", *sides])
        print_table(
            console,
            ["object", "confidence", "x1", "y1", "x2", "y2"],
            rows,
            right=("confidence", "x1", "y1", "x2", "y2"),
        )
    else:
        console.print("\nno objects found; a lower --conf shows less certain ones")
    if profile is not None:
        _print_profile(console, profile)
    console.print()
    print_pairs(console, [("wrote", f"{path} ({what})") for what, path in written])


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
) -> None:
    """Print an empty line and a plain table, its columns as wide as their longest cells."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console.print()
    console.print(table)


def _print_profile(console: Console, profile: Profile) -> None:
    rows = profile.rows()
    shown = [_profile_cells(row) for row in rows[:_COSTLIEST]]
    if len(rows) > _COSTLIEST:
        rest = rows[_COSTLIEST:]
        seconds, share = sum(row.seconds for row in rest), sum(row.share for row in rest)
        more = [f"{len(rest)} more nodes", "", f"{seconds * 1e3:.2f}", f"{share:.1%}"]
        shown.append([*more, *[""] * (len(_PROFILE_COLUMNS) - len(more))])
    print_table(console, _PROFILE_COLUMNS, shown, right=_PROFILE_COLUMNS[2:-1])
    if profile.ceilings is not None:
        console.print(
            f"\nceilings of the device, measured: {profile.ceilings.gflops:.1f} GFLOP/s, "
            f"{profile.ceilings.gbytes:.1f} GB/s; GFLOP/s count a convolution's products and sums, "
            "of which Winograd kernels do fewer"
        )


def _profile_cells(row: ProfileRow) -> list[str]:
    rates = [f"{rate:.1f}" if rate else "" for rate in (row.gflops, row.gbytes)]
    of_ceiling = "" if row.of_ceiling is None else f"{row.of_ceiling:.0%}"
    name, kernel = one_line(row.node), one_line(row.kernel)
    times = [f"{row.seconds * 1e3:.2f}", f"{row.share:.1%}"]
    return [name, kernel, *times, *rates, of_ceiling, one_line(row.detail)]


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print lines of a heading and a value."""
    from rich.text import Text

    for heading, value in pairs:
        # Unbroken, so that a path can be copied; the terminal wraps where it must.
        console.print(Text.assemble((f"{heading:<12}", "bold"), value), soft_wrap=True)
