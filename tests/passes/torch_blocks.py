"""torch modules as ONNX models without an exporter: node by node, folding nothing, in float64.

Thirty of a block take milliseconds so. What exporters make of the same modules is looked at in
``tests/test_reparameterized_models.py``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import torch
from torch import fx, nn

from tests.models.acnet import CropLayer
from tests.models.dbb import BNAndPadLayer
from tests.small_models import model, node
from vkconv.ir import Array

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def to_onnx(module: nn.Module, x: torch.Tensor, opset: int = 17) -> onnx.ModelProto:
    """``module`` for an input like ``x``, in its type."""
    with torch.no_grad():
        return _Writer(module, x).model(opset)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaves = (BNAndPadLayer, CropLayer)
        return isinstance(m, leaves) or super().is_leaf_module(m, module_qualified_name)


class _Writer(fx.Interpreter):
    """Runs the module, and writes a node for each thing that is done."""

    def __init__(self, module: nn.Module, x: torch.Tensor) -> None:
        super().__init__(fx.GraphModule(module, _Tracer().trace(module)))
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._names: dict[int, str] = {id(x): "x"}
        self._kept: list[object] = [x]
        self._x = x
        self._result = self.run(x)

    def model(self, opset: int) -> onnx.ModelProto:
        dtype = str(self._x.dtype).removeprefix("torch.")
        y = self._names[id(self._result)]
        nodes = [*self._nodes, node("Identity", y, "y")]
        inputs = {"x": (dtype, tuple(self._x.shape))}
        return model(nodes, inputs, {"y": (dtype, None)}, self._constants, opset=opset)

    def call_module(self, target: str, args: tuple, kwargs: dict) -> torch.Tensor:
        module, (x,) = self.fetch_attr(target), args
        y = module(x)
        if isinstance(module, nn.Identity):
            self._names[id(y)] = self._names[id(x)]
        elif isinstance(module, CropLayer):
            self._crop(module, x, y, target)
        elif isinstance(module, BNAndPadLayer):
            self._border(module, x, y, target)
        else:
            self._layer(module, self._names[id(x)], self._new(y, target), target)
        return y

    def call_function(self, target: Callable, args: tuple, kwargs: dict) -> object:
        y = target(*args, **kwargs)
        if target is torch.cat:
            parts = [self._name(v) for v in args[0]]
            self._write("Concat", parts, self._new(y, "concat"), axis=args[1])
            return y
        if target in (operator.add, operator.mul, operator.sub):
            if isinstance(args[1], int) and args[1] == 0:  # nothing in place of an identity branch
                self._names[id(y)] = self._names[id(args[0])]
                self._kept.append(y)
                return y
            kind = {operator.add: "Add", operator.mul: "Mul", operator.sub: "Sub"}[target]
            self._write(kind, [self._name(v) for v in args], self._new(y, kind))
            return y
        assert target is nn.functional.pad, target
        widths = list(args[1])[::-1]
        begins, ends = widths[1::2], widths[0::2]
        pads = self._constant("pads", np.array([0, 0, *begins, 0, 0, *ends]))
        self._write("Pad", [self._name(args[0]), pads], self._new(y, "pad"))
        return y

    def _layer(self, module: nn.Module, x: str, y: str, target: str) -> None:
        if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
            pads = [*module.padding, *module.padding]
            geometry = {"strides": module.stride, "dilations": module.dilation, "pads": pads}
            kind = "Conv"
            if isinstance(module, _TRANSPOSED):
                kind, geometry["output_padding"] = "ConvTranspose", module.output_padding
            weights = self._parameters(target, module, "weight", "bias")
            self._write(kind, [x, *weights], y, target, group=module.groups, **geometry)
        elif isinstance(module, _NORMS):
            names = ("weight", "bias", "running_mean", "running_var")
            values = self._parameters(target, module, *names)
            self._write("BatchNormalization", [x, *values], y, target, epsilon=module.eps)
        elif isinstance(module, nn.Linear):
            weights = self._parameters(target, module, "weight", "bias")
            self._write("Gemm", [x, *weights], y, target, transB=1)
        elif isinstance(module, nn.AvgPool2d):
            size, stride, pad = (
                (v, v) if isinstance(v, int) else v
                for v in (module.kernel_size, module.stride, module.padding)
            )
            counted = int(module.count_include_pad)
            how = {"strides": stride, "pads": [*pad, *pad], "count_include_pad": counted}
            self._write("AveragePool", [x], y, target, kernel_shape=size, **how)
        else:
            assert isinstance(module, nn.ReLU), module
            self._write("Relu", [x], y, target)

    def _crop(self, crop: CropLayer, x: torch.Tensor, y: torch.Tensor, target: str) -> None:
        starts = self._constant(f"{target}/starts", np.array([crop.rows, crop.columns]))
        sizes = np.array([x.shape[2] - crop.rows, x.shape[3] - crop.columns])
        ends = self._constant(f"{target}/ends", sizes)
        axes = self._constant(f"{target}/axes", np.array([2, 3]))
        self._write("Slice", [self._name(x), starts, ends, axes], self._new(y, target), target)

    def _border(self, layer: BNAndPadLayer, x: torch.Tensor, y: torch.Tensor, target: str) -> None:
        """As the legacy exporter does: a ScatterND of every element of each side."""
        inner = self._new(layer.bn(x), f"{target}/bn")
        self._layer(layer.bn, self._names[id(x)], inner, f"{target}.bn")
        pad = layer.pad_pixels
        if not pad:
            self._names[id(y)] = inner
            self._kept.append(y)
            return
        pads = self._constant(f"{target}/pads", np.array([0, 0, pad, pad, 0, 0, pad, pad]))
        name = self._new(y, f"{target}/padded")
        self._write("Pad", [inner, pads], name, f"{target}/pad")
        places = np.stack(np.indices(y.shape), -1)
        rows, columns = places[..., 2], places[..., 3]
        height, width = y.shape[2:]
        for side, mask in enumerate(
            (rows < pad, rows >= height - pad, columns < pad, columns >= width - pad)
        ):
            where = self._constant(f"{target}/where{side}", places[mask])
            what = self._constant(f"{target}/what{side}", y.numpy()[mask])
            written = f"{target}/side{side}"
            self._write("ScatterND", [name, where, what], written)
            name = written
        self._names[id(y)] = name

    def _parameters(self, target: str, module: nn.Module, *names: str) -> list[str]:
        found = [(n, getattr(module, n)) for n in names if getattr(module, n) is not None]
        return [self._constant(f"{target}.{n}", v.numpy()) for n, v in found]

    def _constant(self, name: str, array: Array) -> str:
        self._constants[name] = array
        return name

    def _name(self, value: object) -> str:
        if id(value) not in self._names:
            assert isinstance(value, (nn.Parameter, float, int)), type(value)
            array = np.asarray(value.numpy() if isinstance(value, nn.Parameter) else value)
            name = self._constant(f"constant{len(self._constants)}", array.astype(self._dtype))
            self._names[id(value)] = name
            self._kept.append(value)
        return self._names[id(value)]

    @property
    def _dtype(self) -> str:
        return str(self._x.dtype).removeprefix("torch.")

    def _new(self, value: torch.Tensor, name: str) -> str:
        self._kept.append(value)  # so that no other tensor gets its id
        self._names[id(value)] = f"{name}:{len(self._kept)}"
        return self._names[id(value)]

    def _write(
        self, kind: str, inputs: Sequence[str], y: str, name: str = "", **attributes: object
    ) -> None:
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in attributes.items()}
        made = onnx.helper.make_node(kind, inputs, [y], name=name or f"{kind}:{y}", **given)
        self._nodes.append(made)


def fill(module: nn.Module, seed: int) -> nn.Module:
    """float64 weights, and statistics that matter; for evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, _NORMS):
                part.running_mean.normal_(0, 0.5, generator=generator)
                part.running_var.uniform_(0.3, 2, generator=generator)
                part.weight.normal_(1, 0.5, generator=generator)
                part.bias.normal_(0, 0.5, generator=generator)
            elif isinstance(part, (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)):
                terms = math.prod(part.weight.shape[1:])
                part.weight.normal_(0, 1 / math.sqrt(terms), generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0, 0.5, generator=generator)
    return module.eval().requires_grad_(False).double()
