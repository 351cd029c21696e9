"""What an operator is: attributes, infer, reference, layout, view or lower; and the registry of
all of them.

Operators never touch a device. ``lower`` returns dispatches: data that names a kernel, its buffers
as views, its push and specialization constants. The planner behind ``Lowering`` turns views into
descriptor ranges.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, Number, PushValue, View
from vkconv.entry_points import load_operators
from vkconv.errors import InvalidModelError, VkconvError
from vkconv.ir import Array, Graph, Layout, Node, TensorType, Value

#: newest ai.onnx opset whose operators are known here (tests hold it against the onnx package)
NEWEST_OPSET = 28

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


class DimensionsError(ValueError):
    """More dimensions than a kernel's push constants hold, after those that merge are merged."""


@dataclass(frozen=True)
class Tensor:
    """An operand of ``lower``: its IR value and, unless it is a constant, its view on the
    device."""

    value: Value
    view: View | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.dims

    @property
    def dtype(self) -> str:
        return self.value.dtype

    @property
    def array(self) -> Array | None:
        return self.value.array

    @property
    def on_device(self) -> View:
        """The view of a tensor that is no constant."""
        if self.view is None:
            raise ValueError(f"value '{self.value.name}' is a constant without a view")
        return self.view


class Lowering(Protocol):
    """What ``lower`` may ask the planner for."""

    caps: DeviceCaps
    #: what tuning found: a problem's key to the textual form of the choice to make
    choices: Mapping[str, str]

    def dispatch(
        self,
        kernel: str,
        buffers: Mapping[str, View | None],
        push: Mapping[str, PushValue],
        spec: Mapping[str, Number],
        grid: tuple[int, int, int],
        **axes: str,
    ) -> Dispatch:
        """A checked dispatch. ``grid`` counts workgroups.

        Filled in here: the ``access`` axis when the kernel has one and it is not given; for every
        buffer ``b`` the push constants ``b_offset`` (in elements of the shader's declaration: vec4
        or scalar) and ``b_batch`` (batch stride of a C4 view, likewise) when the shader declares
        them. A buffer given as None is bound to a dummy.
        """
        ...

    def constant(self, array: Array, name: str) -> View:
        """A device constant (float32 or int32 after conversion), linear, of that shape."""
        ...

    def prepack(
        self, source: Array | tuple[Array, ...], tag: str, pack: Callable[[], Array]
    ) -> View:
        """As ``constant(pack(), tag)``, computed once for each (source arrays, tag) however often
        the model is planned again for other shapes."""
        ...

    def operand(self, tensor: Tensor, layout: Layout) -> View:
        """The view of a tensor; a constant is packed into ``layout`` first."""
        ...

    def scratch(self, elements: int, name: str) -> View:
        """A linear float32 temporary, live only within this node."""
        ...


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


REGISTRY: dict[tuple[str, str], type[Operator]] = {}
#: domains whose operators are all in this package: the standard's, and what passes make of them
OWN_DOMAINS = ("", "vkconv")

T = TypeVar("T", bound=type)


def operator(op_type: str, *, since: tuple[int, ...], domain: str = "") -> Callable[[T], T]:
    """Class decorator: makes a dataclass of the operator and registers it for (domain, op_type)."""

    def register(cls: T) -> T:
        key = (domain, op_type)
        if key in REGISTRY:
            raise ValueError(f"operator {op_type} of domain '{domain}' is registered twice")
        made: Any = dataclass(eq=False)(cls)
        made.op_type, made.domain, made.since = op_type, domain, since
        REGISTRY[key] = made
        return cls

    return register


def is_registered(domain: str, op_type: str) -> bool:
    return _registered(domain, op_type) is not None


def find_operator(node: Node) -> type[Operator] | None:
    return _registered("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def _registered(domain: str, op_type: str) -> type[Operator] | None:
    """The operator; those of other packages are looked for when one is unknown."""
    if (domain, op_type) not in REGISTRY and domain not in OWN_DOMAINS:
        load_operators()
    return REGISTRY.get((domain, op_type))


def create(node: Node) -> Operator:
    """The operator of a node with its attributes set. Raises InvalidModelError on attributes that
    don't fit."""
    cls = find_operator(node)
    if cls is None:
        raise InvalidModelError(f"{node}: there is no such operator in domain '{node.domain}'")
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in node.attributes.items():
        if name not in known:
            if name in cls.former_attributes and node.opset < cls.former_attributes[name]:
                continue
            raise InvalidModelError(
                f"{node}: attribute '{name}' is not one of {node.op_type} "
                f"({', '.join(sorted(known)) or 'it has none'})"
            )
        values[name] = _checked(node, name, value, str(known[name].type))
    for name, f in known.items():
        missing = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if missing and name not in values:
            raise InvalidModelError(f"{node}: attribute '{name}' is missing")
    try:
        made = cls(**values)
    except VkconvError:
        raise
    except Exception as error:  # a custom operator's __post_init__
        raise InvalidModelError(f"{node}: its attributes do not fit: {error}") from error
    versions = [v for v in cls.since if v <= node.opset]
    made.version = max(versions) if versions else min(cls.since)
    made.output_count = len(node.outputs)
    return made


_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: isinstance(v, int),
    "float": lambda v: isinstance(v, (int, float)),
    "str": lambda v: isinstance(v, str),
    "tuple[int, ...]": lambda v: isinstance(v, tuple) and all(isinstance(i, int) for i in v),
    "tuple[float, ...]": lambda v: (
        isinstance(v, tuple) and all(isinstance(i, (int, float)) for i in v)
    ),
    "tuple[str, ...]": lambda v: isinstance(v, tuple) and all(isinstance(i, str) for i in v),
    "Array": lambda v: isinstance(v, np.ndarray),
    "Graph": lambda v: isinstance(v, Graph),
}


