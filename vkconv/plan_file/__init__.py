"""A model planned for one device, in one file: ``vkconv compile`` writes it, a session runs it.

The file holds what a session needs and nothing of ONNX: inputs and outputs, metadata, the plan, the
packed weights, and where the model's shapes depend on data also the graph of what is planned in the
run. Reading it needs no onnx package. It is untrusted: everything is checked, first as bytes
(``container``), then as tables (``fields``), then against the kernels there are (``plans``,
``checks``), last against the device (``check_device``).

A plan file runs on every device of the same kind that has the same optional features and large
enough limits, under any driver: drivers compile the kernels themselves. It runs with every version
of vkconv whose kernels are those it was made for, byte for byte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vkconv import shaders
from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.errors import InvalidInputError, InvalidModelError, VkconvError
from vkconv.image_inputs import ImageInput, ports_of, takes_images
from vkconv.ir import Graph, Node, TensorType
from vkconv.plan_file.checks import check_limits
from vkconv.plan_file.container import Reader, Writer, is_plan
from vkconv.plan_file.fields import Fields
from vkconv.plan_file.graphs import (
    read_graph,
    read_names,
    read_node,
    read_type,
    write_graph,
    write_names,
    write_node,
    write_type,
)
from vkconv.plan_file.plans import read_plan, write_plan
from vkconv.plan_file.recipes import check_looked_into, write_looked_into
from vkconv.planned import HostNodes, Planned, Rest, Trim
from vkconv.stored_arrays import StoredWeight

__all__ = ["CompiledModel", "Encoded", "check_device", "encode", "is_plan", "read_compiled"]

_NUMBERS = ("scale", "mean", "std")


@dataclass(frozen=True)
class CompiledModel:
    """What a session knows of a model without having read it."""

    inputs: list[tuple[str, TensorType]]
    outputs: list[tuple[str, TensorType | None]]
    #: name, producer, opsets, metadata and nodes of the model; no values
    about: Graph
    planned: Planned
    #: what the plan was made for
    caps: DeviceCaps
    device: str
    #: inputs that take pixels (``image_inputs``), in the type the model itself takes
    images: list[tuple[str, TensorType]] = field(default_factory=list)
    #: what their pixels are normalised by, unless a session says otherwise
    normalisation: dict[str, ImageInput] = field(default_factory=dict)
    #: what messages call the file
    label: str = field(default="the plan", compare=False)

    @property
    def model_inputs(self) -> list[tuple[str, TensorType]]:
        """The inputs as the model itself has them, whatever the plan makes them from."""
        images = dict(self.images)
        made = {name for item in self.images for name, _ in ports_of(*item)} - set(images)
        return [(n, images.get(n, t)) for n, t in self.inputs if n not in made]


class Encoded:
    """A model as a file has it, but for the arrays, which are kept until they are written."""

    def __init__(self, writer: Writer, body: dict[str, Any]) -> None:
        self._writer, self._body = writer, body

    def write(self, path: str, what: str) -> None:
        """Write the whole file or none; once. Raises InvalidInputError where it cannot be, and
        ValueError where a constant went with the device that had it."""
        try:
            self._writer.write(path, self._body, what)
        finally:
            self.release()

    def release(self) -> None:
        """It will not be written (any more)."""
        self._writer.release()

    @property
    def array_bytes(self) -> int:
        """Of the file, all but its tables."""
        return self._writer.array_bytes


def encode(model: CompiledModel, version: str, weights: Sequence[StoredWeight] = ()) -> Encoded:
    """Makes the file of a model. It holds on to the arrays, so that it may be written when the plan
    has given them up. Raises UnsupportedModelError, naming the node, on what has no form in a
    file.

    weights: of the model's own file. Where whoever reads the plan has that, too, it says how they
    are packed instead of holding them (``recipes``).
    """
    writer = Writer(weights)
    try:
        body = _body(model, version, writer)
        writer.weights = ()  # what is in memory of them may go
        return Encoded(writer, body)
    except BaseException:
        writer.release()
        raise


def _body(model: CompiledModel, version: str, writer: Writer) -> dict[str, Any]:
    return {
        "vkconv": version,
        "device": model.device,
        "caps": dataclasses.asdict(model.caps),
        "inputs": [{"name": n, "type": write_type(t)} for n, t in model.inputs],
        "outputs": [{"name": n, "type": write_type(t)} for n, t in model.outputs],
        "images": [
            {"name": n, "type": write_type(t), **_write_numbers(model.normalisation.get(n))}
            for n, t in model.images
        ],
        "about": {
            **write_names(model.about),
            "producer": model.about.producer,
            "metadata": model.about.metadata,
        },
        **_write_planned(model.planned, writer),
        **({"looked_into": write_looked_into(writer)} if writer.weights else {}),
    }


def read_compiled(
    source: Any, weights: Sequence[StoredWeight] = (), *, whole: bool = True
) -> CompiledModel:
    """The model in a plan file (a path) or its bytes. Raises InvalidModelError; where it need not
    be ``whole`` now, an array that is damaged raises it when it is read.

    weights: as ``encode`` had them, of a file that may hold others by now.
    """
    given = bytes(source) if isinstance(source, (bytearray, memoryview)) else source
    reader = Reader(given, weights)
    body = Fields(reader.body, "the file", reader.invalid)
    if whole:
        reader.check_arrays()
    check_looked_into(body, reader)
    inputs = []
    for row in body.rows("inputs"):
        type_ = read_type(row.fields("type"))
        if type_ is None or not type_.is_static:
            raise row.wrong("type", "a concrete type")
        inputs.append((row.text("name"), type_))
    outputs = [
        (row.text("name"), read_type(row.optional_fields("type"))) for row in body.rows("outputs")
    ]
    described = body.fields("about")
    about = read_names(described)
    about.producer = described.text("producer")
    metadata = described.fields("metadata")
    about.metadata = {key: metadata.text(key) for key in described.table("metadata")}
    planned = _read_planned(body, reader)
    ports = {(p.name, TensorType(p.dtype, p.shape)) for p in planned.plan.inputs}
    if ports != set(inputs) or not len(ports) == len(inputs) == len(planned.plan.inputs):
        raise body.wrong("inputs", "what the plan takes")
    made = [p.name for p in planned.plan.outputs]
    if planned.rest is not None:
        made = planned.rest.graph.output_names
    if made != [name for name, _ in outputs]:
        raise body.wrong("outputs", "what the plan gives")
    caps = _read_caps(body.fields("caps"))
    device = body.text("device")
    images, numbers = _read_images(body, inputs)
    return CompiledModel(
        inputs, outputs, about, planned, caps, device, images, numbers, label=reader.label
    )


def _write_numbers(image: ImageInput | None) -> dict[str, Any]:
    if image is None:
        return {}
    lists = {
        key: [float(x) for x in np.atleast_1d(np.asarray(getattr(image, key), np.float64))]
        for key in _NUMBERS
    }
    return {"normalisation": {**lists, "channel_order": image.channel_order}}


def _read_numbers(row: Fields, channels: int) -> ImageInput:
    """Files of earlier versions, and those of the plan cache, hold no numbers."""
    if "normalisation" not in row:
        return ImageInput()
    fields = row.fields("normalisation")
    values: dict[str, Any] = {}
    for key in _NUMBERS:
        given = fields.items(key)
        if not given or any(type(x) not in (int, float) for x in given):
            raise fields.wrong(key, "a list of numbers")
        values[key] = given[0] if len(given) == 1 else tuple(given)
    try:
        image = ImageInput(**values, channel_order=fields.text("channel_order"))
        image.table(channels)
    except (InvalidInputError, ValueError, OverflowError) as error:
        raise fields.fail(f"{fields.where}: {error}") from None
    return image


def _read_images(
    body: Fields, inputs: list[tuple[str, TensorType]]
) -> tuple[list[tuple[str, TensorType]], dict[str, ImageInput]]:
    """The inputs that take pixels, each with the two ports that its pixels and numbers go to."""
    found: list[tuple[str, TensorType]] = []
    numbers: dict[str, ImageInput] = {}
    for row in body.rows("images"):
        name, type_ = row.text("name"), read_type(row.fields("type"))
        if type_ is None or not takes_images(type_) or not type_.is_static:
            raise row.wrong("type", "that of an image")
        if not set(ports_of(name, type_)) <= set(inputs):
            raise row.wrong("name", "an input that takes pixels")
        found.append((name, type_))
        numbers[name] = _read_numbers(row, type_.dims[1])
    return found, numbers


def check_device(model: CompiledModel, info: DeviceInfo, caps: DeviceCaps) -> None:
    """Raises InvalidModelError where a plan was made for another kind of device.

    What chooses kernels must be the same: the kind, the optional features, the size of a subgroup.
    Limits may differ as long as no dispatch exceeds them.
    """
    for f in dataclasses.fields(caps):
        here, there = getattr(caps, f.name), getattr(model.caps, f.name)
        if f.name == "max_shared_memory":
            fits = here >= there
        else:
            fits = f.name.startswith("max_") or here == there
        if not fits:
            raise InvalidModelError(
                f"plan file {model.label} was made for '{model.device}' ({f.name}: {there}), not "
                f"for '{info.name}' ({f.name}: {here}); make it again for this device with "
                "'vkconv compile'"
            )
    modules = [shaders.load(d.kernel, d.variant) for d in model.planned.plan.dispatches]
    check_limits(model.planned.plan, caps, modules, model.label)


def _write_planned(planned: Planned, writer: Writer) -> dict[str, Any]:
    rest = planned.rest
    return {
        "graph": {
            **write_names(planned.graph),
            "nodes": [write_node(n) for n in planned.graph.nodes],
        },
        "hosts": [{**write_node(n), "reason": reason} for n, reason in planned.hosts],
        "plan": write_plan(planned.plan, writer),
        "rest": None
        if rest is None
        else {
            "graph": write_graph(rest.graph, writer),
            "facts": rest.facts,
            "computed": write_graph(_alone(rest.computed), writer),
            "trims": [dataclasses.asdict(t) for t in rest.trims],
        },
    }


def _alone(nodes: list[Node]) -> Graph:
    """Nodes as a graph of their own: inputs are what they read that none of them makes."""
    made = {id(v) for n in nodes for v in n.outputs}
    read = {v: None for n in nodes for v in n.present_inputs if not v.is_constant}
    return Graph("computed", [v for v in read if id(v) not in made], [], nodes)


def _read_planned(body: Fields, reader: Reader) -> Planned:
    fields = body.fields("graph")
    graph = read_names(fields)
    graph.nodes = [read_node(row) for row in fields.rows("nodes")]
    hosts: HostNodes = [(read_node(row), row.text("reason")) for row in body.rows("hosts")]
    plan = read_plan(body.fields("plan"), reader)
    rest_fields = body.optional_fields("rest")
    rest = None if rest_fields is None else _read_rest(rest_fields, reader)
    if [p.name for p in plan.outputs] != graph.output_names:
        raise fields.wrong("output_names", "the names of the plan's outputs")
    if rest is not None:
        _check_rest(rest, {p.name: p.shape for p in plan.outputs}, hosts, body)
    return Planned(graph, plan, hosts, rest)


def _read_rest(fields: Fields, reader: Reader) -> Rest:
    from vkconv.ops.registry import check_inputs, create, find_operator

    graph = read_graph(fields.fields("graph"), reader)
    computed = read_graph(fields.fields("computed"), reader).nodes
    for node in [*graph.nodes, *computed]:
        if find_operator(node) is None:
            raise fields.fail(f"{node} is no operator of this version")
        try:
            check_inputs(create(node), node)
        except VkconvError as error:
            raise fields.fail(str(error)) from None
    trims = [
        Trim(row.text("output"), row.text("count"), row.integer("axis", 0, 31))
        for row in fields.rows("trims")
    ]
    return Rest(graph, fields.texts("facts"), computed, trims)


def _check_rest(
    rest: Rest, given: dict[str, tuple[int, ...]], hosts: HostNodes, body: Fields
) -> None:
    """Every value that the rest reads is there when its turn comes (``given``: shapes by name)."""
    wanted = {name for t in rest.trims for name in (t.output, t.count)} | set(rest.facts)
    wanted |= {v.name for n in rest.computed for v in n.present_inputs if not v.is_constant}
    made = {v.name for n in rest.computed for v in n.outputs}
    inputs = {v.name for v in rest.graph.inputs}
    if not wanted <= set(given) or not inputs <= set(given) | made:
        raise body.wrong("rest", "about values that the plan gives")
    if any(given[t.count] != (1,) or len(given[t.output]) <= t.axis for t in rest.trims):
        raise body.wrong("rest", "about outputs with a count")
    counts = {t.count for t in rest.trims}
    if len(counts) < len(rest.trims) or counts & {t.output for t in rest.trims}:
        raise body.wrong("rest", "about outputs with a count each")
    if not {n.name for n in rest.computed} <= {n.name for n, _ in hosts}:
        raise body.wrong("hosts", "all nodes that run on the host")


def _read_caps(fields: Fields) -> DeviceCaps:
    """The capabilities a plan was made for; those unknown here, or there, have their default."""
    defaults = DeviceCaps()
    found: dict[str, Any] = {}
    for f in dataclasses.fields(DeviceCaps):
        if f.name not in fields:
            continue
        default, value = getattr(defaults, f.name), fields.raw(f.name)
        given = tuple(value) if isinstance(value, list) else value
        if type(given) is not type(default):
            raise fields.wrong(f.name, f"like {default!r}")
        found[f.name] = given
    return dataclasses.replace(defaults, **found)
