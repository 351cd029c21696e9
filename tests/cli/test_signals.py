"""Signals while a command runs: raised where it is, but not in the middle of an import."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vkconv.cli.terminal import guarded

BOTH = pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
#: a library that passes over whatever is raised while it is imported
LIBRARY = """
import os, signal, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(0.1)
except BaseException:
    pass
is_whole = True
"""


@pytest.fixture(autouse=True)
def _sigint_as_in_a_terminal() -> Iterator[None]:
    """A shell starts what runs in the background with SIGINT ignored, and so do the tests there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers() -> list[object]:
    return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]


@BOTH
def test_a_signal_ends_a_command_with_one_line(capsys, number: int, code: int, word: str) -> None:
    def command() -> int:
        os.kill(os.getpid(), number)
        time.sleep(10)
        return 0

    assert guarded("vkconv", command) == code
    assert capsys.readouterr().err == f"vkconv: {word}\n"
    # the process is to end: the next signal does that, and raises nothing on the way
    assert handlers() == [signal.SIG_DFL] * 3


def test_handlers_are_the_callers_again_after_a_command() -> None:
    before = handlers()
    assert guarded("vkconv", lambda: 0) == 0
    assert handlers() == before and signal.default_int_handler in before


@BOTH
def test_an_import_ends_first(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    name = f"library_for_{word}"
    (tmp_path / f"{name}.py").write_text(LIBRARY.format(number=int(number)))
    monkeypatch.syspath_prepend(str(tmp_path))

    def command() -> int:
        importlib.import_module(name)
        time.sleep(10)
        return 0

    began = time.monotonic()
    assert guarded("vkconv", command) == code
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err == f"vkconv: {word}\n"
    assert sys.modules.pop(name).is_whole


def test_a_handler_of_the_caller_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: met.append(number))
    try:
        assert guarded("vkconv", lambda: os.kill(os.getpid(), signal.SIGTERM) or 0) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert met == [signal.SIGTERM]
