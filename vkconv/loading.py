"""What a session begins with: a plan file, a plan kept on disk, or an ONNX model read anew.

The onnx package, the passes and the operators are imported only where a model is read: importing
them takes longer than loading a plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any, TypeVar

from vkconv import plan_cache
from vkconv.arguments import completed
from vkconv.capabilities import DeviceCaps
from vkconv.device.base import Device
from vkconv.errors import InvalidInputError, UnsupportedModelError
from vkconv.image_inputs import ImageInput
from vkconv.ir import Graph, TensorType
from vkconv.plan_cache import Kept, Named, PlanCache, Shapes
from vkconv.plan_file import CompiledModel, check_device, is_plan, read_compiled
from vkconv.planned import Planned

Found = TypeVar("Found")


@dataclass
class LoadedModel:
    """A model as a session holds it.

    ``graph``: rewritten and ready to be planned, or names alone where ``planned`` is all there will
    be. ``cache``: where its plans are kept between runs, if they are.
    """

    graph: Graph
    inputs: list[tuple[str, TensorType]]
    outputs: list[tuple[str, TensorType | None]]
    planned: Planned | None
    cache: PlanCache | None
    #: inputs that take pixels, as the model itself has them; None while that can be chosen
    images: dict[str, TensorType] | None = None
    #: of a plan: its inputs that take pixels, with what these are normalised by
    normalisation: dict[str, ImageInput] | None = None
    #: that reading it took
    seconds: float = 0.0
    #: a plan to be kept, and the thread that writes it
    to_keep: Kept | None = field(default=None, repr=False)
    keeping: Thread | None = field(default=None, repr=False)

    @property
    def is_static(self) -> bool:
        return all(type_.is_static for _, type_ in self.inputs)

    def find(self, shapes: Shapes) -> Planned | None:
        """The plan that came with the model, or one kept for these shapes; only once."""
        if self.planned is None and self.cache is not None and not self.is_static:
            found = self.cache.find(shapes)
            self.planned = None if found is None else found.planned
        planned, self.planned = self.planned, None
        return planned

    def keep(
        self, shapes: Shapes, planned: Planned, caps: DeviceCaps, device: str, seconds: float
    ) -> None:
        """Keeps the first plan made for the next process, when ``start_keeping`` says so; the
        others of a dynamic model share its weights, and would each keep them again. ``seconds``:
        that planning took."""
        from vkconv.ops.registry import OWN_DOMAINS, REGISTRY

        cache, self.cache = self.cache, None
        # the code of operators from outside this package is not in the cache's key
        foreign = {domain for domain, _ in REGISTRY} - set(OWN_DOMAINS)
        if cache is not None and not foreign & set(self.graph.opsets):
            key = None if self.is_static else shapes
            spared = seconds + (self.seconds if self.is_static else 0.0)
            self.to_keep = cache.keep(key, self.compiled(planned, caps, device), spared)

    def start_keeping(self) -> None:
        """Writes the plan to be kept, on a thread: it is on the device by now, where its weights
        are read, so that they are packed once."""
        kept, self.to_keep = self.to_keep, None
        if kept is not None:
            self.keeping = Thread(target=kept.write, name="vkconv-keep-plan")
            self.keeping.start()

    def finish_keeping(self) -> None:
        """Waits until the plan is kept: before the memory goes that its weights are in."""
        keeping = self.keeping
        if keeping is not None and keeping.ident is not None:
            keeping.join()
        self.keeping = None  # after it: Ctrl-C may end the wait, and whoever closes next waits on

    def compiled(self, planned: Planned, caps: DeviceCaps, device: str) -> CompiledModel:
        """The model with a plan of it, for a file."""
        plan, outputs = planned.plan, self.outputs
        inputs = [(p.name, TensorType(p.dtype, p.shape)) for p in plan.inputs]
        if planned.rest is None:
            outputs = [(p.name, TensorType(p.dtype, p.shape)) for p in plan.outputs]
        images = list((self.images or {}).items()) if self.is_static else []
        about, numbers = self.graph, self.normalisation or {}
        return CompiledModel(inputs, outputs, about, planned, caps, device, images, numbers)


class ModelSource:
    """A model to be loaded. Raises InvalidModelError, UnsupportedModelError at once, or in ``load``
    where it is a plan file or may have a plan in the cache: these are read while the device is
    opened."""

    def __init__(self, model: Any, images: str = "") -> None:
        """``images`` says which inputs will take pixels: it tells plans in the cache apart."""
        self._model, self._images = model, images
        self._compiled: Future[CompiledModel] | None = None
        self._read: LoadedModel | None = None
        self._named: Named | None = None
        self._looking: Future[tuple[Named | None, LoadedModel | None]] | None = None
        if is_plan(model):
            self._compiled = _meanwhile(lambda: read_compiled(model, whole=False))
        elif plan_cache.is_candidate(model):
            self._looking = _meanwhile(lambda: _look(model))
        else:
            self._onnx()

    def check(self) -> None:
        """Raises what is wrong with the model, whatever the cache holds."""
        if self._compiled is None:
            self._onnx()
        else:
            self._compiled.result()

    def check_tunable(self) -> None:
        """Raises InvalidInputError where the kernels are chosen already."""
        if self._compiled is not None:
            raise InvalidInputError("a plan file has its kernels chosen; tune the ONNX model")

    def _look(self) -> Named | None:
        """The model's name in the cache, if it has one. Raises what is wrong with a model that is
        not in there."""
        if self._looking is not None:
            looking, self._looking = self._looking, None
            self._named, self._read = looking.result()
        return self._named

    def _onnx(self) -> LoadedModel:
        named = self._look()
        if self._read is None:
            self._read = _read(self._model, named)
        return self._read

    def load(self, device: Device, choices: bytes | None = b"") -> LoadedModel:
        """The model for this device. ``choices`` names what tuning found, which decides a plan too;
        None: nothing that was planned before is of use."""
        if self._compiled is not None:
            compiled = self._compiled.result()
            check_device(compiled, device.info, device.caps)
            return _from_plan(compiled)
        named = self._look()
        if named is None or choices is None or device.caps.host_only:
            return self._taken()
        cache = PlanCache(named, self._images.encode() + choices, device.info, device.caps)
        kept = cache.find(None)
        if kept is None:
            return replace(self._taken(), cache=cache)
        self._named = None
        return _from_plan(kept)

    def _taken(self) -> LoadedModel:
        """The model as it was read, which the caller alone has from now on: weights go one by one
        as they are uploaded, and a second hand on them would keep them."""
        model = self._onnx()
        self._read = self._named = None
        return model


def _meanwhile(read: Callable[[], Found]) -> Future[Found]:
    """What a thread of its own reads."""
    thread = ThreadPoolExecutor(1, "vkconv-read")
    found = thread.submit(read)
    thread.shutdown(wait=False)
    return found


def _look(model: Any) -> tuple[Named | None, LoadedModel | None]:
    """A model's name in the cache, and where no plan of it is kept, the model."""
    named = plan_cache.name_model(model)
    if named is None or plan_cache.has_plans(named):
        return named, None
    return named, _read(model, named)


