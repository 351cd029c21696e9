"""One block of runs in a process of its own, or one of the preparations.

    python -m vkconv.benchmark.worker JOB.json REPLY.json

The reply is JSON: times, memory, versions, or why there are none.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.benchmark.runtimes import CLASSES, Job, NotMeasured, Runtime, Vkconv
from vkconv.ir import Array

if TYPE_CHECKING:
    from vkconv.profiler import Profile

__all__ = ["main"]

Reply = dict[str, Any]
#: nodes of a profile that are reported; the rest is one sum
COSTLIEST = 40


def main(job_file: str, reply_file: str) -> None:
    """Does the job and writes the reply; what goes wrong becomes the reply's reason."""
    job = json.loads(Path(job_file).read_text())
    work = {"inputs": make_inputs, "pnnx": convert_for_ncnn}.get(job["runtime"], measure)
    try:
        reply = work(job)
    except NotMeasured as error:
        reply = {"reason": str(error)}
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        reply = {"reason": f"{type(error).__name__}: {first_line}"}
    Path(reply_file).write_text(json.dumps(reply))


# --- preparations --------------------------------------------------------------------------------


def make_inputs(job: Job) -> Reply:
    """Store reproducible inputs; their shapes. Sizes that the model leaves open are the job's, or 1
    for the first axis."""
    from vkconv.onnx_reader import read_model

    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    inputs = {value.name: value.type for value in read_model(job["model"]).inputs}
    if unknown := sorted(set(job["shapes"]) - set(inputs)):
        raise NotMeasured(f"the model has no input '{unknown[0]}', only {', '.join(inputs)}")
    for name, type_ in inputs.items():
        shape = job["shapes"].get(name)
        if type_ is None or type_.shape is None:
            fits, sizes = shape is not None, list(shape or [])
        else:
            known = [d if isinstance(d, int) else None for d in type_.shape]
            sizes = list(shape or [1 if d is None and not i else d for i, d in enumerate(known)])
            fits = len(sizes) == len(known) and None not in sizes
            fits = fits and all(k in (None, s) for k, s in zip(known, sizes, strict=True))
        if not fits:
            given = "x".join("?" if d is None else str(d) for d in sizes)
            raise NotMeasured(
                f"input '{name}' needs a size that fits ({given}): --shape '{name}=N,N,...'"
            )
        feeds[name] = _random(random, "float32" if type_ is None else type_.dtype, sizes)
    np.savez(job["feeds"], **feeds)  # type: ignore[arg-type]
    return {"shapes": {name: list(array.shape) for name, array in feeds.items()}}


def _random(random: np.random.Generator, dtype: str, sizes: list[int]) -> Array:
    """Pixels in [0, 1), or integers 0 and 1, which are indices of almost any table."""
    if dtype.startswith("float"):
        return random.random(sizes, np.float32).astype(dtype)
    if dtype == "string":
        raise NotMeasured("models that take strings are not measured")
    return random.integers(0, 2, sizes).astype(dtype)


def convert_for_ncnn(job: Job) -> Reply:
    """Have pnnx convert the model; the two files that ncnn reads."""
    program = shutil.which("pnnx", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if program is None:
        raise NotMeasured("pnnx, which converts models for ncnn, is not installed")
    folder = Path(job["folder"])
    model = Path(shutil.copy(job["model"], folder / "net.onnx"))
    shapes = ",".join(str(s).replace(" ", "") for s in job["input_shapes"].values())
    done = subprocess.run(
        [program, model.name, f"inputshape={shapes}", "fp16=0"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    files = [folder / "net.ncnn.param", folder / "net.ncnn.bin"]
    if done.returncode or not all(file.is_file() for file in files):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise NotMeasured(f"pnnx cannot convert the model: {last[0]}")
    return {"files": [str(file) for file in files]}


# --- a block -------------------------------------------------------------------------------------


def measure(job: Job) -> Reply:
    """Load and run once (the time to the first result), warm up, note the time of each run."""
    with np.load(job["feeds"]) as stored:
        feeds = dict(stored)
    try:
        runtime = CLASSES[job["runtime"]]()
    except ImportError as error:
        raise NotMeasured(f"{error.name} is not installed") from None
    clock = time.perf_counter
    began = clock()
    runtime.load(job, feeds)
    loaded = clock()
    outputs = runtime.run()
    first = clock()
    if job["outputs"]:
        np.savez(job["outputs"], *outputs)
    until = clock() + job["warm_up"]
    runtime.run()
    while clock() < until:
        runtime.run()
    times: list[float] = []
    until = clock() + job["seconds"]
    while len(times) < job["least_runs"] or clock() < until:
        start = clock()
        runtime.run()
        times.append(clock() - start)
    versions = {name: _version(name) for name in runtime.packages}
    reply: Reply = {
        "load": loaded - began,
        "first": first - began,
        "times": times,
        "peak": _peak_memory(),
        "device": runtime.device(),
        "versions": {name: v for name, v in versions.items() if v},
    }
    return reply | _particulars(runtime, feeds, job)


def _particulars(runtime: Runtime, feeds: Mapping[str, Array], job: Job) -> Reply:
    """What only vkconv tells: its memory, and a profile with the device's ceilings."""
    if not isinstance(runtime, Vkconv):
        return {}
    memory = runtime.session.memory
    info = runtime.session.device
    reply: Reply = {
        "device_name": info.name,
        "memory": {
            name: getattr(memory, name)
            for name in ("weights", "arena", "arena_lower_bound", "staging", "host_weights")
        },
    }
    if job["profile"]:
        from vkconv.ceilings import measure_ceilings

        best = _best_profile(runtime, feeds)
        if info.kind != "reference":
            best.ceilings = measure_ceilings(info.index, again=True)
        rows = best.rows()
        rest = rows[COSTLIEST:]
        reply["profile"] = {
            "wall": best.wall,
            "gpu": best.seconds_on("gpu"),
            "host": best.seconds_on("host"),
            "flops": sum(row.flops for row in rows),
            "ceilings": best.ceilings and vars(best.ceilings),
            "rows": [vars(row) for row in rows[:COSTLIEST]],
            "rest": {"nodes": len(rest), "seconds": sum(row.seconds for row in rest)},
        }
    return reply


def _best_profile(runtime: Vkconv, feeds: Mapping[str, Array]) -> Profile:
    """The quickest of as many profiled runs as a second holds, three at least."""
    until = time.perf_counter() + 1.0
    runs: list[Profile] = []
    while len(runs) < 4 or (len(runs) < 30 and time.perf_counter() < until):
        runs.append(runtime.session.profile(feeds))
    # the first has to make its recordings
    return min(runs[1:], key=lambda run: run.wall)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _peak_memory() -> int:
    """The most bytes this process held. On Linux ru_maxrss starts with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    # without the destructors of the libraries measured, some of which abort at exit
    os._exit(0)
