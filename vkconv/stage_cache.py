"""The plans of a session: one for each set of input shapes that it has met, the last few kept."""

from __future__ import annotations

import gc
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from vkconv.device.base import Device
from vkconv.host_report import HostReport
from vkconv.image_inputs import ImageInputs
from vkconv.ir import Graph, TensorType
from vkconv.loading import LoadedModel
from vkconv.planned import Planned
from vkconv.stages import Stage
from vkconv.stored_arrays import Source, StoredArray
from vkconv.tuning import TunedChoices, Tuning

if TYPE_CHECKING:
    from vkconv.plan import ConstantStore

#: of each input, in the model's order
Shapes = tuple[tuple[int, ...], ...]

PLAN_CACHE_SIZE = 8
#: bytes of the model's weights in memory from which on it is worth 25 ms that they go before what
#: they are packed to comes
WORTH_COLLECTING = 4 << 20


class StageCache:
    """Plans a model for the shapes that are asked for; the plans share its weights.

    ``input_types`` are those of what is fed (pixels, where ``images`` converts them). Whoever calls
    holds the session's lock.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        input_types: Sequence[TensorType],
        images: ImageInputs,
        device: Device,
        host_report: HostReport,
        tuned: TunedChoices,
        tuning: Tuning | None,
    ) -> None:
        self._loaded, self._input_types, self._images = loaded, input_types, images
        self._device, self._host_report = device, host_report
        self._tuned, self._tuning = tuned, tuning
        self._store: ConstantStore | None = None
        self._stages: OrderedDict[Shapes, Stage] = OrderedDict()
        if not loaded.is_static:
            _hold(loaded.graph.constants())

    def __contains__(self, shapes: Shapes) -> bool:
        return shapes in self._stages

    def __len__(self) -> int:
        return len(self._stages)

    def values(self) -> Collection[Stage]:
        return self._stages.values()

    @property
    def latest(self) -> Stage | None:
        """The stage that was asked for last."""
        return next(reversed(self._stages.values()), None)

    def find(self, shapes: Shapes) -> Stage:
        """The stage for these input shapes, planned now unless it is kept."""
        if shapes in self._stages:
            self._stages.move_to_end(shapes)
            return self._stages[shapes]
        kept = self._loaded.find(shapes)
        if kept is not None:
            kept.report_hosts(self._host_report)
        planned = kept or self._plan(shapes)
        stored: list[StoredArray] = []
        if self._loaded.is_static and planned.rest is None:
            stored = self._forget_weights(planned)
        elif self._loaded.is_static:
            self._hold_weights(planned)
        stage = Stage(planned, self._device, self._store, self._host_report, self._tuned.choices)
        self._stages[shapes] = stage
        for array in stored:
            array.leave()
        self._loaded.start_keeping()
        while len(self._stages) > PLAN_CACHE_SIZE:
            self._stages.popitem(last=False)[1].close()
        return stage

    def _forget_weights(self, planned: Planned) -> list[StoredArray]:
        """Before the only plan there will be goes to the device: each weight is let go of when it
        is there, and stays there alone. Returns those that are read from the model's file."""
        graph, self._store = self._loaded.graph, None
        graphs = (graph, planned.graph)
        in_memory = sum(a.nbytes for g in graphs for a in g.arrays_in_memory())
        stored = [a for g in graphs for a in g.constants() if isinstance(a, StoredArray)]
        planned.forget_arrays()
        about = (graph.opsets, graph.metadata, graph.producer)
        self._loaded.graph = Graph(graph.name, [], [], [], *about, source_nodes=graph.source_nodes)
        if in_memory >= WORTH_COLLECTING:
            del graph, graphs
            gc.collect()  # planning's nodes and values refer to each other, and to the weights
        return stored

    def _hold_weights(self, planned: Planned) -> None:
        """They will be packed again, by when the model's file may be another."""
        recipes = [s.recipe for s in planned.plan.constants]
        _hold(source for r in recipes if r is not None for source in r.sources)
        _hold(self._loaded.graph.constants())

    def close(self) -> None:
        """Free what all stages hold on the device."""
        try:
            self._loaded.finish_keeping()
            for stage in self._stages.values():
                stage.close()
        finally:
            self._stages.clear()

    def _plan(self, shapes: Shapes) -> Planned:
        """A plan made anew, and kept for the next process where the model has a cache."""
        # not imported at the top: loading a plan that is kept needs neither passes nor operators
        from vkconv.plan import ConstantStore
        from vkconv.planning import plan_graph

        caps, began = self._device.caps, time.perf_counter()
        graph = self._graph_for(shapes)
        if self._store is None:
            self._store = ConstantStore()
        if self._tuning is not None:
            self._tuned.tune(graph, self._tuning)
        choices = self._tuned.choices
        planned = plan_graph(graph, caps, self._store, self._host_report, choices=choices)
        seconds = time.perf_counter() - began
        self._loaded.keep(shapes, planned, caps, self._device.info.name, seconds)
        return planned

    def _graph_for(self, shapes: Shapes) -> Graph:
        graph = self._loaded.graph.copy()
        for value, type_, shape in zip(graph.inputs, self._input_types, shapes, strict=True):
            value.type = TensorType(type_.dtype, shape)
        self._images.convert_on_device(graph)
        return graph


def _hold(sources: Iterable[Source | None]) -> None:
    """Reads into memory what is left in the model's file."""
    for source in sources:
        if isinstance(source, StoredArray):
            source.hold()
