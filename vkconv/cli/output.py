"""Files a command writes: checked before the work starts, complete or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vkconv.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_apart", "check_writable", "encode_image", "replacing", "write_bytes"]

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


def check_writable(path: str, what: str) -> None:
    """Raise InvalidInputError unless a file can be written at ``path``; ``what`` names it."""
    folder = os.path.dirname(os.path.abspath(path))
    if path == "" or os.path.isdir(path):
        raise InvalidInputError(f"cannot write {what} to '{path}': it is a folder; name a file")
    if not os.path.isdir(folder):
        raise InvalidInputError(
            f"cannot write {what} to '{path}': there is no folder '{folder}'; create it first"
        )
    place = path if os.path.exists(path) else folder
    if not os.access(place, os.W_OK) or not os.access(folder, os.X_OK):
        raise InvalidInputError(
            f"cannot write {what} to '{path}': no permission to write '{place}'"
        )


def check_apart(outputs: Iterable[tuple[str, str]], inputs: Iterable[tuple[str, str]]) -> None:
    """Raise InvalidInputError when an output would overwrite an input or another output.

    Both are (what, path) pairs.
    """
    taken = {os.path.realpath(path): what for what, path in inputs}
    for what, path in outputs:
        real = os.path.realpath(path)
        if real in taken:
            raise InvalidInputError(
                f"{what} '{path}' would overwrite {taken[real]}; choose another name"
            )
        # Devices such as the null device take any number of files.
        if os.path.isfile(real) or not os.path.exists(real):
            taken[real] = what


def check_image_name(path: str) -> None:
    """Raise InvalidInputError when no image format goes by the extension of ``path``."""
    _format_of(path)


def encode_image(image: Image, path: str) -> bytes:
    """The bytes of an image file, in the format that the extension of ``path`` asks for."""
    import io

    # A name without extension, such as the null device's, gets a PNG.
    encoding = _format_of(path)
    buffer = io.BytesIO()
    try:
        if encoding == "JPEG":
            image.save(buffer, "JPEG", quality=92)
        else:
            image.save(buffer, encoding)
    # Formats limit the size of pictures, and each encoder says so with another exception.
    except Exception as error:
        raise InvalidInputError(
            f"cannot write the picture as {encoding} ({error}); use a name that ends in .png"
        ) from error
    return buffer.getvalue()


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
    real = os.path.realpath(path)
    is_device = os.path.exists(real) and not os.path.isfile(real)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(
            prefix=".vkconv-",
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
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {what} to '{path}': {error.strerror or error}"
        ) from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


def _format_of(path: str) -> str:
    extension = os.path.splitext(path)[1].lower()
    if extension == "" and os.path.exists(path) and not os.path.isfile(path):
        return "PNG"
    if extension not in _FORMATS:
        named = f"'{extension}'" if extension else "no extension"
        raise InvalidInputError(
            f"the output '{path}' has {named}; end its name in one of {', '.join(_FORMATS)}"
        )
    return _FORMATS[extension]


def _mode_for(path: str) -> int:
    """The permissions the file has, or those a new file gets (mkstemp's are private)."""
    with suppress(OSError):
        return os.stat(path).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
