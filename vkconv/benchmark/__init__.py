"""vkconv beside other runtimes: the same model, input, machine and driver, outputs compared.

Every block of runs has a process of its own: the threads of one runtime would spin into the next
one's time. Blocks take turns (A B C A B C) with pauses between: a slow minute hits all alike.

    worker, runtimes   the process of a block; libraries are imported there, and by name
    turns              starts the processes; what came of them is a ``Result``
    figures            percentiles, ratios, and what a suite of models adds up to
    markdown, page     the same as text and as one HTML page; charts: its plots
"""

from __future__ import annotations

from vkconv.benchmark.figures import Result
from vkconv.benchmark.turns import RUNTIMES, Settings, compare

__all__ = ["RUNTIMES", "Result", "Settings", "compare"]