def _checked(node: Node, name: str, value: Any, annotation: str) -> Any:
    kinds = [k.strip() for k in annotation.split("|") if k.strip() != "None"]
    if not any(_ACCEPTED[k](value) for k in kinds):
        raise InvalidModelError(
            f"{node}: attribute '{name}' should be {' or '.join(kinds)}, "
            f"not {type(value).__name__} {value!r:.60}"
        )
    return value


_SIGNATURES: dict[type[Operator], inspect.Signature] = {}


def check_inputs(op: Operator, node: Node) -> None:
    """Raises InvalidModelError when the node has too few or many inputs, or omits a needed one."""
    cls = type(op)
    if cls not in _SIGNATURES:  # a third of the time that folding shape code takes, otherwise
        _SIGNATURES[cls] = inspect.signature(op.infer)
    signature = _SIGNATURES[cls]
    try:
        bound = signature.bind(*node.inputs)
    except TypeError:
        raise InvalidModelError(
            f"{node} has {len(node.inputs)} inputs, which {node.op_type} does not take"
        ) from None
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        needed = parameter.kind is not parameter.VAR_POSITIONAL
        if value is None and needed and parameter.default is parameter.empty:
            raise InvalidModelError(f"{node} omits its input '{name}', which {node.op_type} needs")


def infer_types(op: Operator, node: Node) -> tuple[TensorType, ...]:
    """The node's output types. Every InvalidModelError names the node; its inputs are checked."""
    check_inputs(op, node)
    try:
        types = op.infer(*node.inputs)
    except InvalidModelError as error:
        message = str(error)
        raise InvalidModelError(message if str(node) in message else f"{node}: {message}") from None
    return types if isinstance(types, tuple) else (types,)


def as_tuple(result: Arrays) -> tuple[Array, ...]:
    """What ``reference`` returned, one array per output."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


# --- pieces that many operators share -------------------------------------------------


def normalise_axis(axis: int, rank: int) -> int:
    """ONNX axes count from the end when negative. Raises InvalidModelError outside [-rank,
    rank)."""
    if not -rank <= axis < rank:
        raise InvalidModelError(
            f"axis {axis} is outside [{-rank}, {rank - 1}] for a tensor of rank {rank}"
        )
    return axis + rank if axis < 0 else axis


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Numpy's broadcasting rule, which ONNX has too (multidirectional). Raises
    InvalidModelError."""
    try:
        return tuple(np.broadcast_shapes(*[tuple(s) for s in shapes]))
    except ValueError:
        raise InvalidModelError(
            f"shapes {' and '.join(str(tuple(s)) for s in shapes)} do not broadcast"
        ) from None


def known_ints(value: Value | None, what: str) -> tuple[int, ...] | None:
    """The integers of a shape-like input; None when omitted. Raises UnknownShapeError when no
    constant."""
    if value is None:
        return None
    if value.array is None:
        raise UnknownShapeError(f"{what} '{value.name}' is computed by the model", value)
    return tuple(int(v) for v in value.array.reshape(-1))


def elementwise_layout(inputs: Sequence[Value | None], output: Value) -> Layout:
    """C4 when a full-sized input has it already and the others broadcast against it in C4; else
    linear."""
    rank = len(output.dims)
    tensors = [v for v in inputs if v is not None and not v.is_constant]
    full = any(v.layout == "c4" and v.dims == output.dims for v in tensors)
    if not full or not 3 <= rank <= 5 or not output.dtype.startswith("float"):
        return "linear"
    fits = all(len(v.dims) == rank or v.known_type.size == 1 or v.is_constant for v in tensors)
    return "c4" if fits else "linear"


def is_c4(inputs: Sequence[Value | None]) -> bool:
    first = inputs[0]
    return first is not None and first.layout == "c4"


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
