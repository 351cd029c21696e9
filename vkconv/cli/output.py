"""Files a command writes: checked before the work starts, complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vkconv.errors import InvalidInputError
from vkconv.files import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_apart", "check_image_name", "check_writable", "encode_image", "write_text"]

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


def write_text(path: str, text: str, what: str) -> None:
    """A text file, whole or not at all; "-" is standard output."""
    if path == "-":
        print(text, end="", flush=True)
    else:
        write_bytes(path, text.encode(), what)


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
