"""What a dispatch from a file must keep to: the interface of its kernel, and its storages.

Kernels index their buffers by push constants. A wrong one may read or write any byte that the
dispatch's own buffers hold, and no other: buffers are bound with robust access, and their ranges
are checked here and, against the device's limits, when they are bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ALIGNMENT, Dispatch, Number, Plan, PushValue
from vkconv.errors import InvalidModelError
from vkconv.plan_file.fields import Fields
from vkconv.shaders import ShaderModule

#: specialization constants are sizes of tiles and windows: kernels unroll loops over them, and the
#: driver would unroll a wrong one for hours, and crash on a negative one. The most that operators
#: ask for is a few thousand
LARGEST_SPECIALIZATION = 1 << 16
#: and the most of the product of those that are no size of a workgroup
LARGEST_PRODUCT = 1 << 24
#: what is no size either: which functions elements go through, and what these read
_CODES = ("function_", "operand_")
#: sums that a kernel writes out whole, its window's taps included: the most of one such number, and
#: of their product; convolutions ask for 5,000
_WRITTEN_OUT = (
    *("OUTPUT_TILE", "PIXELS", "ROWS", "SPLIT", "CHANNELS", "KERNEL_W", "KERNEL_H"),
    *("rows", "pairs_w", "pairs_h"),
)
LARGEST_WRITTEN_OUT = 128
MOST_WRITTEN_OUT = 1 << 13
#: columns that a row of results reads, an array in such a kernel
LARGEST_SPAN = 1024
_RANGES = {"int": (-(2**31), 2**31 - 1), "uint": (0, 2**32 - 1), "bool": (0, 1)}


def checked_push(module: ShaderModule, row: Fields) -> dict[str, PushValue]:
    """The push constants of a dispatch, every one that the kernel declares and no other."""
    given = row.table("push")
    if set(given) != {f.name for f in module.push}:
        raise row.wrong("push", f"the push constants of kernel '{module.kernel}'")
    result: dict[str, PushValue] = {}
    for field in module.push:
        value = given[field.name]
        if isinstance(value, list):
            if len(value) != field.count:
                raise row.wrong("push", f"{field.count} numbers for '{field.name}'")
            result[field.name] = [_number(v, field.type, field.name, row) for v in value]
        elif field.count != 1:
            raise row.wrong("push", f"{field.count} numbers for '{field.name}'")
        else:
            result[field.name] = _number(value, field.type, field.name, row)
    return result


def checked_spec(module: ShaderModule, row: Fields) -> dict[str, Number]:
    """The specialization constants of a dispatch."""
    fields = {f.name: f for f in module.spec}
    result: dict[str, Number] = {}
    product = written_out = 1
    for name, value in row.table("spec").items():
        if name not in fields:
            raise row.wrong("spec", f"the specialization constants of kernel '{module.kernel}'")
        number = _number(value, fields[name].type, name, row)
        if isinstance(number, int):
            if not -LARGEST_SPECIALIZATION <= number <= LARGEST_SPECIALIZATION:
                raise row.fail(f"'{name}' = {number} of {row.where} is too large")
            if not name.startswith(("local_size_", *_CODES)):
                product *= max(1, number)
            if name in _WRITTEN_OUT:
                written_out *= max(1, number) if name != "CHANNELS" else 1
                if number > LARGEST_WRITTEN_OUT:
                    raise row.fail(f"'{name}' = {number} of {row.where} is too large")
            if number < name.startswith("local_size_"):
                raise row.fail(f"'{name}' = {number} of {row.where} is no size")
        result[name] = number
    pixels, taps, stride, dilation = (
        int(result.get(name, 1)) for name in ("PIXELS", "KERNEL_W", "STRIDE_X", "DILATION_X")
    )
    if (pixels - 1) * stride + (taps - 1) * dilation >= LARGEST_SPAN:
        raise row.fail(f"the strides of {row.where} are too large")
    if product > LARGEST_PRODUCT or written_out > MOST_WRITTEN_OUT:
        raise row.fail(f"the specialization constants of {row.where} are too large")
    return result


def check_dispatch(dispatch: Dispatch, module: ShaderModule, row: Fields) -> None:
    """Ranges lie in their storages, whose last vec4 may be a part; constants are only read."""
    for field in module.buffers:
        bound = dispatch.buffers[field.name]
        element = 4 * field.components
        room = -(-bound.storage.size // element) * element
        if bound.offset % ALIGNMENT or bound.size < 1 or bound.offset + bound.size > room:
            raise row.fail(f"buffer '{field.name}' of {row.where} leaves its storage")
        # what a kernel writes and nobody wants goes to a dummy of this size
        if field.writes and bound.storage.is_constant and bound.storage.size > ALIGNMENT:
            raise row.fail(f"{row.where} writes into a constant")


def _number(value: Any, type_: str, name: str, row: Fields) -> Number:
    if type_ == "float":
        if type(value) not in (int, float):
            raise row.fail(f"'{name}' of {row.where} is no number")
        # beyond float32 only the infinities are left
        if math.isfinite(value) and abs(value) > 3.5e38:
            raise row.fail(f"'{name}' of {row.where} is no float32")
        return float(value)
    low, high = _RANGES[type_]
    if type(value) is not int or not low <= value <= high:
        raise row.fail(f"'{name}' of {row.where} is no {type_}")
    return value


def check_limits(plan: Plan, caps: DeviceCaps, modules: Sequence[ShaderModule], label: str) -> None:
    """Raises InvalidModelError where a dispatch asks for more than the device has."""
    by_name = {(m.kernel, m.variant): m for m in modules}
    for step in plan.dispatches:
        wrong = _beyond(step, by_name[step.kernel, step.variant], caps)
        if wrong:
            raise InvalidModelError(
                f"plan file {label}, node '{step.node}': {wrong}, more than this device allows; "
                "make it again for this device with 'vkconv compile'"
            )


def _beyond(step: Dispatch, module: ShaderModule, caps: DeviceCaps) -> str:
    """What of a dispatch the device does not allow, in words."""
    for axis, count, limit in zip("xyz", step.grid, caps.max_workgroup_count, strict=True):
        if count > limit:
            return f"{count} workgroups along {axis}"
    defaults = {f.name: f.default for f in module.spec}
    sizes = [
        int(step.spec.get(f"local_size_{axis}", defaults.get(f"local_size_{axis}", 1)))
        for axis in "xyz"
    ]
    if math.prod(sizes) > caps.max_workgroup_invocations or any(
        size > limit for size, limit in zip(sizes, caps.max_workgroup_size, strict=True)
    ):
        return f"workgroups of {' x '.join(map(str, sizes))} invocations"
    for field in module.buffers:
        size = step.buffers[field.name].size
        texels = caps.max_texel_buffer_elements * field.components * 4
        limit = caps.max_storage_buffer_range if field.kind == "storage_buffer" else texels
        if size > limit:
            return f"{size} bytes in '{field.name}'"
    return ""
