"""An activation moves into what stores its input: convolutions, matrix products, normalisations of
feature maps."""

from __future__ import annotations

from vkconv.ir import Graph, Node
from vkconv.ops.group_normalization import GroupNormalization
from vkconv.ops.operator import FLOATS
from vkconv.ops.registry import create
from vkconv.passes.patterns import activation_of, single_user

_CONVOLUTIONS = ("Conv", "ConvTranspose", "DeformConv")
_OTHERS = ("Gemm", "GroupNormalization", "InstanceNormalization", "MatMul")


def fuse_activation(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        if not _has_epilogue(node) or "activation" in node.attributes:
            continue
        reader = single_user(graph, node.outputs[0], uses)
        if reader is not None and absorb_activation(node, reader):
            graph.remove([reader])


def _has_epilogue(node: Node) -> bool:
    """Whether there is a form of the operator with an activation behind it."""
    if node.op_type in _CONVOLUTIONS:
        return True
    if node.op_type not in _OTHERS or node.domain not in ("", "ai.onnx", "vkconv"):
        return False
    # products of integers wrap around, and an activation's result may be no integer
    type_ = node.outputs[0].type
    return len(node.outputs) == 1 and type_ is not None and type_.dtype in FLOATS


def absorb_activation(conv: Node, reader: Node) -> bool:
    """Let ``conv`` compute what ``reader``, the only user of its output, would.

    False when that is no activation.
    """
    if reader.domain or reader.inputs[0] is not conv.outputs[0]:
        return False
    found = activation_of(reader)
    if found is None:
        return False
    kind, alpha, beta = found
    fused = create(conv)
    if isinstance(fused, GroupNormalization):
        conv.attributes |= fused.fused_attributes()
    conv.domain, conv.opset = "vkconv", 1
    conv.attributes |= {"activation": int(kind), "activation_alpha": alpha, "activation_beta": beta}
    conv.fused += [reader.name, *reader.fused]
    conv.outputs = reader.outputs
    conv.outputs[0].producer = conv
    return True
