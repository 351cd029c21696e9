"""GroupNormalization as exporters spell it out for opsets that have no such operator.

    (N, C, ...) -> Reshape (N, G, -1) -> InstanceNormalization (scale s, bias t per group)
                -> Reshape (N, C, ...) [-> Mul by w per channel] [-> Add of b per channel]

is y = (n s + t) w + b with n the input normalised per group: one GroupNormalization of scale s w
and bias t w + b, each group's s and t standing at all of its channels. It keeps its input's layout,
where the reshapes would force it out of C4.
"""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array, Graph, Node, Value, constant
from vkconv.passes.patterns import produced_by, single_user

#: scale and bias are per channel since
_OPSET = 21


def recognise_group_normalization(graph: Graph) -> None:
    """Needs concrete shapes; what has none yet is left alone."""
    uses = graph.uses()
    for node in list(graph.nodes):
        if node.op_type == "InstanceNormalization" and not node.domain:
            _recognise(graph, node, uses)


def _recognise(graph: Graph, norm: Node, uses: dict[Value, list[Node]]) -> None:
    before = produced_by(norm.inputs[0], "Reshape")
    after = single_user(graph, norm.outputs[0], uses)
    if before is None or after is None or after.op_type != "Reshape" or after.domain:
        return
    x, result = before.inputs[0], after.outputs[0]
    affine = [v.array if v is not None else None for v in norm.inputs[1:3]]
    if (
        x is None
        or after.inputs[0] is not norm.outputs[0]
        or affine[0] is None
        or affine[1] is None
    ):
        return
    groups = _groups(x, before.outputs[0], result)
    if groups is None:
        return
    channels = x.dims[1]
    scale, bias = (
        np.repeat(a.astype(np.float64), channels // groups) for a in affine if a is not None
    )
    parts = [before, norm, after]
    for op_type in ("Mul", "Add"):
        step = single_user(graph, result, uses)
        factor = None if step is None or step.op_type != op_type else _per_channel(step, result)
        if step is None or factor is None:
            continue
        scale, bias = (
            (scale * factor, bias * factor) if op_type == "Mul" else (scale, bias + factor)
        )
        result = step.outputs[0]
        parts.append(step)
    last = parts[-1]
    names = [name for part in parts for name in (part.name, *part.fused) if part is not last]
    dtype = x.dtype
    last.inputs = [
        x,
        constant(f"{last.name}/scale", scale.astype(dtype)),
        constant(f"{last.name}/bias", bias.astype(dtype)),
    ]
    last.op_type, last.opset = "GroupNormalization", _OPSET
    last.attributes = {"num_groups": groups, "epsilon": norm.attributes.get("epsilon", 1e-5)}
    last.fused += names
    # the first Reshape may have other readers, and goes when it has none
    graph.remove([part for part in parts[1:] if part is not last])


def _groups(x: Value, grouped: Value, result: Value) -> int | None:
    """How many groups of channels the reshapes make of ``x``, if that is what they do."""
    if any(v.type is None or not v.type.is_static for v in (x, grouped, result)):
        return None
    shape = x.dims
    if len(shape) < 3 or result.dims != shape or len(grouped.dims) < 3:
        return None
    groups = grouped.dims[1]
    if grouped.dims[0] != shape[0] or groups < 1 or shape[1] % groups:
        return None
    return groups


def _per_channel(step: Node, tensor: Value) -> Array | None:
    """The other operand of a Mul or Add of ``tensor``: constant, one number for each channel."""
    if step.domain or len(step.inputs) != 2 or tensor not in step.inputs:
        return None
    other = step.inputs[1] if step.inputs[0] is tensor else step.inputs[0]
    shape = tensor.dims
    if other is None or other.array is None or other.array.ndim > len(shape):
        return None
    wide = other.array.astype(np.float64)
    wide = wide.reshape((1,) * (len(shape) - wide.ndim) + wide.shape)
    if wide.shape[1] not in (1, shape[1]) or wide.size != wide.shape[1]:
        return None
    return np.broadcast_to(wide.reshape(-1), (shape[1],))
