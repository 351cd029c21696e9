#!/usr/bin/env python3
"""Opens and closes sessions, and runs a small net, thousands of times: does anything grow?

    scripts/soak.py                                    1,000 sessions and 100,000 runs
    scripts/soak.py --sessions 100 --runs 2000         the same, shorter
    scripts/soak.py --markdown                         the table as docs/reliability.md has it

Every run's output is compared with the first. Measured after a warm-up of a tenth and at the end:
memory of the process, device allocations, open files, threads, objects that the driver made and has
not destroyed. Exit code 1 when one grew by more than its bound, or a result was wrong.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import vkconv
from vkconv.device.vulkan import memory

#: what may be there more at the end than after the warm-up. Memory: the allocator of the C library
#: keeps pages, by this much over a whole campaign; a leak of a session is above 100 KiB each.
BOUNDS = {"memory (KiB)": 16 << 10, "device allocations": 0, "open files": 0, "threads": 0}


@dataclass
class Phase:
    """One kind of work, done ``count`` times; what there was after the warm-up, and at the end."""

    name: str
    count: int
    seconds: float
    before: dict[str, int]
    after: dict[str, int]
    wrong: int

    @property
    def failures(self) -> list[str]:
        grown = {k: self.after[k] - self.before[k] for k in BOUNDS}
        found = [f"{k} grew by {n}" for k, n in grown.items() if n > BOUNDS[k]]
        return found + ([f"{self.wrong} wrong results"] if self.wrong else [])


class Allocations:
    """Counts device allocations that are alive."""

    def __init__(self) -> None:
        self.alive = 0

    @contextmanager
    def counted(self) -> Any:
        """Within the block every Memory counts here."""
        create, free = memory.Memory.create, memory.Memory.free

        def counting_create(owner: Any, *arguments: Any) -> Any:
            made = create(owner, *arguments)
            self.alive += 1
            return made

        def counting_free(owner: Any, buffer: Any) -> None:
            free(owner, buffer)
            self.alive -= 1

        memory.Memory.create, memory.Memory.free = counting_create, counting_free
        try:
            yield
        finally:
            memory.Memory.create, memory.Memory.free = create, free


def small_net() -> tuple[bytes, dict[str, np.ndarray]]:
    """Two convolutions and a matrix product on 8 x 8 pixels."""
    numbers = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "v": (4, 8, 1, 1), "m": (4, 5)}
    weights = [
        numpy_helper.from_array(numbers.standard_normal(s).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "m"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "c")]
    graph = helper.make_graph(nodes, "small", [x], outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    feeds = {"x": numbers.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    data: bytes = made.SerializeToString()
    return data, feeds


def measured(allocations: Allocations) -> dict[str, int]:
    """What there is now; what Python only forgot to collect is collected."""
    gc.collect()
    status = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    values = (
        resident,
        allocations.alive,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
    )
    return dict(zip(BOUNDS, values, strict=True))


def phase(
    name: str, count: int, work: Callable[[], bool], allocations: Allocations, say: bool
) -> Phase:
    """Does ``work`` a tenth of ``count`` times, then ``count`` times; it says whether all was
    right."""
    wrong = sum(not work() for _ in range(max(1, count // 10)))
    before = measured(allocations)
    began = time.perf_counter()
    for k in range(count):
        wrong += not work()
        if say and (k + 1) % max(1, count // 10) == 0:
            print(f"{name}: {k + 1} of {count}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    return Phase(name, count, seconds, before, measured(allocations), wrong)


def soak(sessions: int, runs: int, device: str = "auto", say: bool = False) -> list[Phase]:
    """Both campaigns: sessions that each run once, and runs of one session, then
    asynchronous ones."""
    model, feeds = small_net()
    allocations = Allocations()
    with allocations.counted():
        with vkconv.InferenceSession(model, device=device) as session:
            expected = session.run(None, feeds)

        def is_right(outputs: Sequence[np.ndarray]) -> bool:
            return all(map(np.array_equal, outputs, expected))

        def one_session() -> bool:
            with vkconv.InferenceSession(model, device=device) as session:
                return is_right(session.run(None, feeds))

        found = [phase("sessions opened and closed", sessions, one_session, allocations, say)]
        with vkconv.InferenceSession(model, device=device) as session:
            found.append(
                phase("runs", runs, lambda: is_right(session.run(None, feeds)), allocations, say)
            )
            batch = 4

            def asynchronous() -> bool:
                futures = [session.run_async(None, feeds) for _ in range(batch)]
                return all(is_right(future.result(60)) for future in futures)

            found.append(
                phase("asynchronous runs, x 4", runs // 40, asynchronous, allocations, say)
            )
    return found


def table(phases: Sequence[Phase], markdown: bool) -> str:
    """One row a quantity and phase: after the warm-up, at the end, growth, bound."""
    head = ("phase", "count", "seconds", "quantity", "after warm-up", "at the end", "bound")
    rows = [head]
    for p in phases:
        for k, most in BOUNDS.items():
            end = f"{p.after[k]} ({p.after[k] - p.before[k]:+})"
            rows.append((p.name, f"{p.count:,}", f"{p.seconds:.0f}", k, str(p.before[k]), end,
                         f"+{most}"))  # fmt: skip
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|---|--:|--:|---|--:|--:|--:|", *lines[1:]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000, help="opened (default: 1000)")
    parser.add_argument("--runs", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--device", default="auto", help="as 'vkconv devices' lists them")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        parser.error("this needs Linux: it reads /proc")
    if min(options.sessions, options.runs) < 1:
        parser.error("--sessions and --runs take numbers from 1 up")
    phases = soak(options.sessions, options.runs, options.device, say=True)
    with vkconv.InferenceSession(small_net()[0], device=options.device) as session:
        print(f"{session.device.name}, {session.device.driver}; {threading.active_count()} threads")
    print(table(phases, options.markdown))
    failures = [f"{p.name}: {f}" for p in phases for f in p.failures]
    print("\n".join(failures) or "nothing grew beyond its bound, every result was right")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
