"""What the tests of planning share: a model planned without any device."""

from __future__ import annotations

import onnx

from vkconv import passes
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, Plan, Step, Storage, View
from vkconv.ir import Graph
from vkconv.onnx_reader import read_model
from vkconv.plan import ConstantStore, make_plan

#: as lavapipe: a CPU driver with every optional feature
CPU = DeviceCaps(
    kind="cpu",
    max_texel_buffer_elements=1 << 27,
    max_workgroup_size=(1024, 1024, 1024),
    max_workgroup_invocations=1024,
    max_shared_memory=32768,
    subgroup_size=8,
    subgroup_shuffle=True,
    storage_texel=True,
    uniform_texel=True,
)


def lowered(proto: onnx.ModelProto, caps: DeviceCaps = CPU) -> Graph:
    """The graph as planning takes it."""
    graph = read_model(proto)
    passes.infer_and_fold(graph)
    passes.rewrite(graph)
    passes.infer_and_fold(graph)
    passes.finish(graph, caps)
    return graph


def planned(
    proto: onnx.ModelProto, caps: DeviceCaps = CPU, store: ConstantStore | None = None
) -> Plan:
    return make_plan(lowered(proto, caps), caps, store or ConstantStore())


def kernels(plan: Plan) -> list[str]:
    return [d.kernel for d in plan.dispatches]


def reads(step: Step) -> list[Storage]:
    """Arena storages that a step needs filled. A kernel that can merge into its output is declared
    to read it, which does not count."""
    if isinstance(step, Dispatch):
        found = [b.storage for b in step.buffers.values() if b.reads and not b.writes]
    else:
        found = [x.storage for x in step.inputs if isinstance(x, View)]
    return [s for s in found if not s.is_constant]


def writes(step: Step) -> list[Storage]:
    if isinstance(step, Dispatch):
        return [b.storage for b in step.buffers.values() if b.writes]
    return [x.storage for x in step.outputs if isinstance(x, View)]


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]
