"""Names to tensors: where storages lie, what the host meets them through, a dispatch's algorithm.

kp binds a tensor from its first byte. A plan binds ranges; where one begins later, the kernel is
told by its push constant ``<buffer>_offset``, which every kernel of this package has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.device.base import from_device
from vkconv.device.kompute.submissions import Slot, lifetimes, share_memory
from vkconv.device.kompute.tensors import padded
from vkconv.device.segments import Segment, byte_range
from vkconv.device.vulkan.named_constants import push_bytes, specialization
from vkconv.dispatch import Dispatch, Plan, PushValue, Storage, View
from vkconv.errors import DeviceError
from vkconv.ir import Array
from vkconv.shaders import ShaderModule

if TYPE_CHECKING:
    from vkconv.device.kompute.device import KomputeDevice


class Placement:
    """The tensors of one executable. A storage that the host meets has one of its own; the others
    share memory by lifetime."""

    def __init__(
        self,
        device: KomputeDevice,
        plan: Plan,
        segments: Sequence[Segment],
        groups: Sequence[Sequence[Sequence[Dispatch]]],
    ) -> None:
        self._device = device
        self._constants = tuple(dict.fromkeys(plan.constants))
        met = {v.storage: None for s in segments for v in (*s.uploads, *s.downloads)}
        lives = lifetimes(group for row in groups for group in row)
        slots = share_memory({s: life for s, life in lives.items() if s not in met})
        self.staging_bytes = sum(padded(storage.size) for storage in met)
        self.arena_bytes = self.staging_bytes + sum(padded(slot.size) for slot in slots)
        device.tensors.reserve(_demands(device, self._constants, list(met), slots))
        self.tensors: dict[Storage, Any] = {}
        for storage in met:
            self.tensors[storage] = device.tensors.border(padded(storage.size))
        for slot in slots:
            made = device.tensors.intermediate(padded(slot.size))
            self.tensors |= dict.fromkeys(slot.storages, made)
        device.acquire(self._constants)

    def tensor(self, storage: Storage) -> Any:
        """The kp tensor that holds a storage, from its first byte on."""
        return self._device.constant(storage) if storage.is_constant else self.tensors[storage]

    def close(self) -> None:
        """Frees every tensor, and its part in the constants; once."""
        for tensor in {id(t): t for t in self.tensors.values()}.values():
            tensor.destroy()
        self.tensors = {}
        self._device.release(self._constants)
        self._constants = ()


def _demands(
    device: KomputeDevice, constants: Sequence[Storage], met: Sequence[Storage], slots: list[Slot]
) -> dict[str, int]:
    """What will be allocated, in bytes, by names for messages."""
    rows = [(f"constant '{s.name}'", size) for s, size in device.missing(constants).items()]
    rows += [(f"'{s.name}'", padded(s.size)) for s in met]
    rows += [(f"the staging of '{s.name}'", padded(s.size)) for s in met]
    rows += [(f"'{slot.storages[0].name}'", padded(slot.size)) for slot in slots]
    return {f"{what} (tensor {i} of {len(rows)})": size for i, (what, size) in enumerate(rows, 1)}


class Border:
    """What the host writes before each segment and reads behind it: windows on staging memory.

    kp copies a tensor whole. Where the host writes a part of a storage between two segments, the
    storage is fetched at the end of the first, so that the rest goes back as it was.
    """

    def __init__(self, place: Placement, segments: Sequence[Segment]) -> None:
        self._windows: dict[View, Array] = {}
        #: by segment: the tensors to be copied to the device before it, and from it behind it
        self.uploads: list[list[Any]] = []
        self.downloads: list[list[Any]] = []
        self._taken: list[set[View]] = []
        for segment in segments:
            partial = [v.storage for v in segment.uploads if not _covers(v)]
            if self.downloads:
                self.downloads[-1] = _once(
                    [*self.downloads[-1], *(place.tensor(s) for s in partial)]
                )
            self.uploads.append(_once([place.tensor(v.storage) for v in segment.uploads]))
            self.downloads.append(_once([place.tensor(v.storage) for v in segment.downloads]))
            self._taken.append(set(segment.uploads))
            for view in (*segment.uploads, *segment.downloads):
                self._windows[view] = _window(place.tensor(view.storage), view)

    def write(self, k: int, view: View, array: Array) -> None:
        """Puts device elements where segment ``k`` takes them; a view nobody takes is dropped."""
        if k < len(self._taken) and view in self._taken[k]:
            np.copyto(self._windows[view], array)

    def read(self, view: View) -> Array:
        """The view's numbers in its ONNX dtype; a copy."""
        window = self._windows.get(view)
        if window is None:
            data = view.storage.data
            if data is None:
                return np.zeros(view.shape, view.dtype)  # only what has no elements has no window
            offset, size = byte_range(view)
            words = np.ascontiguousarray(data).reshape(-1).view(np.uint8)[offset : offset + size]
            window = words.view(_element(view)).reshape(view.shape)
        return from_device(window, view.dtype)

    def window(self, view: View) -> Array | None:
        """Where the host meets a view, in device elements."""
        return self._windows.get(view)

    def close(self) -> None:
        """Forgets the windows, whose memory goes."""
        self._windows = {}


