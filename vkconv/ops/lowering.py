"""What an operator lowers with: its operands, and what it may ask the planner for.

The planner behind ``Lowering`` (``vkconv.plan.lowering``) turns views into descriptor ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, Number, Packing, PushValue, View, c4_dims
from vkconv.ir import Array, Layout, Value


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
        self, source: Array | tuple[Array, ...], tag: str, pack: Callable[[], Array] | Packing
    ) -> View:
        """As ``constant(pack(), tag)``, computed once for each (source arrays, tag) however often
        the model is planned again for other shapes. What is large gives a Packing: it is computed
        in the device's memory, one constant beside the other, when the plan is uploaded."""
        ...

    def operand(self, tensor: Tensor, layout: Layout) -> View:
        """The view of a tensor; a constant is packed into ``layout`` first."""
        ...

    def scratch(self, elements: int, name: str) -> View:
        """A linear float32 temporary, live only within this node."""
        ...


def c4_scratch(ctx: Lowering, shape: tuple[int, ...], name: str) -> View:
    """A C4 temporary of a shape (N, C, spatial...), live only within the node."""
    n, blocks, height, width = c4_dims(shape)
    stride = blocks * height * width * 4
    return View(ctx.scratch(n * stride, name).storage, shape, "float32", "c4", 0, stride)
