"""``vkconv devices``: the Vulkan devices of this machine, as ``--device`` takes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vkconv.cli.terminal import Parser, console_on, guarded, one_line

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, program: str = "vkconv devices") -> int:
    """Entry point of ``vkconv devices``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _list_devices(program, arguments))


def _list_devices(program: str, arguments: list[str]) -> int:
    parser = Parser(
        prog=program,
        description="List the Vulkan devices of this machine. Each may be chosen by index or name, "
        "as in: vkconv-run --device 0 IMAGE",
    )
    parser.parse_args(arguments)

    import vkconv
    from vkconv.cli.report import format_bytes, print_table
    from vkconv.device.kompute import device as kompute
    from vkconv.errors import DeviceError

    devices = vkconv.devices()
    if not devices:
        raise DeviceError(
            "no Vulkan device was found; install the driver of your GPU, or Mesa's CPU driver "
            "(on Debian and Ubuntu: apt install mesa-vulkan-drivers)"
        )
    rows = [
        [
            device.choice,
            one_line(device.name),
            device.kind,
            one_line(device.driver),
            device.api_version,
            format_bytes(device.memory_bytes),
            one_line(", ".join(device.features)),
        ]
        for device in [*devices, *kompute.infos()]
    ]
    print_table(
        console_on(sys.stdout),
        ["index", "name", "type", "driver", "Vulkan", "memory", "features"],
        rows,
        right=("index", "memory"),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
