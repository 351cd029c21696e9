"""A model -> what a driver's compiler makes of its kernels: ``vkconv inspect --pipelines``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vkconv.capabilities import DeviceCaps, DeviceChoice, DeviceInfo
from vkconv.compilation import concrete_types
from vkconv.device import open_compiler
from vkconv.device.vulkan.statistics import PipelineStatistics
from vkconv.loading import LoadedModel, read_onnx
from vkconv.loops import is_loop
from vkconv.plan import ConstantStore
from vkconv.plan_file import CompiledModel, check_device, is_plan, read_compiled
from vkconv.planned import Planned
from vkconv.planning import plan_graph
from vkconv.tuning import known_choices


@dataclass(frozen=True)
class ModelPipelines:
    """A plan's pipelines by kernel, those of the most dispatches first.

    deferred: nodes that a run plans, since their sizes follow from what it computes; their
    pipelines are not known.
    """

    device: DeviceInfo
    pipelines: Sequence[PipelineStatistics]
    deferred: int

    @property
    def dispatches(self) -> int:
        return sum(pipeline.dispatches for pipeline in self.pipelines)


def compile_pipelines(
    model: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, device: DeviceChoice = "auto"
) -> ModelPipelines:
    """Plan ``model`` (a path, bytes or an onnx.ModelProto, or a plan file) as a session on the
    device would, and have the driver compile each pipeline. Nothing runs.

    shapes: by input name, where the model leaves sizes open. Raises InvalidInputError on shapes
    that do not fit, DeviceError where the device says nothing of its pipelines, and whatever
    loading the model raises.
    """
    source = read_compiled(model) if is_plan(model) else read_onnx(model)
    with open_compiler(device) as compiler:
        info, caps = compiler.info, compiler.caps
        if isinstance(source, CompiledModel):
            check_device(source, info, caps)
            planned = source.planned
        else:
            planned = _plan(source, shapes or {}, info, caps)
        made = compiler.compile(planned.plan.dispatches)
    uses = Counter(dispatch.kernel for dispatch in planned.plan.dispatches)
    made.sort(key=lambda p: (-uses[p.kernel], p.kernel, -p.dispatches))
    return ModelPipelines(info, made, _deferred(planned))


def _plan(
    loaded: LoadedModel, shapes: Mapping[str, Sequence[int]], info: DeviceInfo, caps: DeviceCaps
) -> Planned:
    concrete = concrete_types(loaded.inputs, shapes)
    for value in loaded.graph.inputs:
        value.type = concrete[value.name]
    choices = known_choices(info, caps)
    return plan_graph(loaded.graph, caps, ConstantStore(), lambda hosts: None, choices=choices)


def _deferred(planned: Planned) -> int:
    if planned.rest is None:
        return 0
    return len(planned.rest.graph.nodes) + sum(is_loop(node) for node in planned.rest.computed)
