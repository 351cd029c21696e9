"""Rewrites of the graph, one per file; PASSES is their order.

Every pass keeps the model's meaning, edits the graph in place and tolerates values without types,
so that the passes before ``assign_layouts`` can run once at load and again for each set of concrete
shapes.
"""

from __future__ import annotations

from collections.abc import Callable

from vkconv.capabilities import DeviceCaps
from vkconv.ir import Graph
from vkconv.passes.absorb_channel_order import absorb_channel_order
from vkconv.passes.assemble_parts import assemble_parts
from vkconv.passes.assign_layouts import assign_layouts
from vkconv.passes.bound_integers import bound_integers
from vkconv.passes.cancel_transposes import cancel_transposes
from vkconv.passes.chain_max_pools import chain_max_pools
from vkconv.passes.eliminate_identities import eliminate_identities
from vkconv.passes.fuse_activation import fuse_activation
from vkconv.passes.fuse_attention import fuse_attention
from vkconv.passes.fuse_bias import fuse_bias
from vkconv.passes.fuse_channel_scale import fuse_channel_scale
from vkconv.passes.fuse_conversion_affine import fuse_conversion_affine
from vkconv.passes.fuse_deform_operands import fuse_deform_operands
from vkconv.passes.fuse_deform_scaling import fuse_deform_scaling
from vkconv.passes.fuse_layer_normalization import fuse_layer_normalization
from vkconv.passes.fuse_linear_branches import fuse_linear_branches
from vkconv.passes.fuse_residual import fuse_residual
from vkconv.passes.infer_and_fold import infer_and_fold, unresolved
from vkconv.passes.merge_parallel_convolutions import merge_parallel_convolutions
from vkconv.passes.recognise_activations import recognise_activations
from vkconv.passes.recognise_channel_shuffle import recognise_channel_shuffle
from vkconv.passes.recognise_deform_conv import recognise_deform_conv
from vkconv.passes.recognise_group_normalization import recognise_group_normalization
from vkconv.passes.split_large_weights import split_large_weights
from vkconv.passes.store_linear import store_linear

__all__ = [
    "PASSES",
    "assign_layouts",
    "finish",
    "fuse_linear",
    "infer_and_fold",
    "rewrite",
    "unresolved",
]

#: fusions in order; infer_and_fold runs before them, assign_layouts after
PASSES: tuple[Callable[[Graph], None], ...] = (
    eliminate_identities,
    cancel_transposes,
    chain_max_pools,
    recognise_channel_shuffle,
    recognise_activations,
    recognise_group_normalization,
    fuse_layer_normalization,
    fuse_attention,
    fuse_linear_branches,
    recognise_deform_conv,
    fuse_deform_scaling,
    fuse_bias,
    fuse_activation,
    fuse_residual,
    fuse_channel_scale,
    fuse_deform_operands,
    absorb_channel_order,
    merge_parallel_convolutions,
    bound_integers,
)


def rewrite(graph: Graph, after: str | None = None) -> None:
    """Run the fusions in order; stop behind the pass called ``after``."""
    for run in PASSES:
        run(graph)
        graph.keep_live()
        if run.__name__ == after:
            return


def fuse_linear(graph: Graph) -> None:
    """Fuse linear branches, and deformable convolutions spelled out: the graph stays one of
    standard ONNX operators.

    Edits ``graph`` in place, and says what it did in ``graph.fusions`` and what it left alone in
    ``graph.unfused``. Types, where the graph has them, decide more cases: run it on a graph that
    ``infer_and_fold`` has been over.
    """
    eliminate_identities(graph)
    graph.keep_live()
    reserved = _recognised(graph)
    fuse_linear_branches(graph, reserved)
    graph.keep_live()
    recognise_deform_conv(graph)
    graph.keep_live()
    fuse_deform_scaling(graph, reserved)
    graph.keep_live()


def _recognised(graph: Graph) -> set[str]:
    """Names of nodes that are part of an operator spelled out, which has a kernel of its own: a
    factor taken out of it would hide it from the passes that look for it at load."""
    trial = graph.copy()
    before = {id(n): (n.op_type, n.domain, len(n.fused)) for n in trial.nodes}
    for run in (
        recognise_activations,
        recognise_group_normalization,
        fuse_layer_normalization,
        fuse_attention,
    ):
        run(trial)
    changed = [n for n in trial.nodes if before[id(n)] != (n.op_type, n.domain, len(n.fused))]
    return {name for n in changed for name in (n.name, *n.fused)}


def finish(graph: Graph, caps: DeviceCaps) -> None:
    """The last step before planning, for a graph whose types are concrete."""
    graph.keep_live()
    split_large_weights(graph, caps)
    assign_layouts(graph, caps)
    fuse_conversion_affine(graph)
    store_linear(graph)
    assemble_parts(graph, caps)
