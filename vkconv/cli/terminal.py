"""What every command shares: one-line errors, exit codes, and where text goes.

Exit codes: 0 done, 1 an error at run time, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

from vkconv.cli.signals import Terminated, raised_signals

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Parser", "console_on", "guarded", "one_line", "printable"]

DEBUG_VARIABLE = "VKCONV_TRACEBACK"
_UNFOLDED = 1000
# These concern the developers of libraries, not the user of a command. (A file is left unclosed
# where a signal comes in the middle of an import.)
_DEVELOPERS_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)
# A message may quote names from a model, and those may be of any length.
_LONGEST_LINE = 2000


class Parser(argparse.ArgumentParser):
    """argparse, with usage errors on one line."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{self.prog}: error: {message} (see '{self.prog} --help')")
        raise SystemExit(2)


def guarded(program: str, command: Callable[[], int]) -> int:
    """Run a command; whatever goes wrong becomes one line on stderr and an exit code."""
    from vkconv.errors import VkconvError

    for stream in (sys.stdout, sys.stderr):
        # Names from models and files may not exist in the terminal's encoding.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with raised_signals(), warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _warning_line(program)
            code = _exit_code(command)
        if sys.stdout is not None:
            # Here, and not at the interpreter's exit, a broken pipe can still be told apart.
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _complain(f"{program}: interrupted")
        return 130
    except Terminated:
        _complain(f"{program}: terminated")
        return 143
    except BrokenPipeError:
        _discard_stdout()
        return 1
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if isinstance(error, VkconvError):
            message = str(error) or type(error).__name__
        elif isinstance(error, MemoryError):
            message = "not enough memory; use a smaller image or model"
        elif isinstance(error, OSError):
            where = f"'{error.filename}': " if error.filename else ""
            message = f"{where}{error.strerror or error}"
        else:
            message = (
                f"unexpected {type(error).__name__}: {error}; this is a fault of vkconv, please "
                f"report it with the output of {DEBUG_VARIABLE}=1"
            )
        _complain(f"{program}: error: {message}")
        return 1


def _exit_code(command: Callable[[], int]) -> int:
    """What the command returns, or what argparse, which ends --help and wrong usage by itself,
    says."""
    try:
        return command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def one_line(text: str) -> str:
    """Text on one line, without control characters: nothing in it can steer the terminal."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """Control characters, ANSI escapes among them, become spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def console_on(stream: IO[str] | None) -> Console:
    """A rich console on a stream; on a pipe or in a file no line of a table is folded."""
    from rich.console import Console

    if stream is None:
        # Python sets a standard stream to None when the caller closed it.
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _UNFOLDED
    return console


def _warning_line(program: str) -> Callable[..., None]:
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        is_theirs = issubclass(category, _DEVELOPERS_WARNINGS)
        if not is_theirs and str(message) not in shown:
            shown.add(str(message))
            _complain(f"{program}: warning: {message}")

    return show


def _complain(text: str) -> None:
    with suppress(OSError):
        if sys.stderr is not None:
            line = one_line(text)
            if len(line) > _LONGEST_LINE:
                line = line[: _LONGEST_LINE - 1] + "…"
            print(line, file=sys.stderr, flush=True)


def _discard_stdout() -> None:
    """Point stdout at the null device, so that the flush at exit does not fail once more."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
