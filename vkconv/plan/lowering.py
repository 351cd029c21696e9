"""What operators ask for while lowering: views become descriptor ranges, names are checked.

The names an operator passes are those the shader declares, reflected from its SPIR-V: a missing or
surplus one is an error here, when the plan is made, and names shader and field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vkconv import shaders
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import (
    ALIGNMENT,
    ELEMENT_BYTES,
    BufferRange,
    Dispatch,
    Number,
    Packing,
    PushValue,
    Storage,
    View,
)
from vkconv.errors import BuildError, UnsupportedModelError
from vkconv.ir import Array, Layout
from vkconv.ops.lowering import Tensor
from vkconv.ops.packing import pack_c4
from vkconv.plan.constants import ConstantStore, constant_view
from vkconv.shaders import BufferField, ShaderModule


@dataclass(frozen=True)
class Access:
    """Bytes of a storage that a dispatch touches: exact, where a descriptor's range is aligned.

    The batches of a channel slice lie apart: ``count`` pieces of one length, ``step`` bytes from
    the start of one to the next, the first from ``start`` on, the last up to ``end``.
    """

    storage: Storage
    start: int
    end: int
    reads: bool
    writes: bool
    count: int = 1
    step: int = 0

    def meets(self, other: Access) -> bool:
        """Whether they touch a byte in common, where their storages lie now."""
        start, end = (self.storage.offset + at for at in (self.start, self.end))
        first, last = (other.storage.offset + at for at in (other.start, other.end))
        if not (start < last and first < end):
            return False
        step = self.step if self.count > 1 else other.step
        if self.count == other.count == 1 or (self.count > 1 < other.count and step != other.step):
            return True
        # pieces i of self and j of other meet where d = i - j lies between these
        length, reach = (a.end - a.start - (a.count - 1) * step for a in (self, other))
        low = (first - start - length) // step + 1
        high = -((start - first - reach) // step) - 1
        return max(low, 1 - other.count) <= min(high, self.count - 1)


class _Noting(Mapping[str, str]):
    """Choices that note which node they answered."""

    def __init__(
        self, choices: Mapping[str, str], lowering: PlanLowering, tuned: dict[str, set[str]]
    ) -> None:
        self._choices, self._lowering, self._tuned = choices, lowering, tuned

    def __getitem__(self, key: str) -> str:
        found = self._choices[key]
        self._tuned.setdefault(self._lowering.node, set()).add(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)


class PlanLowering:
    """The ``Lowering`` behind ``Operator.lower``. ``node`` is the name dispatches carry. ``tuned``
    takes, by node, the keys of the problems that ``choices`` had an answer to."""

    def __init__(
        self,
        caps: DeviceCaps,
        store: ConstantStore,
        choices: Mapping[str, str] | None = None,
        tuned: dict[str, set[str]] | None = None,
    ) -> None:
        self.caps = caps
        self.choices = {} if choices is None else choices
        if tuned is not None:
            self.choices = _Noting(self.choices, self, tuned)
        self.node = ""
        self.accesses: dict[int, tuple[Access, ...]] = {}
        self._store = store

    # --- tensors ---------------------------------------------------------------------------------

    def constant(self, array: Array, name: str) -> View:
        return constant_view(array, f"{self.node}: {name}")

    def prepack(
        self, source: Array | tuple[Array, ...], tag: str, pack: Callable[[], Array] | Packing
    ) -> View:
        return self._store.get(source if isinstance(source, tuple) else (source,), tag, pack)

    def operand(self, tensor: Tensor, layout: Layout) -> View:
        array = tensor.array
        if array is None:
            view = tensor.on_device
            if view.layout != layout:
                raise BuildError(
                    f"{self.node}: value '{tensor.value.name}' is {view.layout}, wanted {layout}"
                )
            return view
        if layout == "linear":
            return self.prepack(array, "linear", lambda: array)
        view = self.prepack(array, "c4", lambda: pack_c4(array))
        stride = view.storage.size // ELEMENT_BYTES // max(array.shape[0], 1)
        return View(view.storage, array.shape, "float32", "c4", 0, stride)

    def scratch(self, elements: int, name: str) -> View:
        size = max(elements, 1) * ELEMENT_BYTES
        return View(Storage(size, f"{self.node}: {name}"), (elements,), "float32", "linear")

    # --- dispatches ------------------------------------------------------------------------------

    def dispatch(
        self,
        kernel: str,
        buffers: Mapping[str, View | None],
        push: Mapping[str, PushValue],
        spec: Mapping[str, Number],
        grid: tuple[int, int, int],
        **axes: str,
    ) -> Dispatch:
        views = {name: self._dummy_view() if v is None else v for name, v in buffers.items()}
        module = self._choose_variant(kernel, axes, views)
        self._check_names(module, "buffer", views, {b.name for b in module.buffers})
        ranges: dict[str, BufferRange] = {}
        accesses: list[Access] = []
        offsets: dict[str, PushValue] = {}
        declared = {field.name for field in module.push}
        for field in module.buffers:
            view = views[field.name]
            bound, residual = self._bind(module, field, view)
            ranges[field.name] = bound
            start = view.offset * ELEMENT_BYTES
            accesses.append(
                Access(
                    view.storage,
                    start,
                    start + view.span * ELEMENT_BYTES,
                    field.reads,
                    field.writes,
                    *_pieces(view),
                )
            )
            if f"{field.name}_offset" in declared:
                offsets[f"{field.name}_offset"] = residual
            elif residual:
                raise BuildError(
                    f"shader '{kernel}' has no push constant '{field.name}_offset' for a view "
                    f"at element {view.offset}"
                )
            if f"{field.name}_batch" in declared:
                offsets[f"{field.name}_batch"] = view.batch_stride // field.components
        all_push = {**offsets, **push}
        self._check_names(module, "push constant", all_push, declared)
        known = {s.name for s in module.spec}
        self._check_names(module, "specialization constant", spec, known & set(spec))
        self._check_numbers(kernel, {**all_push, **spec})
        self._check_grid(kernel, spec, grid)
        result = Dispatch(self.node, kernel, module.variant, ranges, all_push, dict(spec), grid)
        self.accesses[id(result)] = tuple(accesses)
        return result

    def _dummy_view(self) -> View:
        zeros = np.zeros(ALIGNMENT // ELEMENT_BYTES, np.float32)
        return self._store.get((), "unused buffer", lambda: zeros)

    def _choose_variant(
        self, kernel: str, axes: Mapping[str, str], views: Mapping[str, View]
    ) -> ShaderModule:
        """The module, with the first way of access of those preferred that the limits allow: the
        one that ``axes`` names, then the device's."""
        if "access" not in shaders.axes(kernel):
            return shaders.load(kernel, tuple(sorted(axes.items())))
        named = (axes["access"],) if "access" in axes else ()
        for access in (*named, *self.caps.access):
            if access in shaders.axes(kernel)["access"]:
                module = shaders.load(kernel, tuple(sorted({**axes, "access": access}.items())))
                if self._fits(module, views):
                    return module
        raise BuildError(f"shader '{kernel}' has no variant with access=ssbo")

    def _fits(self, module: ShaderModule, views: Mapping[str, View]) -> bool:
        """Whether there are as few texel buffers, each of as few texels, as the device allows."""
        caps = self.caps
        kinds = [field.kind for field in module.buffers]
        return (
            kinds.count("storage_texel") <= caps.max_storage_texel_buffers
            and kinds.count("uniform_texel") <= caps.max_uniform_texel_buffers
        ) and all(
            _byte_range(views[field.name], field)[1]
            <= caps.max_texel_buffer_elements * field.components * ELEMENT_BYTES
            for field in module.buffers
            if field.kind != "storage_buffer" and field.name in views
        )

    def _bind(
        self, module: ShaderModule, field: BufferField, view: View
    ) -> tuple[BufferRange, int]:
        """The descriptor's range, and what is left of the offset in elements of the shader."""
        aligned, size = _byte_range(view, field)
        residual = view.offset * ELEMENT_BYTES - aligned
        step = field.components * ELEMENT_BYTES
        if residual % step:
            raise BuildError(
                f"shader '{module.kernel}' takes '{field.name}' as vec4, but the view starts at "
                f"element {view.offset} (node '{self.node}')"
            )
        limit = self.caps.max_storage_buffer_range
        if field.kind == "storage_buffer" and size > limit:
            raise UnsupportedModelError(
                f"node '{self.node}': '{field.name}' of kernel '{module.kernel}' takes {size} "
                f"bytes, more than the device's maxStorageBufferRange of {limit}; "
                "use a smaller input size"
            )
        bound = BufferRange(view.storage, aligned, size, field.reads, field.writes)
        return bound, residual // step

    def _check_names(
        self, module: ShaderModule, what: str, given: Mapping[str, object], declared: set[str]
    ) -> None:
        missing, surplus = declared - set(given), set(given) - declared
        if missing or surplus:
            wrong = [f"{name} is missing" for name in sorted(missing)]
            wrong += [f"{name} is not declared" for name in sorted(surplus)]
            raise BuildError(
                f"{what} of shader '{module.kernel}' for node '{self.node}': {', '.join(wrong)}"
            )

    def _check_numbers(self, kernel: str, values: Mapping[str, PushValue]) -> None:
        """Kernels count in 32 bits; a model's attributes have 64."""
        for name, value in values.items():
            for number in (value,) if isinstance(value, (int, float)) else value:
                if isinstance(number, int) and not -(2**31) <= number < 2**32:
                    raise UnsupportedModelError(
                        f"node '{self.node}': {name} = {number} is more than the 32 bits of kernel "
                        f"'{kernel}'"
                    )

    def _check_grid(
        self, kernel: str, spec: Mapping[str, Number], grid: tuple[int, int, int]
    ) -> None:
        for axis, count, limit in zip("xyz", grid, self.caps.max_workgroup_count, strict=True):
            if count > limit:
                raise UnsupportedModelError(
                    f"node '{self.node}': kernel '{kernel}' needs {count} workgroups along {axis}, "
                    f"more than the device's maxComputeWorkGroupCount of {limit}; "
                    "use a smaller input size"
                )
        lanes = 1
        for axis, limit in zip("xyz", self.caps.max_workgroup_size, strict=True):
            size = int(spec.get(f"local_size_{axis}", 1))
            lanes *= size
            if size > limit:
                raise BuildError(
                    f"node '{self.node}': kernel '{kernel}': local_size_{axis} = {size}, more than "
                    f"the device's maxComputeWorkGroupSize of {limit}; use another device"
                )
        most = self.caps.max_workgroup_invocations
        if lanes > most:
            raise BuildError(
                f"node '{self.node}': kernel '{kernel}' has workgroups of {lanes} invocations, "
                f"more than the device's maxComputeWorkGroupInvocations of {most}; "
                "use another device"
            )


def _pieces(view: View) -> tuple[int, int]:
    """How many pieces a view's bytes lie in, and how far apart these start."""
    apart = view.layout == "c4" or (view.batch_stride and len(view.shape) == 2)
    batches = view.shape[0] if apart and view.span else 1
    return (batches, view.batch_stride * ELEMENT_BYTES) if batches > 1 else (1, 0)


def _byte_range(view: View, field: BufferField) -> tuple[int, int]:
    """Offset and size in the storage of what a descriptor binds: aligned, in whole elements."""
    start = view.offset * ELEMENT_BYTES
    aligned = start // ALIGNMENT * ALIGNMENT
    step = field.components * ELEMENT_BYTES
    end = start + max(view.span, 1) * ELEMENT_BYTES
    # storages are padded to whole vec4s, in the arena and among constants
    whole = -(-view.storage.size // 16) * 16
    return aligned, min(-(-(end - aligned) // step) * step, whole - aligned)
