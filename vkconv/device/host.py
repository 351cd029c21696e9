"""The host's part of running a plan: feeds, host slots and host steps, the same on every device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vkconv.device.base import to_device
from vkconv.dispatch import HostSlot, HostStep, Port, View
from vkconv.errors import DeviceError, InvalidInputError, VkconvError
from vkconv.ir import Array

#: the view's numbers in its ONNX dtype, as an array of its own
Read = Callable[[View], Array]
#: puts device elements (float32 or int32, of the view's shape) into the view
Write = Callable[[View, Array], None]
#: host slots by name, for one run
Slots = dict[str, Array]


def feed_of(port: Port, feeds: Mapping[str, Array]) -> Array:
    """The caller's array for an input. Raises InvalidInputError where it is unlike the plan."""
    if port.name not in feeds:
        raise InvalidInputError(
            f"input '{port.name}' is missing; feeds hold {sorted(feeds) or 'nothing'}"
        )
    array = np.asarray(feeds[port.name])
    if tuple(array.shape) != port.shape or not _same_dtype(array, port.dtype):
        raise InvalidInputError(
            f"input '{port.name}' is {array.dtype}{list(array.shape)}; the plan takes "
            f"{port.dtype}{list(port.shape)}"
        )
    return array


def run_host_step(step: HostStep, slots: Slots, read: Read, write: Write) -> None:
    """Computes one node with numpy and stores what it returns."""
    arguments: list[Array | None] = []
    for given in step.inputs:
        if isinstance(given, View):
            arguments.append(read(given))
        elif isinstance(given, HostSlot):
            if given.name not in slots:
                raise _fault(step, f"its input '{given.name}' has not been computed")
            arguments.append(slots[given.name])
        else:
            arguments.append(given)
    try:
        result = step.compute(*arguments)
    except VkconvError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"node '{step.node}' ({step.op_type}) failed on the host: "
            f"{type(error).__name__}: {error}"
        ) from error
    results = result if isinstance(result, (tuple, list)) else (result,)
    if len(results) != len(step.outputs):
        raise _fault(step, f"it returned {len(results)} arrays for {len(step.outputs)} outputs")
    for value, target in zip(results, step.outputs, strict=True):
        array = np.asarray(value)
        if isinstance(target, HostSlot):
            if not _same_dtype(array, target.dtype):
                raise _fault(
                    step, f"output '{target.name}' is {array.dtype}, planned as {target.dtype}"
                )
            slots[target.name] = array
            continue
        if array.shape != target.shape or not _same_dtype(array, target.dtype):
            raise _fault(
                step,
                f"it returned {array.dtype}{list(array.shape)}, planned as "
                f"{target.dtype}{list(target.shape)}",
            )
        write(target, to_device(array, target.storage.name))


def output_of(port: Port, slots: Slots, read: Read) -> Array:
    """A plan output in the dtype its port promises; always an array of the caller's own."""
    place = port.place
    if isinstance(place, View):
        array = read(place)
        return array if _same_dtype(array, port.dtype) else array.astype(port.dtype)
    if isinstance(place, HostSlot):
        if place.name not in slots:
            raise DeviceError(f"output '{port.name}' has not been computed (internal error)")
        place = slots[place.name]
    if place is None:
        raise DeviceError(f"output '{port.name}' lies nowhere (internal error)")
    return np.array(place) if _same_dtype(place, port.dtype) else place.astype(port.dtype)


def _same_dtype(array: Array, dtype: str) -> bool:
    if dtype == "string":
        return array.dtype.kind in "OUS"
    return array.dtype == np.dtype(dtype)


def _fault(step: HostStep, what: str) -> DeviceError:
    return DeviceError(f"node '{step.node}' ({step.op_type}) on the host: {what} (internal error)")
