"""A model with corner pooling, exported by both of PyTorch's exporters and run by vkconv.

vkconv compile-shader corner_pool.comp && python export_model.py
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import onnxscript
import torch
from onnx.defs import OpSchema
from torch import Tensor, nn

# --- what training code has: PyTorch's form of the operator, with its gradient ------------------


def running_maximum(x: Tensor, direction: str) -> tuple[Tensor, Tensor]:
    """The maximum from each pixel on, and where along the axis it lies."""
    axis = 2 if direction in ("top", "bottom") else 3
    if direction in ("bottom", "right"):
        values, places = torch.cummax(x, axis)
        return values, places
    values, places = torch.cummax(x.flip(axis), axis)
    return values.flip(axis), x.size(axis) - 1 - places.flip(axis)


def spread_gradient(gradient: Tensor, places: Tensor, direction: str) -> Tensor:
    axis = 2 if direction in ("top", "bottom") else 3
    return torch.zeros_like(gradient).scatter_add(axis, places, gradient)


# --- the legacy exporter asks a torch.autograd.Function for its symbol --------------------------


class CornerPoolFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, direction: str) -> Tensor:
        y, places = running_maximum(x, direction)
        ctx.save_for_backward(places)
        ctx.direction = direction
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return spread_gradient(gradient, places, ctx.direction), None

    @staticmethod
    def symbolic(g: Any, x: Any, direction: str) -> Any:
        # _s: the attribute is a string (_i an int, _f a float)
        y = g.op("com.example::CornerPool", x, direction_s=direction)
        return y.setType(x.type())


# --- the dynamo exporter translates an operator of torch.library --------------------------------


@torch.library.custom_op("example::corner_pool", mutates_args=())
def corner_pool(x: Tensor, direction: str) -> Tensor:
    return running_maximum(x, direction)[0].contiguous()


@corner_pool.register_fake
def _(x: Tensor, direction: str) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    x, ctx.direction = inputs
    ctx.save_for_backward(running_maximum(x, ctx.direction)[1])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (places,) = ctx.saved_tensors
    return spread_gradient(gradient, places, ctx.direction), None


corner_pool.register_autograd(_backward, setup_context=_setup)

_SCHEMA = OpSchema(
    "CornerPool",
    "com.example",
    1,
    inputs=[OpSchema.FormalParameter("x", "T")],
    outputs=[OpSchema.FormalParameter("y", "T")],
    type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
    attributes=[OpSchema.Attribute("direction", OpSchema.AttrType.STRING, "")],
)
_OPERATOR = onnxscript.values.Op(onnxscript.values.Opset("com.example", 1), "CornerPool", _SCHEMA)


def translate_corner_pool(x: Any, direction: str) -> Any:
    return _OPERATOR(x, direction=direction)


TRANSLATIONS = {torch.ops.example.corner_pool.default: translate_corner_pool}

# --- a model, and its two files -----------------------------------------------------------------


class Corners(nn.Module):
    """The top-left corner head of CornerNet in small: pool to the left and up, add, convolve."""

    def __init__(self, dynamo: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)
        self.pool = corner_pool if dynamo else CornerPoolFunction.apply

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(self.pool(x, "top") + self.pool(x, "left"))


def export(path: Path, dynamo: bool) -> nn.Module:
    """Write the model to ``path``; returns it."""
    model = Corners(dynamo).eval()
    images = torch.zeros(1, 3, 32, 48)
    more: dict[str, Any] = {}
    if dynamo:
        more = {"dynamo": True, "custom_translation_table": TRANSLATIONS, "external_data": False}
    else:
        more = {"dynamo": False, "custom_opsets": {"com.example": 1}}
    torch.onnx.export(
        model, (images,), str(path), input_names=["images"], output_names=["corners"], **more
    )
    return model


def main() -> None:
    import vkconv

    # registers the operator; where the package is installed, its entry point does that
    importlib.import_module("corner_pool")
    for dynamo in (False, True):
        path = Path("corners_dynamo.onnx" if dynamo else "corners.onnx")
        model = export(path, dynamo)
        images = torch.randn(1, 3, 32, 48)
        with vkconv.InferenceSession(path, strict=True) as session:
            [actual] = session.run(None, {"images": images.numpy()})
            kernels = [p.detail for p in session.placement if p.op_type == "CornerPool"]
        with torch.no_grad():
            difference = (torch.from_numpy(actual) - model(images)).abs().max().item()
        print(f"{path}: {', '.join(kernels)}; largest difference to PyTorch {difference:.1e}")


if __name__ == "__main__":
    main()
