"""Broadcasting as it was before opset 7 becomes the broadcasting of today.

Add, Sub, Mul, Div, Pow, comparisons and logic then had the attributes ``broadcast`` and ``axis``:
the second operand's dimensions are those of the first from ``axis`` on (at its end where none is
given). The slope of PRelu had one element for each channel. A Reshape that adds the missing
dimensions of one at the end says the same.

Not a pass of its own: ``infer_and_fold`` calls it when it comes to the node, as the ranks have to
be known.
"""

from __future__ import annotations

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Node, Value, constant

#: the first opset with today's rule
TODAY = 7


def align_operands(node: Node) -> Node | None:
    """The Reshape that the node, which reads it from now on, needs; None when it needs none."""
    if node.domain or node.opset >= TODAY or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if a is None or b is None or a.type is None or b.type is None:
        return None
    if a.type.shape is None or not b.type.is_static:
        return None
    rank, dims = len(a.type.shape), b.type.dims
    if node.op_type == "PRelu":
        axis = 1 if len(dims) == 1 and dims != (1,) else None
    else:
        axis = node.attributes.pop("axis", None) if node.attributes.pop("broadcast", 0) else None
    if axis is None or b.type.size == 1:
        return None
    axis += rank if axis < 0 else 0
    missing = rank - axis - len(dims)
    if axis < 0 or missing < 0:
        raise InvalidModelError(
            f"{node}: shape {dims} at axis {axis} does not fit a tensor of rank {rank}"
        )
    if not missing:
        return None
    name = f"{node.name}/aligned"
    shape = constant(f"{name}_shape", np.array([*dims, *[1] * missing], np.int64))
    aligned = Value(name)
    node.inputs[1] = aligned
    # the form with the shape as an input exists since opset 5
    return Node("Reshape", [b, shape], [aligned], {}, name, "", max(node.opset, 5))
