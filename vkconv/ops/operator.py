"""What an operator is: its attributes, infer, reference, layout, view or lower.

Operators never touch a device. ``lower`` returns dispatches: data that names a kernel, its buffers
as views, its push and specialization constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vkconv.dispatch import Dispatch, View
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor

FLOATS = frozenset({"float32", "float16"})
#: types whose values fit the device's int32
INTEGERS = frozenset({"int32", "int64", "int16", "int8", "uint16", "uint8", "bool"})
#: integer types whose arithmetic on the device is exact: int64 could overflow int32 unseen, and
#: narrow types would have to wrap around
ARITHMETIC = FLOATS | {"int32"}
DEVICE_DTYPES = FLOATS | INTEGERS

Types = TensorType | tuple[TensorType, ...]
Arrays = Any  # one array, or a tuple of arrays, one per output


class UnknownShapeError(Exception):
    """The output's shape depends on the contents of a tensor that only a run can know.

    ``value`` is the input whose contents would settle it; None when the operator has to be run to
    know.
    """

    def __init__(self, message: str, value: Value | None = None) -> None:
        super().__init__(message)
        self.value = value


@dataclass(frozen=True)
class Bound:
    """The type of an output at its largest; how much of it is used along ``axis``, only a run can
    know."""

    type: TensorType
    axis: int


class Operator:
    """Base of all operators. Subclasses are dataclasses whose fields are the ONNX attributes with
    their defaults.

    ``version`` is the newest entry of ``since`` that is not above the opset the node is read at.
    """

    op_type: ClassVar[str]
    domain: ClassVar[str] = ""
    since: ClassVar[tuple[int, ...]] = ()
    #: dtypes of tensor inputs and outputs that the kernels take; else the node runs on the host
    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    #: further dtypes the outputs may have (comparisons give bool, ArgMax int64)
    result_dtypes: ClassVar[frozenset[str]] = frozenset()
    #: positions of inputs that are linear whatever the node's layout is (indices, sizes)
    linear_inputs: ClassVar[frozenset[int]] = frozenset()
    #: positions of inputs that must be constants for the kernels to be used
    constant_inputs: ClassVar[frozenset[int]] = frozenset()
    #: positions of inputs whose memory the one output may take: an element of the result depends on
    #: that element of the input and on no other, and is written by the invocation that has read it
    overwrites: ClassVar[frozenset[int]] = frozenset()
    #: ``lower`` takes an output in LINEAR too, where the node's layout is C4
    stores_linear: ClassVar[bool] = False
    #: constants larger than a storage buffer are cut into several
    splits_constants: ClassVar[bool] = False
    #: the result follows from the types of the inputs alone (Shape, Size), so it is always folded
    needs_types_only: ClassVar[bool] = False

    #: attributes that say nothing here, with the opset that did away with them: an optimisation's
    #: hints, or what a pass has acted on before
    former_attributes: ClassVar[Mapping[str, int]] = {"consumed_inputs": 6}

    version: int
    #: how many outputs the node asks for (MaxPool's indices, the parts of Split)
    output_count: int = 1

    def infer(self, *inputs: Any) -> Types:
        """Types of the outputs from input Values (``.dims``, ``.dtype``, ``.array`` when constant;
        None when omitted). Raises InvalidModelError (without the node's name, which is added) or
        UnknownShapeError."""
        raise NotImplementedError

    def bound(self, *inputs: Any) -> Bound | None:
        """For an operator whose one output has a shape that depends on data (``infer`` raises
        UnknownShapeError without a value): how large it can get. ``lower`` is then given that
        output in the bound's type, to be filled from the start, and a second one, int32 of shape
        (1,), for the size that is used. None where only ``reference`` can tell."""
        return None

    def reference(self, *inputs: Any) -> Arrays:
        """The outputs as numpy arrays: the plain algebra. Folding, host steps and tests use it."""
        raise NotImplementedError

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        """Why the kernels can't run this node (it then runs on the host), or None when they can."""
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        """The layout the node wants for its tensors. Inputs carry the layout they have now."""
        return "linear"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        """Outputs as views of the first input's storage, when nothing has to be computed or
        moved."""
        return None

    def place(self, y: View, inputs: Sequence[Value | None]) -> tuple[View | None, ...] | None:
        """Where inputs may be written directly inside the output (concat); None for those that
        must be copied."""
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        """The dispatches that compute the outputs. Inputs and outputs have the layout that
        ``layout`` chose."""
        raise NotImplementedError

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        """Floating-point operations, for the profiler's GFLOP/s; 0 where that says nothing."""
        return 0


def has_method(op: type[Operator], name: str) -> bool:
    """Whether the operator defines ``name`` itself."""
    return getattr(op, name) is not getattr(Operator, name)


def as_tuple(result: Arrays) -> tuple[Array, ...]:
    """What ``reference`` returned, one array per output."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)
