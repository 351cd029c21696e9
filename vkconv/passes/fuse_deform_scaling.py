"""What scales and shifts the channels behind a deformable convolution goes into its weights.

    s (W * samples(x) + b) + t  =  (s W) * samples(x) + (s b + t)

with s and t one number per channel: BatchNormalization in its inference form, constant factors and
offsets, one behind the other. A deformable convolution is no map that shifts with its input, so it
has no place in ``linear_map``; but it is linear in its weights, and that is all this takes.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from vkconv.ir import Array, Fusion, Graph, Names, Node, constant
from vkconv.passes.linear_nodes import read_scaling
from vkconv.passes.linear_spaces import Space
from vkconv.passes.patterns import single_user

_ALGEBRA = "W' = s W, b' = s b + t; BN: s = gamma / sqrt(var + eps), t = beta - s mean"


def fuse_deform_scaling(graph: Graph, reserved: Collection[str] = ()) -> None:
    """``reserved``: names of nodes that belong to something else and stay."""
    found = [n for n in graph.nodes if n.op_type == "DeformConv" and not n.domain]
    if not found:
        return
    uses = graph.uses()
    names = Names({v.name for v in graph.values()})
    for conv in found:
        weights = _weights(conv)
        if weights is None:
            continue
        kernel, bias = weights[0].astype(np.float64), weights[1].astype(np.float64)
        gone: list[Node] = []
        value = conv.outputs[0]
        while True:
            after = single_user(graph, value, uses)
            if after is None or after.name in reserved:
                break
            scaling = read_scaling(after, value, Space(kernel.shape[0], 4))
            if scaling is None:
                break
            factor, offset = scaling
            with np.errstate(all="ignore"):
                kernel = kernel * factor[:, None, None, None]
                bias = bias * factor + offset
            gone.append(after)
            value = after.outputs[0]
        dtype = weights[0].dtype
        with np.errstate(all="ignore"):
            rounded = kernel.astype(dtype), bias.astype(dtype)
        if gone and all(np.isfinite(a).all() for a in rounded):
            _absorb(graph, conv, gone, rounded, names)


def _weights(conv: Node) -> tuple[Array, Array] | None:
    """Kernel and bias, zeros where there is none; None where they are computed."""
    inputs = [*conv.inputs, None, None]
    kernel, bias = inputs[1], inputs[3]
    if kernel is None or kernel.array is None or kernel.array.dtype.kind != "f":
        return None
    if kernel.array.ndim != 4 or len(conv.outputs) != 1:
        return None
    outputs = kernel.array.shape[0]
    if bias is None:
        return kernel.array, np.zeros(outputs, kernel.array.dtype)
    if bias.array is None or bias.array.shape != (outputs,):
        return None
    return kernel.array, bias.array


def _absorb(
    graph: Graph, conv: Node, gone: list[Node], weights: tuple[Array, Array], names: Names
) -> None:
    kernel, bias, *mask = [*conv.inputs[1:2], *(conv.inputs[3:4] or [None]), *conv.inputs[4:]]
    assert kernel is not None
    called = f"{conv.name}/bias" if bias is None else f"{bias.name}/fused"
    conv.inputs = [
        conv.inputs[0],
        constant(names.free(f"{kernel.name}/fused"), weights[0]),
        conv.inputs[2],
        constant(names.free(called), weights[1]),
        *mask,
    ]
    result = gone[-1].outputs[0]
    conv.outputs, result.producer = [result], conv
    graph.nodes = [n for n in graph.nodes if n not in gone]
    conv.fused += [name for n in gone for name in (n.name, *n.fused)]
    kind = " + ".join(["DeformConv", *(n.op_type for n in gone)])
    graph.fusions.append(Fusion(kind, tuple(n.name for n in gone), conv.name, _ALGEBRA))
