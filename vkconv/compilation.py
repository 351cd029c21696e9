"""A model -> a plan file: ``vkconv compile``, and ``vkconv.compile_model`` for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import vkconv
from vkconv.capabilities import DeviceChoice, DeviceInfo
from vkconv.device import open_device
from vkconv.errors import InvalidInputError
from vkconv.image_inputs import MOST_CHANNELS, ImageInput, ImageInputs
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
    """What was compiled: the device it is for, the file's size, the sizes of the inputs as they are
    fed, the number of dispatches, the nodes that run on the host, with the reason, and the inputs
    that take pixels."""

    device: DeviceInfo
    bytes: int
    inputs: dict[str, tuple[int, ...]]
    dispatches: int
    hosts: list[tuple[str, str]]
    images: list[str]


def compile_model(
    model: Any,
    path: str,
    *,
    shapes: Shapes | None = None,
    device: DeviceChoice = "auto",
    images: ImageInput | Mapping[str, ImageInput] | None = None,
) -> Compiled:
    """Plan ``model`` (path, bytes or onnx.ModelProto) for a device and write it to ``path``.

    shapes: by input name, where the model leaves sizes open, as the model itself has them.
    images: inputs that are fed with pixels, as InferenceSession takes them; the numbers are kept in
    the file, and a session may give others. The file runs with ``InferenceSession(path)`` on
    devices like this one, and needs no onnx package.
    Raises InvalidInputError on shapes that do not fit, and whatever loading the model raises.
    """
    if is_plan(model):
        raise InvalidInputError("the model is a plan file already; compile the ONNX model")
    loaded = read_onnx(model)
    concrete = concrete_types(loaded.inputs, shapes or {})
    pixels = ImageInputs(images, list(concrete.items()))
    if images is not None and not pixels:
        listed = ", ".join(f"'{name}' {type_}" for name, type_ in concrete.items())
        raise InvalidInputError(
            f"no input takes images, of float32 or float16 (N, C, H, W) with up to {MOST_CHANNELS} "
            f"channels; the inputs: {listed}"
        )
    fed = {name: pixels.type_of(name, type_) for name, type_ in concrete.items()}
    loaded = replace(
        loaded,
        inputs=list(concrete.items()),
        images=pixels.model_types,
        normalisation=pixels.numbers,
    )
    opened = open_device(device)
    try:
        graph = loaded.graph.copy()
        for value in graph.inputs:
            value.type = fed[value.name]
        pixels.convert_on_device(graph)
        found: HostNodes = []
        choices = TunedChoices(opened).choices
        planned = plan_graph(graph, opened.caps, ConstantStore(), found.extend, choices=choices)
        compiled = loaded.compiled(planned, opened.caps, opened.info.name)
        encode(compiled, vkconv.__version__).write(path, "the plan file")
    finally:
        opened.close()
    return Compiled(
        opened.info,
        os.path.getsize(path),
        {name: type_.dims for name, type_ in fed.items()},
        len(planned.plan.dispatches),
        [] if opened.caps.host_only else [(str(node), reason) for node, reason in found],
        list(pixels.model_types),
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