def _covers(view: View) -> bool:
    offset, size = byte_range(view)
    return offset == 0 and size >= view.storage.size


def _once(tensors: list[Any]) -> list[Any]:
    return list({id(t): t for t in tensors}.values())


def _element(view: View) -> type[np.generic]:
    return np.int32 if view.is_integer else np.float32


def _window(tensor: Any, view: View) -> Array:
    offset, size = byte_range(view)
    if view.layout != "linear":
        raise DeviceError(
            f"'{view.storage.name}' meets the host in layout {view.layout} (internal error)"
        )
    words = np.asarray(tensor.data()).view(np.uint8)
    if offset + size > view.storage.size:
        raise DeviceError(f"a view of '{view.storage.name}' leaves its storage (internal error)")
    return words[offset : offset + size].view(_element(view)).reshape(view.shape)


def algorithm(device: KomputeDevice, place: Placement, dispatch: Dispatch) -> Any:
    """The kp algorithm of a dispatch: kernel, specialization, tensors, push constants, grid."""
    module = device.load(dispatch.kernel, dispatch.variant)
    _check(device, module, dispatch)
    tensors = [place.tensor(dispatch.buffers[f.name].storage) for f in module.buffers]
    # kp numbers bindings by position; a number that the kernel leaves out gets any tensor
    by_binding = dict(zip((f.binding for f in module.buffers), tensors, strict=True))
    bound = [by_binding.get(i, tensors[0]) for i in range(max(by_binding) + 1)]
    push = np.frombuffer(
        push_bytes(module, _with_offsets(module, dispatch), dispatch.node), np.uint32
    )
    return device.opened.algorithm(
        bound, module.code, list(dispatch.grid), specialization_words(module, dispatch.spec), push
    )


def specialization_words(module: ShaderModule, spec: Mapping[str, Any]) -> Array:
    """Specialization constants as words by number, from 0 on: kp knows no other way. The defaults
    stand where none is given, zeros at numbers the kernel does not have (which Vulkan ignores)."""
    given = {f.name: f.default for f in module.spec} | dict(spec)
    rows = dict(specialization(module, given))
    words = b"".join(rows.get(i, bytes(4)) for i in range(max(rows, default=-1) + 1))
    return np.frombuffer(words, np.uint32)


def _with_offsets(module: ShaderModule, dispatch: Dispatch) -> dict[str, PushValue]:
    """The push constants, their offsets counted from the start of the storages."""
    push = dict(dispatch.push)
    for field in module.buffers:
        begin = dispatch.buffers[field.name].offset
        if not begin:
            continue
        name, element = f"{field.name}_offset", 4 * field.components
        held = push.get(name)
        if not isinstance(held, int) or begin % element:
            raise DeviceError(
                f"node '{dispatch.node}': kernel '{dispatch.kernel}' has no push constant "
                f"'{name}', and '{field.name}' begins at byte {begin} of its storage; Kompute "
                "binds tensors from their start: add the push constant, or use the default engine"
            )
        push[name] = held + begin // element
    return push


#: the remedy where a kernel asks for more than a device has
OTHERWISE = "plan with this device's capabilities, or use another device"


def _check(device: KomputeDevice, module: ShaderModule, dispatch: Dispatch) -> None:
    """Raises DeviceError where a dispatch asks for what kp or the device does not have."""
    where = f"node '{dispatch.node}', kernel '{dispatch.kernel}'"
    kinds = {f.kind for f in module.buffers if f.kind != "storage_buffer"}
    if kinds or "GroupNonUniformShuffle" in module.capabilities:
        raise DeviceError(
            f"{where} {dict(dispatch.variant)} needs {', '.join(sorted(kinds)) or 'shuffles'}, "
            "which Kompute does not offer; plan with this device's capabilities"
        )
    most = device.caps.max_storage_buffers
    if not module.buffers or max(f.binding for f in module.buffers) >= most:
        raise DeviceError(
            f"{where}: has {len(module.buffers)} buffers, and Kompute binds at least one and no "
            f"more than the device's maxPerStageDescriptorStorageBuffers of {most}; {OTHERWISE}"
        )
    room = device.caps.max_push_constants_size
    if module.push_size > room:
        raise DeviceError(
            f"{where}: needs {module.push_size} bytes of push constants, more than the device's "
            f"maxPushConstantsSize of {room}; {OTHERWISE}"
        )
    limit = device.caps.max_workgroup_count
    if any(not 0 < n <= most for n, most in zip(dispatch.grid, limit, strict=True)):
        raise DeviceError(
            f"{where}: grid {dispatch.grid} is not within the device's maxComputeWorkGroupCount of "
            f"{limit}; use a smaller input size, or another device"
        )
