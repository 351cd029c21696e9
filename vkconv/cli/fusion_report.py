"""The text ``vkconv fuse`` prints: each fusion, the operators, the proof, and the totals."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vkconv.cli.terminal import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from vkconv.fusion import FusedModel, FusionReport, Proof

__all__ = ["print_fusion", "print_written"]

#: names of nodes shown for one fusion; --json has all
_SHOWN_NODES = 6


def print_fusion(console: Console, path: str, fused: FusedModel, quiet: bool) -> None:
    """Print what was done to a model, for people; ``quiet``: the totals only."""
    report = fused.report
    if not quiet:
        _print_fusions(console, report)
        _print_operators(console, report)
        if fused.proof is not None:
            _print_proof(console, fused.proof)
        console.print()
    _print_totals(console, path, report, fused.proof)


def _print_totals(console: Console, path: str, report: FusionReport, proof: Proof | None) -> None:
    from vkconv.cli.report import print_pairs

    before, after = report.before, report.after
    pairs = [
        ("model", path),
        ("nodes", _change(before.node_count, after.node_count)),
        ("parameters", _change(before.parameters, after.parameters)),
    ]
    if before.flops:
        at = f" at {_sizes(report.shapes)}" if report.shapes else ""
        flops = f"{before.flops / 1e9:.3g} -> {after.flops / 1e9:.3g}"
        pairs.append(("GFLOPs", flops + at))
    went = sum(len(fusion.nodes) for fusion in report.fusions)
    said = f"{len(report.fusions)}, of {went} nodes" if report.fusions else "nothing to fuse"
    pairs.append(("fusions", said))
    pairs += [("also", note) for note in report.notes]
    if proof is not None:
        pairs.append(("proof", proof.verdict if proof.holds else f"FAILED: {proof.verdict}"))
    print_pairs(console, [(heading, one_line(text)) for heading, text in pairs])


def _print_fusions(console: Console, report: FusionReport) -> None:
    from vkconv.cli.report import print_table

    if report.fusions:
        rows = [
            [one_line(fusion.kind), one_line(fusion.into), _names(fusion.nodes)]
            for fusion in report.fusions
        ]
        print_table(console, ["fusion", "stays", "went into it"], rows)
        algebra = Counter((f.kind, f.algebra) for f in report.fusions if f.algebra)
        rows = [
            [one_line(kind), str(count), one_line(text)]
            for (kind, text), count in algebra.most_common()
        ]
        if rows:
            print_table(console, ["fusion", "times", "because"], rows, right=("times",))
    if report.unfused:
        rows = [
            [one_line(entry.kind), _names(entry.nodes), one_line(entry.reason)]
            for entry in report.unfused
        ]
        print_table(console, ["left alone", "nodes", "reason"], rows)
    if report.removed:
        print_table(console, ["also gone: only fused nodes read them"], [[_names(report.removed)]])


def _print_operators(console: Console, report: FusionReport) -> None:
    from vkconv.cli.report import print_table

    before, after = Counter(report.before.nodes), Counter(report.after.nodes)
    if before == after:
        return
    kinds = sorted(before | after, key=lambda kind: (-before[kind], kind))
    rows = [[one_line(kind), str(before[kind]), str(after[kind])] for kind in kinds]
    rows.append(["all", str(before.total()), str(after.total())])
    print_table(console, ["operator", "before", "after"], rows, right=("before", "after"))


def _print_proof(console: Console, proof: Proof) -> None:
    from vkconv.cli.report import print_pairs, print_table

    rows = [
        [
            one_line(entry.output),
            entry.engine,
            f"{entry.difference:.2e}",
            f"{entry.nmse:.2e}",
            _verdict_on(entry.holds, entry.varies),
        ]
        for entry in proof.comparisons
    ]
    if rows:
        print_table(
            console,
            ["output", "run by", "max difference", "NMSE", ""],
            rows,
            right=("max difference", "NMSE"),
        )
    pairs = [("inputs", f"random, {_sizes(proof.shapes)}")] if proof.shapes else []
    pairs += [("failed", text) for text in proof.failures]
    pairs += [("", text) for text in proof.notes]
    console.print()
    print_pairs(console, [(heading, one_line(text)) for heading, text in pairs])


def _verdict_on(holds: bool, varies: bool) -> str:
    if not holds:
        return "differs"
    return "agrees" if varies else "agrees, but is the same for every input"


def print_written(console: Console, written: Sequence[tuple[str, str]]) -> None:
    """Print the (what, path) pairs of the files that were written."""
    from vkconv.cli.report import format_bytes, print_pairs

    pairs = []
    for what, path in written:
        size = f", {format_bytes(os.path.getsize(path))}" if os.path.isfile(path) else ""
        pairs.append(("wrote", one_line(f"{path} ({what}{size})")))
    print_pairs(console, pairs)


def _change(before: int, after: int) -> str:
    return f"{before:,} -> {after:,}"


def _sizes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, sizes))}" for name, sizes in shapes.items())


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NODES])
    more = len(names) - _SHOWN_NODES
    return one_line(f"{shown} and {more} more" if more > 0 else shown)
