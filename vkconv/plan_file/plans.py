"""Plans in a plan file: storages, steps and ports as tables.

Kernels are named with a digest of their SPIR-V and interface: a plan runs with exactly the kernels
it was made for, whatever version they come in. Reading checks what ``checks`` can check of a step
without a device; nothing is taken on trust because the planner would have got it right.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from vkconv import shaders
from vkconv.dispatch import (
    ALIGNMENT,
    BufferRange,
    Dispatch,
    HostSlot,
    HostStep,
    Plan,
    Port,
    Step,
    Storage,
    View,
)
from vkconv.entry_points import load_operators
from vkconv.errors import BuildError, InvalidModelError
from vkconv.ir import DTYPES, Array
from vkconv.plan_file.checks import check_dispatch, checked_push, checked_spec
from vkconv.plan_file.container import Reader, Writer
from vkconv.plan_file.fields import Fields
from vkconv.plan_file.graphs import read_array, write_array
from vkconv.plan_file.host_nodes import read_host_step, write_host_node
from vkconv.plan_file.recipes import can_write, read_recipe, write_recipe
from vkconv.shaders import ShaderModule, Variant

Place = View | HostSlot | Array | None


def digest(module: ShaderModule) -> str:
    """Names a kernel's code and interface."""
    interface = (module.buffers, module.push, module.push_size, module.spec, module.capabilities)
    return hashlib.sha256(module.code + repr(interface).encode()).hexdigest()


# --- writing -------------------------------------------------------------------------------------


def write_plan(plan: Plan, writer: Writer) -> dict[str, Any]:
    return _PlanWriter(writer).write(plan)


class _PlanWriter:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._storages: dict[int, tuple[int, Storage]] = {}
        self._kernels: dict[ShaderModule, int] = {}

    def write(self, plan: Plan) -> dict[str, Any]:
        for storage in (*plan.storages, *plan.constants):
            self._storage(storage)
        steps = [
            self._dispatch(s) if isinstance(s, Dispatch) else self._host_step(s) for s in plan.steps
        ]
        inputs, outputs = (
            [self._port(p) for p in plan.inputs],
            [self._port(p) for p in plan.outputs],
        )
        return {
            "arena_size": plan.arena_size,
            "arena_lower_bound": plan.arena_lower_bound,
            "kernels": [
                {"kernel": m.kernel, "variant": m.variant, "digest": digest(m)}
                for m in self._kernels
            ],
            "storages": [
                {"name": s.name, "size": s.size, "offset": s.offset, **self._elements(s)}
                for _, s in self._storages.values()
            ],
            "steps": steps,
            "inputs": inputs,
            "outputs": outputs,
            "flops": {name: int(count) for name, count in plan.flops.items()},
        }

    def _elements(self, storage: Storage) -> dict[str, Any]:
        """What a constant holds, or how it is packed."""
        recipe = storage.recipe
        if recipe is not None and can_write(recipe, self._writer):
            return {"recipe": write_recipe(recipe, storage.data_type, self._writer)}
        return {"array": self._writer.add(storage) if storage.is_constant else None}

    def _storage(self, storage: Storage) -> int:
        return self._storages.setdefault(id(storage), (len(self._storages), storage))[0]

    def _dispatch(self, step: Dispatch) -> dict[str, Any]:
        module = shaders.load(step.kernel, step.variant)
        types: dict[str, str] = {f.name: f.type for f in module.push}
        types |= {f.name: f.type for f in module.spec}
        return {
            "node": step.node,
            "kernel": self._kernels.setdefault(module, len(self._kernels)),
            "buffers": {
                name: [self._storage(r.storage), r.offset, r.size]
                for name, r in step.buffers.items()
            },
            "push": {name: _number(v, types[name]) for name, v in step.push.items()},
            "spec": {name: _number(v, types[name]) for name, v in step.spec.items()},
            "grid": [int(n) for n in step.grid],
            "barrier": bool(step.barrier),
        }

    def _host_step(self, step: HostStep) -> dict[str, Any]:
        return {
            "node": step.node,
            "reason": step.reason,
            "host": write_host_node(step, self._writer),
            "inputs": [self._place(p) for p in step.inputs],
            "outputs": [self._place(p) for p in step.outputs],
        }

    def _port(self, port: Port) -> dict[str, Any]:
        shape = [int(d) for d in port.shape]
        place = self._place(port.place)
        return {"name": port.name, "dtype": port.dtype, "shape": shape, "place": place}

    def _place(self, place: Place) -> dict[str, Any] | None:
        if place is None:
            return None
        if isinstance(place, HostSlot):
            return {"slot": place.name, "dtype": place.dtype, "shape": list(map(int, place.shape))}
        if isinstance(place, View):
            return {
                "storage": self._storage(place.storage),
                "dtype": place.dtype,
                "shape": [int(d) for d in place.shape],
                "layout": place.layout,
                "offset": int(place.offset),
                "batch_stride": int(place.batch_stride),
            }
        return {"array": write_array(place, self._writer)}


