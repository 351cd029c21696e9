"""An activation behind a convolution moves into the convolution's epilogue."""

from __future__ import annotations

from vkconv.ir import Graph, Node
from vkconv.passes.patterns import activation_of, single_user

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def fuse_activation(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        if node.op_type not in _CONVOLUTIONS or "activation" in node.attributes:
            continue
        reader = single_user(graph, node.outputs[0], uses)
        if reader is not None and absorb_activation(node, reader):
            graph.remove([reader])


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
    conv.domain, conv.opset = "vkconv", 1
    conv.attributes |= {"activation": int(kind), "activation_alpha": alpha, "activation_beta": beta}
    conv.fused += [reader.name, *reader.fused]
    conv.outputs = reader.outputs
    conv.outputs[0].producer = conv
    return True
