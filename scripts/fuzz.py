#!/usr/bin/env python3
"""The fuzzing campaign: hostile models, plan files and pictures, in watched worker processes.

    python scripts/fuzz.py --count 200000 --workers 4 --out fuzz-out     # goes on where it stopped
    python scripts/fuzz.py --target plan --count 20000 --out fuzz-plans
    python scripts/fuzz.py --show 4711                    # one mutant, in this process
    python scripts/fuzz.py --minimise fuzz-out/findings/4711.onnx

Mutant n is the same wherever it is made from the same seeds, so a number is all a report needs. A
worker lives in a process of its own, with a limit on its address space and faulthandler on; one
that dies, or says nothing for HANG_SECONDS, is a finding, and another takes its place. What counts
as a finding is in tests/fuzz/trials.py. docs/reliability.md has the last campaign's figures.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: by the wall's clock; a trial's CPU time is held against a limit of its own
HANG_SECONDS = 40.0
#: and for making the seeds
START_SECONDS = 300.0
#: bytes a worker may map beyond what it has when its devices are open
ADDRESS_SPACE = 3 << 30
#: mutants that a worker is sent at a time
BATCH = 50
#: and for all its life: what drivers keep of pipelines adds up
LIFE = 20_000
#: every so many models goes through vkconv.fuse as well
FUSED = 6
SUFFIXES = {"model": ".onnx", "plan": ".vkplan", "picture": ".picture"}


@dataclass
class Record:
    """What a campaign has done so far; a file of it makes the campaign resumable."""

    target: str
    next: int
    done: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, target: str, start: int) -> Record:
        if not path.exists():
            return cls(target, start)
        found = cls(**json.loads(path.read_text()))
        found.stages, found.errors = Counter(found.stages), Counter(found.errors)
        if found.target != target:
            raise SystemExit(f"{path} is a campaign of '{found.target}', not of '{target}'")
        return found

    def write(self, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(vars(self), indent=1))
        temporary.replace(path)

    def __str__(self) -> str:
        lines = [
            f"{self.done} mutants of kind '{self.target}' in {self.seconds:.0f} s, "
            f"{1000 * self.cpu_seconds / max(self.done, 1):.1f} ms of CPU each; "
            f"{len(self.findings)} findings"
        ]
        for title, counts in (("came as far as", self.stages), ("ended with", self.errors)):
            parts = [f"{k or 'no error'} {n} ({100 * n / self.done:.1f}%)"
                     for k, n in counts.most_common()]  # fmt: skip
            lines.append(f"  {title}: {', '.join(parts)}")
        lines += [f"  {f['number']}: {f['finding'][:160]}" for f in self.findings[-20:]]
        return "\n".join(lines)


# --- the parent -----------------------------------------------------------------------------------


class Worker:
    """A process that tries the mutants it is sent, and the numbers it still owes."""

    def __init__(self, target: str, out: Path, index: int) -> None:
        self.log = open(out / f"worker-{index}.log", "w+b")  # noqa: SIM115
        command = [sys.executable, __file__, "--work", "--target", target, "--out", str(out)]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.index, self.done, self.heard = index, 0, time.monotonic()
        self.owed: list[int] = []
        self._unread = b""
        self.is_ready = False

    @property
    def output(self) -> IO[bytes]:
        assert self.child.stdout is not None
        return self.child.stdout

    def lines(self) -> list[bytes] | None:
        """What it wrote since, whole lines; None at its end."""
        data = os.read(self.output.fileno(), 1 << 16)
        *lines, self._unread = (self._unread + data).split(b"\n")
        return lines if data else None

    def send(self, first: int, count: int) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{first} {count}\n".encode())
        self.child.stdin.flush()
        self.owed = list(range(first, first + count))
        self.heard = time.monotonic()

    def end(self) -> str:
        """Kills it; the end of what it wrote to stderr."""
        self.child.kill()
        self.child.wait()
        self.log.seek(0)
        text = self.log.read()[-4000:].decode("utf-8", "replace")
        for file in (self.child.stdin, self.child.stdout, self.log):
            if file is not None:
                file.close()
        return text


def campaign(target: str, count: int, start: int, workers: int, out: Path) -> Record:
    (out / "findings").mkdir(parents=True, exist_ok=True)
    record = Record.read(out / "record.json", target, start)
    left = [*range(record.next, record.next + max(0, count - record.done), BATCH)]
    last = record.next + max(0, count - record.done)
    again: list[int] = []  # what a dead worker still owed
    began, before, saved = time.monotonic(), record.seconds, 0.0
    pool: list[Worker] = []
    with selectors.DefaultSelector() as selector:

        def start_worker(index: int) -> None:
            worker = Worker(target, out, index)
            pool.append(worker)
            selector.register(worker.output, selectors.EVENT_READ, worker)

        def stop(worker: Worker) -> str:
            selector.unregister(worker.output)
            pool.remove(worker)
            return worker.end()

        def next_batch(worker: Worker) -> bool:
            if again:
                worker.send(again.pop(), 1)
            elif left:
                first = left.pop(0)
                worker.send(first, min(BATCH, last - first))
                record.next = max(record.next, first + BATCH)
            else:
                return False
            return True

        for index in range(workers):
            start_worker(index)
        while pool:
            for key, _ in selector.select(timeout=1.0):
                worker: Worker = key.data
                lines = worker.lines()
                if lines is None:
                    died(worker, stop(worker), "the process died", record, out, again)
                    start_worker(worker.index)
                    continue
                worker.heard = time.monotonic()
                for line in lines:
                    if line == b"ready":
                        worker.is_ready = True
                    else:
                        note(json.loads(line), worker, record)
                if lines and not worker.owed:
                    if worker.done >= LIFE:
                        stop(worker)
                        start_worker(worker.index)
                    elif not next_batch(worker):
                        stop(worker)
            for worker in list(pool):
                patience = HANG_SECONDS if worker.is_ready else START_SECONDS
                if time.monotonic() - worker.heard > patience:
                    why = f"nothing heard for {HANG_SECONDS:.0f} s"
                    died(worker, stop(worker), why, record, out, again)
                    start_worker(worker.index)
            if time.monotonic() - saved > 5:
                saved = time.monotonic()
                record.seconds = before + saved - began
                record.write(out / "record.json")
    record.seconds = before + time.monotonic() - began
    record.write(out / "record.json")
    return record


def note(line: dict[str, Any], worker: Worker, record: Record) -> None:
    """Counts what a worker said of a mutant."""
    worker.owed.remove(line["number"])
    worker.done += 1
    record.done += 1
    record.cpu_seconds += line["seconds"]
    record.stages[line["stage"]] += 1
    record.errors[line["error"]] += 1
    if line["finding"]:
        record.findings.append({"number": line["number"], "finding": line["finding"]})
        print(f"{line['number']}: {line['finding'][:200]}", flush=True)


def died(worker: Worker, text: str, why: str, record: Record, out: Path, again: list[int]) -> None:
    """The mutant a dead worker was at is a finding; the others it owed are tried again."""
    code = worker.child.returncode
    if not worker.owed:
        raise SystemExit(f"a worker could not start ({code}):\n{text}")
    number, *rest = worker.owed
    again += rest
    finding = f"{why} (exit code {code})"
    (out / "findings" / f"{number}.txt").write_text(f"{finding}\n{text}")
    record.done += 1
    record.stages["died"] += 1
    record.errors["died"] += 1
    record.findings.append({"number": number, "finding": finding})
    print(f"{number}: {finding}", flush=True)


# --- a worker -------------------------------------------------------------------------------------


def work(target: str, out: Path) -> None:
    """Tries what stdin names, "first count" a line, and says on stdout what became of each."""
    from tests.fuzz.trials import Laboratory, limited_memory

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a driver prints is no answer
    faulthandler.enable()
    make, attempt = _maker(target)
    make(0)  # the seeds take a while
    with (
        tempfile.TemporaryDirectory() as folder,
        Laboratory(Path(folder)) as laboratory,
        limited_memory(ADDRESS_SPACE),
    ):
        answers.write("ready\n")
        for line in sys.stdin:
            first, count = map(int, line.split())
            for number in range(first, first + count):
                faulthandler.dump_traceback_later(HANG_SECONDS * 0.9)
                data = make(number)
                trial = attempt(laboratory, number, data)
                if trial.finding:
                    path = out / "findings" / f"{number}{SUFFIXES[target]}"
                    path.write_bytes(data)
                    path.with_suffix(".txt").write_text(f"{trial.finding}\n{trial.details}")
                answer = {"number": number, "stage": trial.stage, "error": trial.error,
                          "finding": trial.finding, "seconds": round(trial.seconds, 4)}  # fmt: skip
                answers.write(json.dumps(answer) + "\n")
                faulthandler.cancel_dump_traceback_later()


def _maker(target: str) -> tuple[Any, Any]:
    """number -> bytes, and (laboratory, number, bytes) -> Trial."""
    from tests.fuzz import files
    from tests.fuzz.mutators import mutant

    if target == "plan":
        files.plans()  # before arenas are guarded: a plan file has none of the bands
        return files.plan_mutant, lambda lab, n, data: lab.plan(data)
    if target == "picture":
        return files.picture_mutant, lambda lab, n, data: lab.picture(data)
    return (lambda n: mutant(n)[1]), lambda lab, n, data: lab.model(data, fuse=n % FUSED == 0)


def show(target: str, number: int) -> None:
    """One mutant in this process: what becomes of it, with the traceback."""
    from tests.fuzz.trials import Laboratory

    make, attempt = _maker(target)
    data = make(number)
    with tempfile.TemporaryDirectory() as folder, Laboratory(Path(folder)) as laboratory:
        trial = attempt(laboratory, number, data)
    print(f"{trial.stage}, {trial.error or 'no error'}, {trial.seconds:.2f} s")
    print(trial.finding or "no finding", trial.details, sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=SUFFIXES, default="model")
    parser.add_argument("--count", type=int, default=1000, help="mutants in all (%(default)s)")
    parser.add_argument("--start", type=int, default=0, help="number of the first (%(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"))
    parser.add_argument("--show", type=int, metavar="NUMBER")
    parser.add_argument("--minimise", type=Path, metavar="FILE")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.target, given.out)
    elif given.show is not None:
        show(given.target, given.show)
    elif given.minimise is not None:
        from tests.fuzz.minimise import minimise_file

        print(minimise_file(given.minimise))
    else:
        record = campaign(given.target, given.count, given.start, given.workers, given.out)
        print(record)
        return 1 if record.findings else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