def _number(value: Any, type_: str) -> Any:
    """A push or specialization constant as JSON has it."""
    if isinstance(value, (int, float, np.number)):
        return float(value) if type_ == "float" else int(value)
    return [_number(v, type_) for v in value]


# --- reading -------------------------------------------------------------------------------------


def read_plan(fields: Fields, reader: Reader) -> Plan:
    return _PlanReader(fields, reader).read()


class _PlanReader:
    def __init__(self, fields: Fields, reader: Reader) -> None:
        self._fields, self._reader = fields, reader
        self._arena = fields.integer("arena_size")
        self._storages = [self._storage(row) for row in fields.rows("storages")]
        self._kernels = [self._kernel(row) for row in fields.rows("kernels")]

    def read(self) -> Plan:
        fields = self._fields
        arena = [s for s in self._storages if not s.is_constant]
        ends = [s.offset + -(-s.size // ALIGNMENT) * ALIGNMENT for s in arena]
        if self._arena != max(ends, default=0):
            raise fields.wrong("arena_size", "the end of the last storage")
        steps = [self._step(row) for row in fields.rows("steps")]
        read = {id(r.storage): r.storage for s in steps for r in _ranges(s)}
        return Plan(
            steps=tuple(steps),
            inputs=tuple(self._port(row) for row in fields.rows("inputs")),
            outputs=tuple(self._port(row) for row in fields.rows("outputs")),
            arena_size=self._arena,
            arena_lower_bound=fields.integer("arena_lower_bound", 0, self._arena),
            constants=tuple(s for s in read.values() if s.is_constant),
            storages=tuple(arena),
            flops=self._flops(),
        )

    def _flops(self) -> dict[str, int]:
        """Of the nodes; files of earlier versions say nothing."""
        if "flops" not in self._fields:
            return {}
        counts = self._fields.fields("flops")
        return {name: counts.integer(name) for name in self._fields.table("flops")}

    def _storage(self, row: Fields) -> Storage:
        size, name = row.integer("size", 1), row.text("name")
        is_packed = "recipe" in row
        if not is_packed and row.raw("array") is None:
            offset = row.integer("offset", 0, self._arena)
            if offset % ALIGNMENT or offset + size > self._arena:
                raise row.wrong("offset", "a place in the arena")
            return Storage(size, name, offset=offset)
        if is_packed:
            packing = read_recipe(row.fields("recipe"), self._reader)
        else:
            packing = self._reader.packing(row.raw("array"))
        count = packing.nbytes
        if packing.dtype not in ("float32", "int32") or not count <= size <= count + 16:
            raise row.wrong("array", f"a constant of {size} bytes")
        return Storage(size, name, pack=packing)

    def _kernel(self, row: Fields) -> ShaderModule:
        name, variant = row.text("kernel"), tuple(row.pairs("variant"))
        module = _module(name, variant)
        if module is None or digest(module) != row.text("digest"):
            has = "another version of" if module is not None else "not"
            raise InvalidModelError(
                f"plan file {self._reader.label} was made with kernel '{name:.60}', and this "
                f"installation has {has} it; make it again with 'vkconv compile', after importing "
                "the operators it uses"
            )
        return module

    def _step(self, row: Fields) -> Step:
        return self._dispatch(row) if "kernel" in row else self._host_step(row)

    def _dispatch(self, row: Fields) -> Dispatch:
        if not self._kernels:
            raise row.wrong("kernel", "one of the kernels")
        module = self._kernels[row.integer("kernel", 0, len(self._kernels) - 1)]
        grid = row.integers("grid", 1, 2**32 - 1)
        if len(grid) != 3:
            raise row.wrong("grid", "three counts")
        given = row.table("buffers")
        if set(given) != {b.name for b in module.buffers}:
            raise row.wrong("buffers", f"the buffers of kernel '{module.kernel}'")
        buffers = row.fields("buffers")
        ranges = {}
        for field in module.buffers:
            place = buffers.integers(field.name)
            if len(place) != 3 or place[0] >= len(self._storages):
                raise buffers.wrong(field.name, "a range of a storage")
            storage = self._storages[place[0]]
            ranges[field.name] = BufferRange(storage, place[1], place[2], field.reads, field.writes)
        dispatch = Dispatch(
            row.text("node"),
            module.kernel,
            module.variant,
            ranges,
            checked_push(module, row),
            checked_spec(module, row),
            (grid[0], grid[1], grid[2]),
            row.flag("barrier"),
        )
        check_dispatch(dispatch, module, row)
        return dispatch

    def _host_step(self, row: Fields) -> HostStep:
        inputs = tuple(self._place(v, row) for v in row.items("inputs"))
        outputs: list[View | HostSlot] = []
        for place in (self._place(v, row) for v in row.items("outputs")):
            if not isinstance(place, (View, HostSlot)):
                raise row.wrong("outputs", "a list of places to write")
            outputs.append(place)
        name, reason = row.text("node"), row.text("reason")
        return read_host_step(
            row.fields("host"), self._reader, name, reason, inputs, tuple(outputs)
        )

    def _port(self, row: Fields) -> Port:
        place = self._place(row.raw("place"), row)
        dtype = row.text("dtype")
        shape = row.integers("shape")
        fits = place is None or tuple(place.shape) == shape
        if isinstance(place, View):  # the device holds floats, or integers of 32 bits
            fits = fits and ("float" in dtype) == ("float" in place.dtype)
        if dtype not in DTYPES or not fits:
            raise row.fail(f"the type of {row.where} does not fit its place")
        return Port(row.text("name"), dtype, shape, place)

    def _place(self, value: Any, row: Fields) -> Place:
        if value is None:
            return None
        where = Fields(value, f"{row.where}, a place", row.fail)
        if "array" in where:
            return read_array(where.raw("array"), self._reader)
        dtype, shape = where.text("dtype"), where.integers("shape")
        if dtype not in DTYPES:
            raise where.wrong("dtype", "a type of elements")
        if "slot" in where:
            return HostSlot(where.text("slot"), shape, dtype)
        number, layout = where.integer("storage"), where.text("layout")
        if number >= len(self._storages) or dtype == "string":
            raise where.wrong("storage", "one of the storages")
        storage = self._storages[number]
        offset, stride = where.integer("offset"), where.integer("batch_stride")
        if layout == "linear":
            view = View(storage, shape, dtype, "linear", offset, stride)
        elif layout == "c4" and 2 <= len(shape) <= 5:
            view = View(storage, shape, dtype, "c4", offset, stride)
        else:
            raise where.wrong("layout", "linear or c4")
        if (view.offset + view.span) * 4 > -(-storage.size // 16) * 16:
            raise where.fail(f"{where.where} leaves '{storage.name:.60}'")
        return view


def _module(name: str, variant: Variant) -> ShaderModule | None:
    """The kernel; those of other packages' operators are there once these are loaded."""
    try:
        return shaders.load(name, variant)
    except BuildError:
        load_operators()
    try:
        return shaders.load(name, variant)
    except BuildError:
        return None


def _ranges(step: Step) -> list[BufferRange]:
    return list(step.buffers.values()) if isinstance(step, Dispatch) else []
