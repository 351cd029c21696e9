"""Rewrites of the graph, one per file; PASSES is their order.

Every pass keeps the model's meaning, edits the graph in place and tolerates values without types,
so that the passes before ``assign_layouts`` can run once at load and again for each set of concrete
shapes.
"""

from __future__ import annotations

from collections.abc import Callable

from vkconv.capabilities import DeviceCaps
from vkconv.ir import Graph
from vkconv.passes.assign_layouts import assign_layouts
from vkconv.passes.bound_integers import bound_integers
from vkconv.passes.cancel_transposes import cancel_transposes
from vkconv.passes.eliminate_identities import eliminate_identities
from vkconv.passes.fuse_activation import fuse_activation
from vkconv.passes.fuse_affine import fuse_affine
from vkconv.passes.fuse_attention import fuse_attention
from vkconv.passes.fuse_batch_normalization import fuse_batch_normalization
from vkconv.passes.fuse_layer_normalization import fuse_layer_normalization
from vkconv.passes.fuse_residual import fuse_residual
from vkconv.passes.infer_and_fold import infer_and_fold, unresolved
from vkconv.passes.recognise_activations import recognise_activations
from vkconv.passes.recognise_group_normalization import recognise_group_normalization

__all__ = ["PASSES", "assign_layouts", "finish", "infer_and_fold", "rewrite", "unresolved"]

#: fusions in order; infer_and_fold runs before them, assign_layouts after
PASSES: tuple[Callable[[Graph], None], ...] = (
    eliminate_identities,
    cancel_transposes,
    recognise_activations,
    recognise_group_normalization,
    fuse_layer_normalization,
    fuse_attention,
    fuse_batch_normalization,
    fuse_affine,
    fuse_activation,
    fuse_residual,
    bound_integers,
)


def rewrite(graph: Graph, after: str | None = None) -> None:
    """Run the fusions in order; stop behind the pass called ``after``."""
    for run in PASSES:
        run(graph)
        graph.keep_live()
        if run.__name__ == after:
            return


def finish(graph: Graph, caps: DeviceCaps) -> None:
    """The last step before planning, for a graph whose types are concrete."""
    graph.keep_live()
    assign_layouts(graph, caps)
