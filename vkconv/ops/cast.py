"""Cast and CastLike: another element type.

On the device every element is a float32 or an int32, so that many casts are views: among floats upwards, among
integers where nothing can wrap. float64, uint32, uint64 and text are cast on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from onnx_types_placeholder import X
