"""``vkconv.verify``: a model on a device against the reference, node by node.

Three comparisons, for three kinds of fault:

    node by node   each node on the very inputs it had on the device: a wrong kernel, a wrong place
    replay         a plain run against the watched one, bit by bit: a missing barrier
    end to end     the outputs against the model as the file has it: a wrong rewriting

    __init__    verify
    watching    a plan with a look at every value on its way
    checks      one node against its operator's ``reference``
    comparison  two arrays: NMSE, the worst element
    tolerance   what may differ
    results     what was found
    bisection   the smallest sub-model that fails, in a folder for a bug report
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vkconv.arguments import checked_feeds, node_arg
from vkconv.capabilities import DeviceChoice
from vkconv.device import open_device
from vkconv.device.base import Device
from vkconv.errors import InvalidInputError, InvalidModelError, VkconvError
from vkconv.fusion.engines import run_on_reference
from vkconv.fusion.sizes import checked_shapes, possible_shapes, random_feeds
from vkconv.image_inputs import ImageInput, ImageInputs
from vkconv.ir import Array, Graph, TensorType
from vkconv.loading import LoadedModel, read_onnx
from vkconv.plan import ConstantStore
from vkconv.plan_file import is_plan
from vkconv.session import InferenceSession
from vkconv.tuning import TunedChoices
from vkconv.verification.bisection import Bisection, bisect
from vkconv.verification.checks import NodeCheck, NodeChecks
from vkconv.verification.comparison import Difference, compare
from vkconv.verification.poisoned import Poisoned
from vkconv.verification.results import DISCRETE, Verification
from vkconv.verification.tolerance import Tolerance, reduction_length, tolerance
from vkconv.verification.watching import WatchedStage

__all__ = [
    "Bisection",
    "Difference",
    "NodeCheck",
    "Tolerance",
    "Verification",
    "bisect",
    "compare",
    "reduction_length",
    "tolerance",
    "verify",
    "verify_graph",
]

Images = ImageInput | Mapping[str, ImageInput] | None
Tell = Callable[[NodeCheck], None]


def verify(
    model: Any,
    feeds: Mapping[str, Any] | None = None,
    *,
    device: DeviceChoice = "auto",
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    images: Images = None,
    keep: Collection[str] = (),
    end_to_end: bool = True,
    tell: Tell | None = None,
    tuning: str | os.PathLike[str] | None = None,
) -> Verification:
    """Run ``model`` (path, bytes or onnx.ModelProto) on a device, and every node of it by numpy.

    feeds: as for ``InferenceSession.run``; without them random numbers from ``seed``, at
    ``shapes`` (by input name) where the model leaves sizes open. images: as for InferenceSession.
    keep: names of values to return. end_to_end: also compare the outputs with the model's own,
    which takes numpy as long again. tell: hears of each node as soon as it is compared. tuning: the
    tuning record that kernels are chosen by, as for InferenceSession, which reads the same one
    where none is given.

    Raises InvalidInputError, InvalidModelError, UnsupportedModelError, DeviceError.
    """
    if is_plan(model):
        raise InvalidInputError("a plan file holds no model to compare with; verify the ONNX file")
    loaded = read_onnx(model)
    image_inputs = ImageInputs(images, loaded.inputs)
    opened = open_device(device)
    try:
        if opened.caps.host_only:
            raise InvalidInputError(
                "the reference is what devices are verified against; name a Vulkan device"
            )
        tensors = [f"{name}/tensor" for name in image_inputs.model_types]
        known = TunedChoices(opened, tuning)
        checks, given, outputs = _watched_run(
            loaded, feeds, shapes, seed, image_inputs, opened,
            lambda: NodeChecks({*keep, *tensors}, tell), known.choices,
        )  # fmt: skip
        info = opened.info
        record = known.excerpt({key for check in checks.checks for key in check.tuned})
    finally:
        opened.close()
    with InferenceSession(model, device=device, images=images, tuning=tuning) as session:
        names = [output.name for output in session.get_outputs()]
        plain = dict(zip(names, session.run(None, given), strict=True))
    ends: list[Difference] = []
    notes = _skipped(checks.checks)
    if end_to_end:
        tensor_feeds = {n: checks.kept.get(f"{n}/tensor", array) for n, array in given.items()}
        try:
            wanted = _reference_run(model, tensor_feeds)
            ends = [compare_outputs(name, plain[name], wanted[name]) for name in names]
        except VkconvError as error:
            notes.append(f"outputs were not compared from end to end: {error}")
    else:
        notes.append("outputs were not compared from end to end, as asked")
    return Verification(
        info,
        tuple(checks.checks),
        tuple(_same_bits(name, plain[name], outputs[name]) for name in names),
        tuple(ends),
        given,
        "given" if feeds is not None else f"random, seed {seed}",
        tuple(notes),
        any(op_type in DISCRETE for _, op_type in loaded.graph.source_nodes),
        dict(checks.kept),
        record,
    )


def verify_graph(graph: Graph, feeds: Mapping[str, Array], device: Device) -> list[NodeCheck]:
    """The nodes of a graph of concrete input types, on these inputs, by kernels that the rules
    choose. The graph is edited."""
    checks = NodeChecks()
    _run_watched(graph, feeds, device, checks)
    return checks.checks


def compare_outputs(name: str, actual: Array, expected: Array) -> Difference:
    """An output of the model: rounding errors of many nodes add up in single elements, so that
    only the NMSE counts."""
    found = compare(name, actual, expected)
    if found.problem or expected.dtype.kind != "f" or not np.isfinite(found.nmse):
        return found
    return Difference(name, found.nmse, found.allowed, found.index, found.got, found.wanted)


def _same_bits(name: str, plain: Array, watched: Array) -> Difference:
    found = compare(name, plain, watched)
    equal_nan = plain.dtype.kind == "f"
    if found.problem or np.array_equal(plain, watched, equal_nan=equal_nan):
        return found
    differ = int(np.count_nonzero(plain != watched))
    return Difference(
        name, found.nmse, tolerance("int64"), found.index, found.got, found.wanted, differ,
        plain.size,
    )  # fmt: skip


def _watched_run(
    loaded: LoadedModel,
    feeds: Mapping[str, Any] | None,
    shapes: Mapping[str, Sequence[int]] | None,
    seed: int,
    images: ImageInputs,
    device: Device,
    make_checks: Callable[[], NodeChecks],
    choices: Mapping[str, str],
) -> tuple[NodeChecks, dict[str, Array], dict[str, Array]]:
    """The checks, the feeds as callers give them, and the outputs by name; at the first of the
    sizes tried that the model takes."""
    failure: VkconvError = InvalidInputError("no sizes for the model's inputs were found")
    for given in _possible_feeds(loaded, feeds, shapes, seed, images):
        graph = loaded.graph.copy()
        for value in graph.inputs:
            fed = images.type_of(value.name, value.known_type)
            value.type = TensorType(fed.dtype, given[value.name].shape)
        images.convert_on_device(graph)
        checks = make_checks()
        try:
            outputs = _run_watched(graph, images.feeds(given), device, checks, choices)
        except InvalidModelError as error:
            if feeds is not None or loaded.is_static:
                raise
            failure = error
            continue
        names = [name for name, _ in loaded.outputs]
        return checks, given, dict(zip(names, outputs, strict=True))
    raise failure


def _run_watched(
    graph: Graph,
    feeds: Mapping[str, Array],
    device: Device,
    checks: NodeChecks,
    choices: Mapping[str, str] | None = None,
) -> list[Array]:
    place, store = Poisoned(device), ConstantStore()
    stage = WatchedStage(graph, place, store, lambda _: None, checks, choices)
    try:
        return stage.run(feeds)
    finally:
        stage.close()


def _possible_feeds(
    loaded: LoadedModel,
    feeds: Mapping[str, Any] | None,
    shapes: Mapping[str, Sequence[int]] | None,
    seed: int,
    images: ImageInputs,
) -> Iterator[dict[str, Array]]:
    """The feeds given, or random ones, at sizes that the model may take."""
    types = [(name, images.type_of(name, type_)) for name, type_ in loaded.inputs]
    if feeds is not None:
        args = [node_arg(name, type_) for name, type_ in types]
        yield checked_feeds(feeds, args, [type_ for _, type_ in types])
        return
    graph = loaded.graph
    for sizes in possible_shapes(graph, checked_shapes(graph, shapes)):
        given = random_feeds(graph.inputs, sizes, seed)
        for name in images.model_types:
            n, c, h, w = given[name].shape
            pixels = np.random.default_rng(seed).integers(0, 256, (n, h, w, c))
            given[name] = pixels.astype(np.uint8)
        yield given


def _reference_run(model: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    """The outputs as numpy computes them: of the model without rewriting where that can be."""
    try:
        return run_on_reference(model, [feeds])[0]
    except VkconvError:
        with InferenceSession(model, device="reference") as session:
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, session.run(None, feeds), strict=True))


def _skipped(checks: Sequence[NodeCheck]) -> list[str]:
    return [f"{c.op_type} '{c.node}' was not compared: {c.skipped}" for c in checks if c.skipped]
