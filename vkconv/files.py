"""Files written whole or not at all, parts of files, and the user's cache folder.

Whatever this package writes (pictures, models, plans, traces, caches) goes to a temporary file
beside the target and takes its place in one step, so that no reader sees half a file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path

from vkconv.errors import InvalidInputError

__all__ = [
    "Read",
    "cache_folder",
    "reading",
    "reading_bytes",
    "remove_leftovers",
    "replacing",
    "write_bytes",
]

#: fills a target with the bytes of a file from an offset on; False where the file ends before
Read = Callable[[memoryview, int], bool]

_PREFIX = ".vkconv-"
#: seconds after which a temporary file is nobody's: its process was killed
_LEFT_OVER = 3600.0


def cache_folder() -> Path:
    """Where cache files lie: VKCONV_CACHE_DIR, or the user's cache folder.

    Raises RuntimeError or OSError where the user has no home folder.
    """
    given = os.environ.get("VKCONV_CACHE_DIR")
    if given:
        return Path(given)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("vkconv"))


def write_bytes(path: str, data: bytes, what: str) -> None:
    """Write a whole file or none; InvalidInputError, with the cause, when it cannot be written."""
    with replacing(path, what) as temporary, open(temporary, "wb") as file:
        file.write(data)


@contextmanager
def replacing(path: str, what: str) -> Iterator[str]:
    """The name of a temporary file that takes the place of ``path`` when the block succeeds.

    A symbolic link stays, and its target is replaced. A device stays too, the null device above
    all: what was written is copied into it. Raises InvalidInputError, with the cause, when the file
    cannot be written.
    """
    temporary = ""
    try:
        real = os.path.realpath(path)
        is_device = os.path.exists(real) and not os.path.isfile(real)
        handle, temporary = tempfile.mkstemp(
            prefix=_PREFIX,
            suffix=os.path.splitext(real)[1],
            dir=None if is_device else os.path.dirname(real),
        )
        os.close(handle)
        yield temporary
        if is_device:
            with open(temporary, "rb") as source, open(real, "wb") as device:
                shutil.copyfileobj(source, device)
        else:
            os.chmod(temporary, _mode_for(real))
            os.replace(temporary, real)
            temporary = ""
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"cannot write {what} to '{path}': {why}") from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


def remove_leftovers(folder: Path) -> None:
    """Deletes temporary files in ``folder`` whose process was killed while it wrote. Never fails:
    what another process deletes meanwhile, or keeps open, is passed over."""
    with suppress(OSError):
        for path in list(folder.glob(f"{_PREFIX}*")):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER:
                    path.unlink()


def reading_bytes(data: bytes) -> Read:
    """Reads parts of ``data`` as if of a file."""
    whole = memoryview(data)

    def read(target: memoryview, offset: int) -> bool:
        part = whole[offset : offset + len(target)]
        target[: len(part)] = part
        return len(part) == len(target)

    return read


def reading(file: BufferedReader | FileIO) -> Read:
    """Reads parts of ``file``. Threads may call it."""
    lock = threading.Lock()

    def some(target: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(file.fileno(), [target], offset)
        with lock:  # Windows
            file.seek(offset)
            return file.readinto(target) or 0

    def read(target: memoryview, offset: int) -> bool:
        done = 0
        while done < len(target):
            count = some(target[done:], offset + done)
            if count == 0:
                return False
            done += count
        return True

    return read


def _mode_for(path: str) -> int:
    """The permissions the file has, or those a new file gets (mkstemp's are private)."""
    with suppress(OSError):
        return os.stat(path).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
