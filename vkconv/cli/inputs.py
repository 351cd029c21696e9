"""What a command feeds a model that is run for its plan, not for its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["zeros_for"]


def zeros_for(model: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Zeros for every input of an ONNX file, of the sizes in ``shapes`` where it leaves them open.

    Raises InvalidInputError where sizes do not fit, or are open still.
    """
    import numpy as np

    from vkconv.compilation import concrete_types
    from vkconv.loading import read_onnx

    types = concrete_types(read_onnx(model).inputs, shapes)
    return {
        name: np.full(t.dims, "", object) if t.dtype == "string" else np.zeros(t.dims, t.dtype)
        for name, t in types.items()
    }
