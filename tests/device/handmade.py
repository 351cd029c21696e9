"""Plans and kernels made by hand: the engine is tested without operators, passes or planner."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from tests.drivers import manifest
from vkconv.dispatch import (
    BufferRange,
    Dispatch,
    HostSlot,
    HostStep,
    Number,
    Plan,
    Port,
    PushValue,
    Step,
    Storage,
    View,
)
from vkconv.ir import Array
from vkconv.shaders import BufferField, PushField, ShaderModule, SpecField, Variant

ROOT = Path(__file__).resolve().parents[2]
LAVAPIPE, SWIFTSHADER = manifest("lavapipe"), manifest("swiftshader")

HEAD = "#version 450\nlayout(local_size_x = 64) in;\n"
COUNT = "layout(push_constant) uniform Push { int count; float scale; ivec2 pad; } p;\n"
INDEX = "int i = int(gl_GlobalInvocationID.x); if (i >= p.count) return;\n"

#: y[i] = x[i] * scale + bias (a specialization constant) + pad[0] - pad[1]
SCALE = (
    HEAD
    + COUNT
    + """layout(constant_id = 3) const float bias = 0.5;
layout(constant_id = 7) const bool negate = false;
layout(set = 0, binding = 0) readonly buffer X { float x[]; };
layout(set = 0, binding = 1) writeonly buffer Y { float y[]; };
void main() { """
    + INDEX
    + "float v = x[i] * p.scale + bias + float(p.pad.x - p.pad.y); y[i] = negate ? -v : v; }"
)
#: y[i] = a[i] + b[n - 1 - i]: reads what other invocations wrote
ADD_REVERSED = (
    HEAD
    + COUNT
    + """layout(set = 0, binding = 2) readonly buffer A { float a[]; };
layout(set = 0, binding = 0) readonly buffer B { float b[]; };
layout(set = 0, binding = 5) writeonly buffer Y { float y[]; };
void main() { """
    + INDEX
    + "y[i] = a[i] + b[p.count - 1 - i] * p.scale; }"
)
#: the same doubling through texel buffers of one and four components
TEXELS = (
    HEAD
    + COUNT
    + """layout(set = 0, binding = 0, rgba32f) readonly uniform imageBuffer a;
layout(set = 0, binding = 1) uniform samplerBuffer b;
layout(set = 0, binding = 2, r32f) readonly uniform imageBuffer c;
layout(set = 0, binding = 3) writeonly buffer Y { vec4 y[]; };
void main() { """
    + INDEX
    + "y[i] = imageLoad(a, i) + 10.0 * texelFetch(b, i) + 100.0 * imageLoad(c, i).x; }"
)
#: a second or so of dependent arithmetic, for timeouts
SLOW = (
    HEAD
    + COUNT
    + """layout(set = 0, binding = 0) readonly buffer X { float x[]; };
layout(set = 0, binding = 1) writeonly buffer Y { float y[]; };
void main() { """
    + INDEX
    + "float v = x[i]; for (int k = 0; k < p.pad.x; ++k) v = fract(v * 1.7 + 0.3); y[i] = v; }"
)

PUSH = (
    PushField("count", 0, "int", 1),
    PushField("scale", 4, "float", 1),
    PushField("pad", 8, "int", 2),
)


@cache
def spirv(source: str) -> bytes:
    """Compiles GLSL with glslangValidator for Vulkan 1.1."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.comp"
        path.write_text(source)
        out = path.with_suffix(".spv")
        command = ["glslangValidator", "--target-env", "vulkan1.1", "-o", str(out), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return out.read_bytes()


@cache
def load(kernel: str, variant: Variant = ()) -> ShaderModule:
    """Stands in for vkconv.shaders.load."""
    ssbo = "storage_buffer"
    source, buffers, spec = {
        "scale": (
            SCALE,
            (BufferField("x", 0, ssbo, 1, True, False), BufferField("y", 1, ssbo, 1, False, True)),
            (SpecField("bias", 3, "float", 0.5), SpecField("negate", 7, "bool", 0)),
        ),
        "add_reversed": (
            ADD_REVERSED,
            (
                BufferField("a", 2, ssbo, 1, True, False),
                BufferField("b", 0, ssbo, 1, True, False),
                BufferField("y", 5, ssbo, 1, False, True),
            ),
            (),
        ),
        "texels": (
            TEXELS,
            (
                BufferField("a", 0, "storage_texel", 4, True, False),
                BufferField("b", 1, "uniform_texel", 4, True, False),
                BufferField("c", 2, "storage_texel", 1, True, False),
                BufferField("y", 3, ssbo, 4, False, True),
            ),
            (),
        ),
        "slow": (
            SLOW,
            (BufferField("x", 0, ssbo, 1, True, False), BufferField("y", 1, ssbo, 1, False, True)),
            (),
        ),
    }[kernel]
    return ShaderModule(kernel, variant, spirv(source), buffers, PUSH, 16, spec, ("Shader",))


class PlanMaker:
    """Collects storages (never reusing memory) and steps into a Plan."""

    def __init__(self, count: int = 1000) -> None:
        self.count = count
        self.steps: list[Step] = []
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.constants: list[Storage] = []
        self.storages: list[Storage] = []
        self.arena = 0

    def storage(self, name: str, elements: int | None = None) -> Storage:
        size = 4 * (self.count if elements is None else elements)
        made = Storage(size, name, offset=self.arena)
        self.arena += -(-max(size, 1) // 256) * 256
        self.storages.append(made)
        return made

    def constant(self, name: str, data: Array) -> Storage:
        made = Storage(data.nbytes, name, data)
        self.constants.append(made)
        return made

    def view(self, name: str, shape: tuple[int, ...] | None = None, dtype: str = "float32") -> View:
        shape = (self.count,) if shape is None else shape
        return View(self.storage(name, int(np.prod(shape))), shape, dtype, "linear")

    def input(self, name: str, place: View | HostSlot | None, dtype: str | None = None) -> None:
        shape = place.shape if place is not None else (self.count,)
        kind = dtype or (place.dtype if place is not None else "float32")
        self.inputs.append(Port(name, kind, shape, place))

    def output(self, name: str, place: View | HostSlot | Array) -> None:
        self.outputs.append(Port(name, str(place.dtype), place.shape, place))

    def dispatch(
        self,
        kernel: str,
        buffers: Mapping[str, Storage | View],
        *,
        writes: Sequence[str] = ("y",),
        scale: float = 1.0,
        pad: tuple[int, int] = (0, 0),
        spec: Mapping[str, Number] | None = None,
        barrier: bool = True,
        count: int | None = None,
        grid: tuple[int, int, int] | None = None,
    ) -> None:
        n = self.count if count is None else count
        ranges = {}
        for name, given in buffers.items():
            storage = given.storage if isinstance(given, View) else given
            written = name in writes
            ranges[name] = BufferRange(storage, 0, storage.size, not written, written)
        push: dict[str, PushValue] = {"count": n, "scale": scale, "pad": pad}
        node = f"{kernel}_{len(self.steps)}"
        self.steps.append(
            Dispatch(
                node,
                kernel,
                (),
                ranges,
                push,
                spec or {},
                grid or ((n + 63) // 64, 1, 1),
                barrier,
            )
        )

    def host(
        self,
        compute: Callable[..., object],
        inputs: Sequence[View | HostSlot | Array | None],
        outputs: Sequence[View | HostSlot],
    ) -> None:
        node = f"host_{len(self.steps)}"
        self.steps.append(
            HostStep(node, "Handmade", "a test", tuple(inputs), tuple(outputs), compute)
        )

    def plan(self) -> Plan:
        return Plan(
            steps=tuple(self.steps),
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            arena_size=self.arena,
            arena_lower_bound=self.arena,
            constants=tuple(self.constants),
            storages=tuple(self.storages),
        )


def chain(length: int, count: int = 1000, barrier: bool = True) -> Plan:
    """x -> length dispatches of y = x * 0.5 + 1, ping-pong between two storages (RAW, WAR)."""
    maker = PlanMaker(count)
    x = maker.view("x")
    ping, pong = maker.storage("ping"), maker.storage("pong")
    maker.input("x", x)
    source: Storage = x.storage
    for k in range(length):
        target = ping if k % 2 == 0 else pong
        maker.dispatch(
            "scale",
            {"x": source, "y": target},
            scale=0.5,
            spec={"bias": 1.0},
            barrier=barrier,
        )
        source = target
    maker.output("y", View(source, (count,), "float32", "linear"))
    return maker.plan()


def chain_expected(x: Array, length: int) -> Array:
    """What ``chain`` computes, by numpy."""
    for _ in range(length):
        x = x * np.float32(0.5) + np.float32(1.0)
    return x


def run_python(
    code: str, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` in a new interpreter in the repository root."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("VK_", "VKCONV_"))}
    env.update({"PYTHONPATH": str(ROOT), **environment})
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=env,
    )
