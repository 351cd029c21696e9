"""A map as a node: ONNX's attributes, and weights in the model's type.

The node is one of the model's own, changed in place; its attributes stay as they are where they
already say what they should. Weights are computed last, when all that a layer takes in is known: so
they are rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vkconv.ir import Array, Node, Value, constant
from vkconv.passes.linear_map import LinearMap, embedded
from vkconv.passes.linear_window import Window

#: opset of the Gemm that a MatMul becomes, and of the Add behind one
_GEMM_OPSET = 13
_GEOMETRY = ("auto_pad", "kernel_shape", "strides", "pads", "dilations", "output_padding")


class UnfitError(Exception):
    """A map that no node can hold; the message says why."""


@dataclass(frozen=True)
class Layer:
    """What a node will be: ``map`` in its own window, as weights of ``dtype``."""

    op_type: str
    attributes: dict[str, Any]
    map: LinearMap
    dtype: np.dtype[Any]

    def weights(self) -> Array:
        """With the axes that the operator wants. Raises UnfitError where ``dtype`` is too small."""
        if self.op_type == "ConvTranspose":
            return self._rounded(_exchanged(self.map))
        if self.op_type in ("Gemm", "MatMul") and not self.attributes.get("transB", 0):
            return self._rounded(self.map.kernel.T)
        return self._rounded(self.map.kernel)

    def bias(self) -> Array | None:
        """None where it is zero. Raises UnfitError."""
        return self._rounded(self.map.bias) if self.map.bias.any() else None

    def _rounded(self, array: Array) -> Array:
        with np.errstate(all="ignore"):
            result = np.ascontiguousarray(array.astype(self.dtype))
        if not np.isfinite(result).all():
            raise UnfitError(f"the weights of one layer would not fit {self.dtype.name}")
        return result


def layer_for(node: Node, own: LinearMap, made: LinearMap, dtype: np.dtype[Any]) -> Layer:
    """``node``, which computes ``own``, changed to compute ``made``. Raises UnfitError."""
    if node.op_type in ("Gemm", "MatMul"):
        attributes = {k: v for k, v in node.attributes.items() if k == "transB"}
        layer = Layer(node.op_type, attributes, made, dtype)
    else:
        op_type = "ConvTranspose" if made.window.transposed else "Conv"
        window = made.window if made.window == own.window else made.window.standard()
        attributes = {**node.attributes}
        if window != own.window or op_type != node.op_type:
            attributes = {k: v for k, v in attributes.items() if k not in _GEOMETRY}
            attributes |= _geometry(window)
        if made.groups != int(attributes.get("group", 1)):
            attributes["group"] = made.groups
        layer = Layer(op_type, attributes, embedded(made, window), dtype)
    # not max(bounds): that may pass over a NaN
    if not all(bound < float(np.finfo(dtype).max) / 2 for bound in made.bounds):
        layer.weights()
        layer.bias()
    return layer


def turn_into(node: Node, layer: Layer, source: Value) -> None:
    """Change ``node``; ``fill`` gives it its weights."""
    node.op_type, node.attributes = layer.op_type, layer.attributes
    node.inputs = [source, None]


def fill(node: Node, layer: Layer, free: Callable[[str], str], names: tuple[str, str]) -> None:
    """Give ``node`` the weights of ``layer``, and the bias unless something else adds it.

    ``names`` are those wanted for the two, ``free`` makes a name unique.
    """
    node.inputs[1:] = [constant(free(names[0]), layer.weights())]
    bias = layer.bias()
    if bias is not None:
        node.inputs.append(constant(free(names[1]), bias))
        if node.op_type == "MatMul":
            node.op_type, node.opset = "Gemm", _GEMM_OPSET


def turn_into_addition(node: Node, x: Value) -> None:
    """The place of a bias behind a MatMul of more than two axes; its bias comes later."""
    node.op_type, node.attributes, node.opset = "Add", {}, _GEMM_OPSET
    node.inputs = [x, None]


def _exchanged(made: LinearMap) -> Array:
    """The kernel with ConvTranspose's axes: (inputs, outputs / groups, taps...)."""
    outputs, inputs, *taps = made.kernel.shape
    blocks = made.kernel.reshape(made.groups, outputs // made.groups, inputs, *taps)
    return blocks.swapaxes(1, 2).reshape(made.inputs, outputs // made.groups, *taps)


def _geometry(window: Window) -> dict[str, Any]:
    """The attributes of Conv, or of ConvTranspose, that say ``window``."""
    if window.opaque:
        raise UnfitError("its padding depends on the size of its input")
    axes = window.axes
    begins = tuple(a.pads[0] for a in axes)
    found: dict[str, Any] = {
        "kernel_shape": window.counts,
        "strides": tuple(a.stride for a in axes),
        "dilations": tuple(a.step for a in axes),
    }
    if not window.transposed:
        return found | {"pads": (*begins, *(a.pads[1] for a in axes))}
    more = tuple(a.rest - a.last for a in axes)
    if min(begins) < 0 or any(m >= max(a.stride, a.step) for m, a in zip(more, axes, strict=True)):
        raise UnfitError("no padding of a transposed convolution gives its size")
    if any(m > 0 for m in more):
        found["output_padding"] = tuple(max(m, 0) for m in more)
    return found | {"pads": (*begins, *(max(-m, 0) for m in more))}
