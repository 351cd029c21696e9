"""Results as Markdown that is readable as it stands. Losses are shown as plainly as wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vkconv.benchmark.figures import ORACLE, TITLES, Result, Row, geometric_mean, ratio_of

__all__ = [
    "cells",
    "compared",
    "costliest",
    "facts",
    "milliseconds",
    "report",
    "split",
    "suite_figures",
    "suite_report",
    "table",
]

_COLUMNS = (
    "runtime",
    "median ms",
    "p90 ms",
    "p99 ms",
    "least ms",
    "vkconv is",
    "load, cold s",
    "warm s",
    "peak MB",
    "NMSE",
)
_PEERS = ("ncnn", "torch", "onnxruntime")


def report(result: Result, command: str = "") -> str:
    """One model: what was measured where, the table, the reasons, the costliest nodes."""
    lines = [f"# {result.title}, {result.date}", "", *facts(result), ""]
    if command:
        lines[-1:] = [f"- command: `{command}`", ""]
    measured = [cells(name, row) for name, row in result.rows.items() if "p50" in row]
    lines += table(_COLUMNS, measured) if measured else []
    if notes := _notes(result):
        lines += ["", "Notes:", "", *notes]
    if result.profile:
        lines += [
            "",
            "## Where vkconv's time goes",
            "",
            f"{split(result)}.",
            "",
            *costliest(result),
        ]
    return "\n".join(lines) + "\n"


def suite_report(results: Sequence[Result], command: str) -> str:
    """Several models: one table of times, one of memory and loading, and what they add up to.

    command: what measured those whose settings name no other.
    """
    first = results[0]
    lines = [f"# The standard suite on {_device(first)}, {first.date}", ""]
    lines += [f"- {key}: {value}" for key, value in first.machine.items()]
    lines += _runtimes(results)
    if first.ceilings:
        lines.append(_ceilings(results))
    lines += [
        *_commands(results, command),
        "",
        "Medians in ms. The three right columns say how many times",
    ]
    lines[-1] += " vkconv's time each takes: below 1, vkconv is slower."
    lines += ["", *_times(results), "", "## What it adds up to", ""]
    lines += [f"- {line}" for line in suite_figures(results)]
    lines += ["", "## Loading and memory", ""]
    lines += ["Cold: the first process; warm: the least of the later ones, of any runtime.", ""]
    lines += _memory(results)
    if any(_notes(result) for result in results):
        lines += ["", "## Not measured, or not comparable", "", *_merged(results)]
    lines += ["", "## Where vkconv's time goes", ""]
    lines += [
        "GFLOP/s are a convolution's products and sums by its time; Winograd kernels do fewer.",
        "",
    ]
    for result in results:
        if result.profile:
            lines += [f"**{result.title}**: " + f"{split(result)}.", ""]
            lines += [*costliest(result, 5), ""]
    return "\n".join(lines)


def _commands(results: Sequence[Result], command: str) -> list[str]:
    """What measured most of them, and what others since."""
    by_command: dict[str, list[str]] = {}
    for result in results:
        by_command.setdefault(str(result.settings.get("command", command)), []).append(result.title)
    (most, _), *others = sorted(by_command.items(), key=lambda item: -len(item[1]))
    again = [f"- and again {', '.join(titles)}: `{given}`" for given, titles in others]
    return [f"- command: `{most}`", *again]


def suite_figures(results: Sequence[Result]) -> list[str]:
    """The figures of the whole suite, in sentences."""
    lines = []
    for peer in _PEERS:
        ratios = {r.title: ratio for r in results if (ratio := ratio_of(r, peer)) is not None}
        mean = geometric_mean(ratios.values())
        if mean is None:
            continue
        least, most = min(ratios, key=lambda k: ratios[k]), max(ratios, key=lambda k: ratios[k])
        lines.append(
            f"{TITLES[peer]}: {compared(mean)} in the geometric mean of {len(ratios)} nets; from "
            f"{compared(ratios[least])} ({least}) to {compared(ratios[most])} ({most})"
        )
    both = [r.rows for r in results if all("peak" in r.rows.get(n, {}) for n in ("vkconv", "ncnn"))]
    if both:
        less = sum(rows["vkconv"]["peak"] < rows["ncnn"]["peak"] for rows in both)
        lines.append(f"peak memory below ncnn's on {less} of {len(both)} nets")
    arenas = {r.title: size for r in results if (size := _arena(r)) is not None}
    if arenas:
        worst = max(arenas, key=lambda k: arenas[k])
        lines.append(f"arena at most {arenas[worst]:.2f} times its lower bound ({worst})")
    loads = [r.rows["vkconv"]["warm"] / r.rows["vkconv"]["cold"] for r in results
             if r.rows["vkconv"].get("warm")]  # fmt: skip
    if loads:
        lines.append(f"warm load {min(loads):.0%} to {max(loads):.0%} of cold load")
    errors = [row["nmse"] for r in results if (row := r.rows["vkconv"]).get("nmse") is not None]
    if errors:
        lines.append(f"vkconv's outputs against {ORACLE}'s: NMSE at most {max(errors):.1e}")
    return lines


def compared(ratio: float) -> str:
    """As "3.10x faster", or "2.00x slower" for 0.5."""
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns line up."""
    safe = [[cell.replace("|", "\\|") for cell in line] for line in rows]
    widths = [max(len(line[i]) for line in (heading, *safe)) for i in range(len(heading))]
    ruled = [heading, ["-" * width for width in widths], *safe]
    return [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in ruled
    ]


