"""A model -> a plan file: ``vkconv compile``, and ``vkconv.compile_model`` for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vkconv
from vkconv.capabilities import DeviceInfo
from vkconv.device import open_device
from vkconv.errors import InvalidInputError
from vkconv.ir import TensorType
from vkconv.loading import read_onnx
from vkconv.plan import ConstantStore
from vkconv.plan_file import encode, is_plan
from vkconv.planned import HostNodes
from vkconv.planning import plan_graph
from vkconv.tuning import TunedChoices

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Compiled:
    """What was compiled: the device it is for, the file's size, the sizes of the inputs, the number
    of dispatches, and the nodes that run on the host, with the reason."""

    device: DeviceInfo
    bytes: int
    inputs: dict[str, tuple[int, ...]]
    dispatches: int
    hosts: list[tuple[str, str]]


def compile_model(
    model: Any, path: str, *, shapes: Shapes | None = None, device: str | int = "auto"
) -> Compiled:
    """Plan ``model`` (path, bytes or onnx.ModelProto) for a device and write it to ``path``.

    shapes: by input name, where the model leaves sizes open. The file runs with
    ``InferenceSession(path)`` on devices like this one, and needs no onnx package.
    Raises InvalidInputError on shapes that do not fit, and whatever loading the model raises.
    """
    if is_plan(model):
        raise InvalidInputError("the model is a plan file already; compile the ONNX model")
    loaded = read_onnx(model)
    concrete = concrete_types(loaded.inputs, shapes or {})
    opened = open_device(device)
    try:
        graph = loaded.graph.copy()
        for value in graph.inputs:
            value.type = concrete[value.name]
        found: HostNodes = []
        choices = TunedChoices(opened).choices
        planned = plan_graph(graph, opened.caps, ConstantStore(), found.extend, choices=choices)
        compiled = loaded.compiled(planned, opened.caps, opened.info.name)
        encode(compiled, vkconv.__version__)(path, "the plan file")
    finally:
        opened.close()
    return Compiled(
        opened.info,
        os.path.getsize(path),
        {name: type_.dims for name, type_ in concrete.items()},
        len(planned.plan.dispatches),
        [] if opened.caps.host_only else [(str(node), reason) for node, reason in found],
    )


def concrete_types(
    inputs: Sequence[tuple[str, TensorType]], shapes: Shapes
) -> dict[str, TensorType]:
    """The types of the inputs with the sizes given. Raises InvalidInputError where they do not fit,
    or where one is open still."""
    known = [name for name, _ in inputs]
    for name in shapes:
        if name not in known:
            raise InvalidInputError(
                f"the model has no input '{name}'; its inputs: {', '.join(known)}"
            )
    return {name: _sized(name, type_, shapes.get(name)) for name, type_ in inputs}


def _sized(name: str, type_: TensorType, shape: Sequence[int] | None) -> TensorType:
    if shape is None:
        if not type_.is_static:
            raise InvalidInputError(
                f"input '{name}' is {type_}: give its size, as in --shape {name}=1,3,320,320 "
                f"(shapes={{'{name}': (1, 3, 320, 320)}} in Python)"
            )
        return type_
    made = tuple(int(d) for d in shape)
    declared = made if type_.shape is None else type_.shape
    fits = len(declared) == len(made) and all(
        m >= 0 and (m == d or not isinstance(d, int)) for m, d in zip(made, declared, strict=True)
    )
    if not fits:
        raise InvalidInputError(
            f"shape {','.join(map(str, made))} does not fit input '{name}', which is {type_}"
        )
    return TensorType(type_.dtype, made)
