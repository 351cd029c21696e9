"""ONNX's backend interface over InferenceSession: what ONNX's own test runner drives.

    import vkconv.backend as backend
    outputs = backend.prepare(model).run([x])

Beside ``onnx_reader`` the only module that imports onnx; ``import vkconv`` does not load it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from vkconv.device import devices
from vkconv.errors import InvalidInputError, VkconvError
from vkconv.ir import type_of
from vkconv.session import InferenceSession

__all__ = [
    "VulkanBackend",
    "VulkanBackendRep",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]

#: the only device name of ONNX's own that means something here: the default choice
_DEFAULT_DEVICE = "CPU"
_CHOICES = ("auto", "gpu", "cpu", "reference")


class VulkanBackendRep(BackendRep):
    """A model ready to run: inputs in the model's order, or by name."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, as a tuple that also takes their names.

        inputs: a sequence in the model's order (None, or less than all, where a model has inputs
        it can do without), or a mapping by name; a single array is the first input.
        """
        names = [i.name for i in self.session.get_inputs()]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(given) > len(names):
                raise InvalidInputError(f"{len(given)} inputs given, the model takes {len(names)}")
            feeds = {n: x for n, x in zip(names, given, strict=False) if x is not None}
        results = self.session.run(None, feeds)
        made = namedtupledict("Outputs", [o.name for o in self.session.get_outputs()])
        return tuple.__new__(made, results)

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> VulkanBackendRep:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class VulkanBackend(Backend):
    """ONNX's "CPU" is this package's default device, as it is the name ONNX's runner asks for;
    any other name is InferenceSession's ``device``."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = _DEFAULT_DEVICE, **kwargs: Any) -> bool:
        """Whether every node of the model can run."""
        try:
            cls.prepare(model, device, **kwargs).close()
        except VkconvError:
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str = _DEFAULT_DEVICE, **kwargs: Any) -> VulkanBackendRep:
        """A session for the model (a path, bytes or a ModelProto); ``kwargs`` are the session's."""
        choice = "auto" if device == _DEFAULT_DEVICE else device
        return VulkanBackendRep(InferenceSession(model, device=choice, **kwargs))

    @classmethod
    def run_model(
        cls, model: Any, inputs: Any, device: str = _DEFAULT_DEVICE, **kwargs: Any
    ) -> tuple[Any, ...]:
        with cls.prepare(model, device, **kwargs) as prepared:
            return prepared.run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = _DEFAULT_DEVICE,
        outputs_info: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """One node on these arrays. ``opset_version``: what it is read at, else the newest known.

        ``outputs_info`` is not needed: types follow from the node.
        """
        from vkconv.ops.registry import NEWEST_OPSET

        opset = kwargs.pop("opset_version", NEWEST_OPSET)
        given = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        names = list(dict.fromkeys(name for name in node.input if name))
        present = [x for x in given if x is not None]
        if len(present) != len(names):
            raise InvalidInputError(
                f"{len(present)} inputs given, node '{node.name or node.op_type}' takes "
                f"{len(names)}"
            )
        declared = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(x.dtype), type_of(x).dims
            )
            for name, x in zip(names, present, strict=True)
        ]
        results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], node.op_type or "node", declared, results)
        imports = [helper.make_opsetid("", opset)]
        if node.domain not in ("", "ai.onnx"):
            imports.append(helper.make_opsetid(node.domain, 1))
        model = helper.make_model(graph, opset_imports=imports)
        return cls.run_model(model, dict(zip(names, present, strict=True)), device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """ONNX's "CPU", what InferenceSession takes for a choice, or part of a device's name."""
        if device.startswith("CUDA"):
            return False
        if device == _DEFAULT_DEVICE or device in _CHOICES:
            return True
        return any(device.lower() in info.name.lower() for info in devices())


is_compatible = VulkanBackend.is_compatible
prepare = VulkanBackend.prepare
run_model = VulkanBackend.run_model
run_node = VulkanBackend.run_node
supports_device = VulkanBackend.supports_device