def cells(name: str, row: Row) -> tuple[str, ...]:
    """A runtime's line of a model's table."""
    known = "unknown" if row["nmse"] is None else f"{row['nmse']:.1e}"
    return (
        TITLES[name],
        *(milliseconds(row[key]) for key in ("p50", "p90", "p99", "least")),
        _verdict(row),
        f"{row['cold']:.2f}",
        f"{row['warm']:.2f}" if row["warm"] else "",
        f"{row['peak'] / 1e6:.0f}",
        "(reference)" if name == ORACLE else known,
    )


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.1f}" if seconds < 10 else f"{seconds * 1e3:.0f}"


def _verdict(row: Row) -> str:
    """In words, with the least and the largest ratio of a round."""
    if "wrong" in row:
        return "not comparable"
    if "ratio" not in row:
        return ""
    ratios, word = [row["ratio"], min(row["ratios"]), max(row["ratios"])], "faster"
    if row["ratio"] < 1:
        ratios, word = [1 / row["ratio"], 1 / max(row["ratios"]), 1 / min(row["ratios"])], "slower"
    middle, least, most = (f"{ratio:.2f}" for ratio in ratios)
    return f"{middle}x {word} ({least} to {most})"


def facts(result: Result) -> list[str]:
    lines = [f"- {key}: {value}" for key, value in result.machine.items()]
    shapes = ", ".join(f"{n} {' x '.join(map(str, s))}" for n, s in result.shapes.items())
    lines += [f"- input: {shapes}", *_runtimes([result])]
    return [*lines, _ceilings([result])] if result.ceilings else lines


def _runtimes(results: Sequence[Result]) -> list[str]:
    """Versions and devices, one line a runtime."""
    lines = []
    for name in results[0].rows:
        row = next((r.rows[name] for r in results if "device" in r.rows.get(name, {})), None)
        if row is not None:
            versions = ", ".join(f"{package} {v}" for package, v in row["versions"].items())
            runs = sum(r.rows[name].get("runs", 0) for r in results if name in r.rows)
            lines.append(f"- {TITLES[name]}: {versions} on {row['device']}, {runs} runs")
    return lines


def _ceilings(results: Sequence[Result]) -> str:
    known = [r.ceilings for r in results if r.ceilings]
    gflops, gbytes = (max(c[key] for c in known) for key in ("gflops", "gbytes"))
    return (
        f"- the device's ceilings, measured beside: {gflops:.0f} GFLOP/s (products and sums), "
        f"{gbytes:.1f} GB/s (a copy's reading and writing)"
    )


def _notes(result: Result) -> list[str]:
    return [
        f"- {TITLES[name]}: {row.get('reason') or row['wrong']}"
        for name, row in result.rows.items()
        if "reason" in row or "wrong" in row
    ]