def _read(model: Any, named: Named | None) -> LoadedModel:
    """The model, by the outline that it is named by."""
    return read_onnx(model if named is None or named.outline is None else named.outline)


def _from_plan(compiled: CompiledModel) -> LoadedModel:
    images = dict(compiled.images)
    inputs = compiled.model_inputs
    numbers = {name: compiled.normalisation.get(name, ImageInput()) for name in images}
    return LoadedModel(
        compiled.about, inputs, compiled.outputs, compiled.planned, None, images, numbers
    )


def read_onnx(model: Any) -> LoadedModel:
    """Reads, checks and rewrites an ONNX model."""
    began = time.perf_counter()
    from vkconv.onnx_reader import read_model
    from vkconv.ops.registry import is_registered
    from vkconv.passes import infer_and_fold, rewrite
    from vkconv.placement import problems

    graph = read_model(model, is_registered)
    if found := problems(graph):
        raise UnsupportedModelError.from_nodes(found)
    inputs = [(v.name, v.known_type) for v in graph.inputs]
    declared = [v.type for v in graph.outputs]
    infer_and_fold(graph)
    outputs = [
        (name, completed(type_, value.type))
        for name, type_, value in zip(graph.output_names, declared, graph.outputs, strict=True)
    ]
    rewrite(graph)
    seconds = time.perf_counter() - began
    return LoadedModel(graph, inputs, outputs, None, None, seconds=seconds)
