"""What a model's metadata says of its input: how a picture becomes the numbers it takes.

Each function reads one entry; one that is not there leaves the default, and one that is malformed
is an InvalidModelError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from vkconv.errors import InvalidModelError
from vkconv.vision.head_outputs import short

__all__ = ["channels", "input_scale", "metadata_input_size", "one_of"]


def metadata_input_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """(width, height) that the model was exported for, what to feed where its input leaves the size
    open: Ultralytics' ``imgsz``, "[height, width]". None where it does not say."""
    sides = re.fullmatch(r"\s*\[\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\]\s*", metadata.get("imgsz", ""))
    return (int(sides[2]), int(sides[1])) if sides else None


def input_scale(metadata: Mapping[str, str], default: float) -> float:
    text = metadata.get("vkconv.input_scale")
    if text is None:
        return default
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or scale <= 0.0:
        raise InvalidModelError(
            f"vkconv.input_scale in the model's metadata must be a positive number, "
            f"not '{short(text)}'"
        )
    return scale


def one_of(
    metadata: Mapping[str, str],
    key: str,
    choices: Sequence[str],
    default: str,
) -> str:
    text = metadata.get(key, default)
    if text.strip().lower() not in choices:
        raise InvalidModelError(
            f"{key} in the model's metadata must be {' or '.join(choices)}, not '{short(text)}'"
        )
    return text.strip().lower()


def channels(
    metadata: Mapping[str, str], key: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    """One number, or one for each of three channels; a divisor is not 0."""
    text = metadata.get(key)
    if text is None:
        return default
    try:
        values = json.loads(text)
        numbers = tuple(float(v) for v in (values if isinstance(values, list) else [values]))
    except (ValueError, TypeError, RecursionError, OverflowError):
        numbers = ()
    usable = all(math.isfinite(v) and (v > 0 or key != "vkconv.std") for v in numbers)
    if len(numbers) not in (1, 3) or not usable:
        raise InvalidModelError(
            f"{key} in the model's metadata must be a JSON list of a number for each of three "
            f"channels, not '{short(text)}'"
        )
    return numbers
