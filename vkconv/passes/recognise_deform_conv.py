"""Deformable convolution that was traced to Pad, Floor, Clip and Gather becomes DeformConv.

    patches[n, c, i kh + ky, j kw + kx] = m[n, k, i, j] x(n, c, p + p_k + offset[n, :, k, i, j])
    y = Conv(patches, w; stride = kernel)   ->   y = DeformConv(x, w, offset', m)

where k = ky kw + kx counts taps, x(.) between pixels is bilinear, and offset' has the channels of
offset (all rows, then all columns) in DeformConv's order (row and column of each tap): the weights
of the convolution that makes them are reordered, or the channels are where that cannot be.

Nothing is replaced on its looks: what lies between is run on numbers against DeformConv
(``sampling_proof``). Where the model's sizes are open, this is done at two sets of sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vkconv.errors import VkconvError
from vkconv.ir import Dim, Fusion, Graph, Names, Node, TensorType, Unfused, Value, constant
from vkconv.passes.infer_and_fold import infer_and_fold
from vkconv.passes.patterns import produced_by
from vkconv.passes.sampling_geometry import NotSampling
from vkconv.passes.sampling_proof import check_equal, interleaving
from vkconv.passes.traced_sampling import Sampling, find_sampling, may_sample

KIND = "traced deformable convolution"
ALGEBRA = (
    "sum over taps k of w_k m_k x(p + p_k + offset_k), bilinear: Conv of stride = kernel over the "
    "sampled patches = DeformConv"
)
#: elements of the largest tensor of one proof, and of all proofs for one graph together: models
#: are untrusted, and a proof takes some 0.1 us an element
MOST_ELEMENTS = 1 << 25
MOST_ELEMENTS_IN_ALL = 1 << 27
#: open dimensions take these sizes in turn: batch; height and width; any other
_SIZES = ((1, 64, 96, 8), (2, 96, 128, 12))


def recognise_deform_conv(graph: Graph) -> None:
    """Replace the patterns proven equal; note the others in ``graph.unfused``."""
    refused = {name for entry in graph.unfused if entry.kind == KIND for name in entry.nodes}
    candidates = [n.name for n in _candidates(graph) if n.name not in refused]
    if not candidates:
        return
    samples = list(_samples(graph))
    budget = MOST_ELEMENTS_IN_ALL
    for name in candidates:
        try:
            found = [find_sampling(s, n) for s in samples for n in s.nodes if n.name == name]
            every = [sampling for sampling in found if sampling is not None]
            if not every or len(every) < len(samples):
                continue
            size = sum(s.size for s in every)
            budget -= size
            if size > MOST_ELEMENTS or budget < 0:
                raise NotSampling(f"its tensors of {size} elements are too large to compare")
            if any(s.geometry != every[0].geometry for s in every):
                raise NotSampling("stride and padding change with the size of the map")
            for sampling in every:
                check_equal(sampling)
            _replace(graph, name, every[0])
        except NotSampling as why:
            graph.unfused.append(Unfused(KIND, (name,), str(why)))


def _candidates(graph: Graph) -> list[Node]:
    """Convolutions over patches side by side, in a graph that rounds positions and gathers."""
    kinds = {n.op_type for n in graph.nodes}
    if "Floor" not in kinds or not kinds & {"GatherElements", "GatherND", "Gather"}:
        return []
    tiling = (n for n in graph.nodes if n.op_type == "Conv" and not n.domain and _is_tiling(n))
    return [n for n in tiling if may_sample(n)]


def _is_tiling(conv: Node) -> bool:
    weight = conv.inputs[1] if len(conv.inputs) > 1 else None
    if weight is None or weight.type is None or not weight.type.is_static or weight.type.rank != 4:
        return False
    given = conv.attributes
    return (
        tuple(given.get("strides", (1, 1))) == weight.dims[2:]
        and not any(given.get("pads", ()))
        and given.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and all(d == 1 for d in given.get("dilations", ()))
        and "activation" not in given
    )


# --- graphs of known sizes ------------------------------------------------------------


def _samples(graph: Graph) -> Iterator[Graph]:
    """The graph itself where all its types are known; else copies at concrete sizes."""
    if all(v.type is not None and v.type.is_static for v in graph.inputs):
        yield graph
        return
    for sizes in _SIZES:
        copy = graph.copy()
        chosen: dict[str, int] = {}
        for value in copy.inputs:
            if value.type is None or value.type.shape is None:
                return  # planned, and looked at again, when the caller's shapes are known
            shape = value.type.shape
            dims = (_size(d, i, len(shape), sizes, chosen) for i, d in enumerate(shape))
            value.type = TensorType(value.type.dtype, tuple(dims))
        try:
            infer_and_fold(copy)
        except VkconvError:
            return  # sizes that this model does not take
        yield copy


def _size(dim: Dim, axis: int, rank: int, sizes: tuple[int, ...], chosen: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    batch, height, width, other = sizes
    size = batch if axis == 0 else {2: height, 3: width}.get(axis, other) if rank == 4 else other
    return chosen.setdefault(dim, size) if dim is not None else size


# --- the replacement ------------------------------------------------------------------


def _replace(graph: Graph, name: str, sampling: Sampling) -> None:
    """Make the convolution a DeformConv of the values that the sampling begins with."""
    values = {v.name: v for v in graph.values()}
    needed = [sampling.x, sampling.offset, *([sampling.mask] if sampling.mask else [])]
    if any(v.name not in values for v in needed):
        raise NotSampling("what it reads is computed otherwise in a graph of open sizes")
    x, offset, *mask = (values[v.name] for v in needed)
    conv = next(n for n in graph.nodes if n.name == name)
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    graph.keep_live()
    conv.op_type, conv.opset = "DeformConv", max(conv.opset, 19)
    conv.inputs = [x, conv.inputs[1], offset, *([bias] if bias or mask else []), *mask]
    geometry = sampling.geometry
    conv.attributes = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.strides,
        "pads": geometry.pads,
        "dilations": geometry.dilations,
        "group": int(conv.attributes.get("group", 1)),
        "offset_group": 1,
    }
    gone = graph.keep_live()
    _interleave_offsets(graph, conv)
    conv.fused += [part for node in gone for part in (node.name, *node.fused)]
    graph.fusions.append(Fusion(KIND, tuple(n.name for n in gone), conv.name, ALGEBRA))


def _interleave_offsets(graph: Graph, conv: Node) -> None:
    """Bring the channels of the offsets into DeformConv's order."""
    offset, weight = conv.inputs[2], conv.inputs[1]
    assert offset is not None and weight is not None
    order = interleaving(weight.dims[2] * weight.dims[3])
    maker = produced_by(offset, "Conv")
    readers = graph.uses().get(offset, [])
    # who asks for the shape only does not mind
    others = [n for n in readers if n is not conv and n.op_type not in ("Shape", "Size")]
    own = maker is not None and not others and not graph.is_output(offset)
    if own and maker is not None and int(maker.attributes.get("group", 1)) == 1:
        made_by = maker.inputs[1:]
        if all(v is None or v.array is not None for v in made_by):
            reordered = [
                None
                if v is None or v.array is None
                else constant(f"{v.name}/interleaved", np.ascontiguousarray(v.array[order]))
                for v in made_by
            ]
            maker.inputs = [maker.inputs[0], *reordered]
            return
    names = Names({n.name for n in graph.nodes} | {v.name for v in graph.values()})
    indices = constant(names.free(f"{offset.name}/order"), order)
    moved = Value(names.free(f"{offset.name}/interleaved"), offset.type)
    gather = Node("Gather", [offset, indices], [moved], {"axis": 1}, moved.name, "", conv.opset)
    graph.nodes.insert(graph.nodes.index(conv), gather)
    conv.inputs[2] = moved