def _merged(results: Sequence[Result]) -> list[str]:
    """Notes with the nets they hold for."""
    found: dict[str, list[str]] = {}
    for result in results:
        for note in _notes(result):
            found.setdefault(note, []).append(result.title)
    return [
        f"{note} ({'all nets' if len(nets) == len(results) else ', '.join(nets)})"
        for note, nets in found.items()
    ]


def _times(results: Sequence[Result]) -> list[str]:
    heading = ["net", *(n if n == "vkconv" else TITLES[n] for n in ("vkconv", *_PEERS))]
    heading += [f"{peer} / vkconv" for peer in _PEERS]
    rows = []
    for r in results:
        medians = [milliseconds(r.rows.get(n, {}).get("p50")) or "-" for n in ("vkconv", *_PEERS)]
        ratios = [ratio_of(r, peer) for peer in _PEERS]
        rows.append([r.title, *medians, *("-" if x is None else f"{x:.2f}" for x in ratios)])
    means = [geometric_mean(ratio_of(r, peer) for r in results) for peer in _PEERS]
    rows.append(
        ["geometric mean", "", "", "", "", *("-" if m is None else f"{m:.2f}" for m in means)]
    )
    return table(heading, rows)


def _memory(results: Sequence[Result]) -> list[str]:
    heading = (
        "net", "load, cold s", "warm s", "ncnn's, cold s", "warm s", "first result, cold s",
        "peak MB", "ncnn's MB", "weights MB", "arena MB", "of its lower bound",
    )  # fmt: skip
    rows = []
    for result in results:
        own, other = result.rows["vkconv"], result.rows.get("ncnn", {})
        memory = own.get("memory", {})
        arena = _arena(result)
        rows.append([
            result.title,
            *(_seconds(row.get(key)) for row in (own, other) for key in ("cold", "warm")),
            _seconds(own.get("cold_first")),
            *(_megabytes(row.get("peak")) for row in (own, other)),
            *(_megabytes(memory.get(key)) for key in ("weights", "arena")),
            "" if arena is None else f"{arena:.2f}",
        ])  # fmt: skip
    return table(heading, rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.1f}" if value < 1e7 else f"{value / 1e6:.0f}"


def _arena(result: Result) -> float | None:
    """The arena's size by the least it could have."""
    memory: Mapping[str, int] = result.rows["vkconv"].get("memory", {})
    least = memory.get("arena_lower_bound")
    return memory["arena"] / least if least else None


def split(result: Result) -> str:
    """How a run divides between the device, nodes on the host, and what is around them."""
    own, profile = result.rows["vkconv"], result.profile
    gpu, host, wall = (profile[key] for key in ("gpu", "host", "wall"))
    text = f"in the quickest profiled run, {milliseconds(wall)} ms, the device takes "
    text += milliseconds(gpu)
    if host:
        text += f", nodes on the host {milliseconds(host)}"
    text += f", copies and submission {milliseconds(max(0.0, wall - gpu - host))}"
    rate = profile["flops"] / own["p50"] / 1e9
    counted = f"; {profile['flops'] / 1e9:.2f} GFLOP, {rate:.1f} GFLOP/s" if rate else ""
    return f"{text}{counted}"


def costliest(result: Result, count: int = 10) -> list[str]:
    heading = ("node", "kernel", "ms", "share", "GFLOP/s", "GB/s", "of ceiling", "variant and tile")
    rows = []
    for row in result.profile["rows"][:count]:
        seconds = row["seconds"] or 1e-9
        rates = [
            f"{row[key] / seconds / 1e9:.1f}" if row[key] else "" for key in ("flops", "bytes")
        ]
        share = row["of_ceiling"]
        rows.append([
            row["node"], row["kernel"], f"{seconds * 1e3:.2f}", f"{row['share']:.0%}", *rates,
            "" if share is None else f"{share:.0%}", row["detail"],
        ])  # fmt: skip
    return table(heading, rows)


def _device(result: Result) -> str:
    return str(result.rows["vkconv"].get("device", "no device")).split(",")[0].split(" (")[0]
