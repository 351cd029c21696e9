#!/usr/bin/env python3
"""How long a model takes from nothing to its first result, each time in a process of its own.

    python scripts/bench_startup.py                       # the YOLOv7-tiny-like net at 320 x 320
    python scripts/bench_startup.py model.onnx --rounds 9

cold: no cache on disk, neither vkconv's nor the driver's. warm: both filled. warm, planned: the
driver's filled, vkconv's plan cache off. vkplan: a file of 'vkconv compile', the driver's filled.
Python's byte code is there in all of them, as it is where pip has installed the package.
The four take turns; a row is the round with the least wall time up to the first result. "load" is
InferenceSession(), "first" the first run, "import" what comes before them (numpy and vkconv).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_nets import NETS, export_apart

ROOT = Path(__file__).resolve().parent.parent
CHILD = """
import json, sys, time
began = time.perf_counter()
import numpy as np
import vkconv
from vkconv import InferenceSession
imported = time.perf_counter()
session = InferenceSession(sys.argv[1])
loaded = time.perf_counter()
feeds = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}
session.run(None, feeds)
first = time.perf_counter()
used = time.process_time()
session.run(None, feeds)
second = time.perf_counter()
print(json.dumps({
    "import": imported - began, "load": loaded - imported, "first": first - loaded,
    "total": first - began, "second": second - first, "cpu": used, "device": session.device.name,
}))
session.close()
"""
KINDS = ("cold", "warm", "warm, planned", "vkplan")
Row = dict[str, float]


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="vkconv-startup-") as name:
        folder = Path(name)
        model = options.model or export(folder)
        rows: dict[str, list[Row]] = {kind: [] for kind in KINDS}
        plan = folder / "net.vkplan"
        warm = folder / "warm"
        vkconv(["compile", str(model), "-o", str(plan)], warm)
        for kind in ("cold", "warm, planned", "vkplan"):  # the second and third fill what is left
            measure(kind, model, plan, warm)
        for round_ in range(options.rounds):
            for kind in KINDS:
                cache = folder / f"cold{round_}" if kind == "cold" else warm
                rows[kind].append(measure(kind, model, plan, cache))
        best = {kind: min(found, key=lambda r: r["total"]) for kind, found in rows.items()}
    print(table(best, options.rounds))
    print(verdict(best))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    summary, details = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        prog="scripts/bench_startup.py",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    return parser.parse_args()


def export(folder: Path) -> Path:
    """The net of the figures, by a process of its own: torch's threads shall be gone."""
    path = folder / "net.onnx"
    export_apart(NETS["yolov7-tiny-320"], path)
    return path


def environment(cache: Path, planned: bool = False) -> dict[str, str]:
    """Caches of vkconv and of Mesa in one folder, and no switch that would keep them off."""
    switches = ("MESA_", "VKCONV_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(switches)}
    (cache / "mesa").mkdir(parents=True, exist_ok=True)
    made = {
        "VKCONV_CACHE_DIR": str(cache),
        "MESA_SHADER_CACHE_DIR": str(cache / "mesa"),
        "PYTHONPYCACHEPREFIX": str(cache.parent / "bytecode"),
    }
    return {**kept, **made, **({"VKCONV_DISABLE": "plan_cache"} if planned else {})}


def vkconv(arguments: list[str], cache: Path) -> None:
    command = [sys.executable, "-m", "vkconv.cli.main", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environment(cache), stdout=subprocess.DEVNULL)


def measure(kind: str, model: Path, plan: Path, cache: Path) -> Row:
    source = plan if kind == "vkplan" else model
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, str(source)],
        check=True,
        cwd=ROOT,
        env=environment(cache, kind == "warm, planned"),
        stdout=subprocess.PIPE,
        text=True,
    )
    row: Row = json.loads(answer.stdout)
    return row


def table(best: dict[str, Row], rounds: int) -> str:
    device = next(iter(best.values()))["device"]
    lines = [
        f"{device}, {os.cpu_count()} cores, least of {rounds}; seconds",
        "",
        "| | import | load | first run | all | CPU | second run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, row in best.items():
        cells = [row[k] for k in ("import", "load", "first", "total", "cpu", "second")]
        lines.append(f"| {kind} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    return "\n".join(lines)


def verdict(best: dict[str, Row]) -> str:
    """The figures asked for, and what was found."""

    def ratio(kind: str, of: str, key: str) -> str:
        return f"{100 * best[kind][key] / best[of][key]:.0f}%"

    cold = best["cold"]
    return "\n".join((
        "",
        f"warm load of cold load (at most 25%): {ratio('warm', 'cold', 'load')}",
        "vkplan load of warm load (at most 50%): "
        f"{ratio('vkplan', 'warm, planned', 'load')} of one that plans, "
        f"{ratio('vkplan', 'warm', 'load')} of one from the plan cache",
        f"cold first result (at most 2 s): {cold['total']:.2f} s with imports, "
        f"{cold['load'] + cold['first']:.2f} s without",
    ))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
