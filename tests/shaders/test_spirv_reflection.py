"""The SPIR-V parser against what the GLSL compiler makes of small shaders."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vkconv.shader_compiler import find_compiler
from vkconv.shader_compiler.reflection import ReflectionError, reflect

MAIN = "layout(local_size_x = 8) in;\nvoid main() { BODY }"


@pytest.fixture
def interface(tmp_path: Path) -> Any:
    """Compile declarations and the body of main(), and reflect the result."""

    def compiled(declarations: str, body: str = "", main: str = MAIN) -> dict[str, Any]:
        source, output = tmp_path / "k.comp", tmp_path / "k.spv"
        source.write_text(f"#version 450\n{declarations}\n{main.replace('BODY', body)}\n")
        command = find_compiler().command(source, tmp_path, output, [])
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return reflect(output.read_bytes())

    return compiled


def test_storage_buffers(interface: Any) -> None:
    found = interface(
        """
        layout(binding = 3, std430) buffer c_block { float c[]; };
        layout(binding = 0, std430) readonly buffer a_block { vec4 a[]; };
        layout(binding = 1, std430) writeonly buffer b_block { int b[]; };
        layout(binding = 7, std430) restrict buffer d_block { uvec4 d[]; };
        """,
        "b[0] = int(a[0].x + c[0]) + int(d[1].x);",
    )
    assert found["buffers"] == [
        ["a", 0, "storage_buffer", 4, True, False],
        ["b", 1, "storage_buffer", 1, False, True],
        ["c", 3, "storage_buffer", 1, True, True],
        ["d", 7, "storage_buffer", 4, True, True],
    ]
    assert found["push"] == []
    assert found["push_size"] == 0
    assert found["capabilities"] == ["Shader"]


def test_a_block_with_an_instance_name_is_known_by_its_member(interface: Any) -> None:
    found = interface("layout(binding = 0) readonly buffer Block { float x[]; } instance;")
    assert found["buffers"] == [["x", 0, "storage_buffer", 1, True, False]]


def test_texel_buffers(interface: Any) -> None:
    found = interface(
        """
        layout(binding = 0, rgba32f) readonly uniform imageBuffer a;
        layout(binding = 1, r32f) writeonly uniform imageBuffer b;
        layout(binding = 2, rgba32i) uniform iimageBuffer c;
        layout(binding = 3, r32i) uniform iimageBuffer d;
        layout(binding = 4) uniform samplerBuffer e;
        layout(binding = 5) uniform isamplerBuffer f;
        """
    )
    assert found["buffers"] == [
        ["a", 0, "storage_texel", 4, True, False],
        ["b", 1, "storage_texel", 1, False, True],
        ["c", 2, "storage_texel", 4, True, True],
        ["d", 3, "storage_texel", 1, True, True],
        ["e", 4, "uniform_texel", 4, True, False],
        ["f", 5, "uniform_texel", 4, True, False],
    ]
    assert {"ImageBuffer", "SampledBuffer", "Shader"} <= set(found["capabilities"])


def test_push_constants(interface: Any) -> None:
    found = interface(
        "layout(push_constant) uniform Push"
        " { int n; uint sizes[5]; float alpha; layout(offset = 64) int last[2]; };"
    )
    assert found["push"] == [
        ["n", 0, "int", 1],
        ["sizes", 4, "uint", 5],
        ["alpha", 24, "float", 1],
        ["last", 64, "int", 2],
    ]
    assert found["push_size"] == 72


def test_a_bool_in_push_constants_is_stored_as_uint(interface: Any) -> None:
    found = interface("layout(push_constant) uniform Push { bool on; };")
    assert found["push"] == [["on", 0, "uint", 1]]


def test_specialization_constants(interface: Any) -> None:
    found = interface(
        """
        layout(constant_id = 9) const int tile = -3;
        layout(constant_id = 3) const uint mask = 0xffffffffu;
        layout(constant_id = 4) const float slope = 0.25;
        layout(constant_id = 5) const bool has_bias = true;
        layout(constant_id = 6) const bool is_clamped = false;
        const int derived = tile * 2;
        """
    )
    assert found["spec"] == [
        ["mask", 3, "uint", 0xFFFFFFFF],
        ["slope", 4, "float", 0.25],
        ["has_bias", 5, "bool", 1],
        ["is_clamped", 6, "bool", 0],
        ["tile", 9, "int", -3],
    ]


def test_workgroup_size_by_id_gets_its_names(interface: Any) -> None:
    sizes = "layout(local_size_x_id = 2, local_size_y = 4, local_size_z_id = 0) in;"
    main = sizes + "\nvoid main() {}"
    assert interface("", main=main)["spec"] == [
        ["local_size_z", 0, "uint", 1],
        ["local_size_x", 2, "uint", 1],
    ]


def test_capabilities(interface: Any) -> None:
    found = interface(
        "#extension GL_KHR_shader_subgroup_shuffle : require\n"
        "#extension GL_EXT_shader_16bit_storage : require\n"
        "layout(binding = 0, std430) buffer x_block { f16vec4 x[]; };",
        "x[0] = f16vec4(subgroupShuffle(vec4(x[1]), 1));",
    )
    assert "GroupNonUniformShuffle" in found["capabilities"]
    assert "StorageBuffer16BitAccess" in found["capabilities"]
    assert found["buffers"] == [["x", 0, "storage_buffer", 4, True, True]]


@pytest.mark.parametrize(
    ("declarations", "message"),
    [
        ("layout(set = 1, binding = 0) buffer b { float x[]; };", "'x' is in set 1; use set 0"),
        (
            "layout(binding = 0) buffer b { float x[]; }; layout(binding = 1) buffer c"
            " { float x[]; } other;",
            "buffer 'x' is declared twice",
        ),
        (
            "layout(binding = 2) buffer b { float x[]; }; layout(binding = 2) buffer c"
            " { float y[]; };",
            "binding '2' is declared twice",
        ),
        ("layout(binding = 0) buffer b { int n; float x[]; };", "must hold one runtime array"),
        ("layout(binding = 0) buffer b { vec2 x[]; };", "must be scalars or 4-vectors"),
        (
            "layout(binding = 0) uniform b { float x[4]; };",
            "'b' is no buffer block",
        ),
        ("layout(binding = 0) uniform sampler2D x;", "'x' is an image"),
        ("layout(binding = 0, rgba32f) uniform image2D x;", "'x' is an image"),
        ("layout(binding = 0) uniform sampler x;", "a sampler in UniformConstant"),
        (
            "layout(binding = 0) uniform samplerBuffer x[2];",
            "but an array in",
        ),
        ("layout(binding = 0) writeonly uniform imageBuffer x;", "'x' needs a format"),
        ("layout(push_constant) uniform P { ivec4 stride; };", "push constant 'stride' must be"),
        ("layout(push_constant) uniform P { int grid[2][2]; };", "push constant 'grid' must be"),
        ("layout(push_constant, std140) uniform P { int n[2]; };", "push constant 'n' must be"),
        ("layout(constant_id = 0) const double d = 1.0;", "'d' must be a 32-bit scalar"),
        (
            "layout(constant_id = 1) const int a = 1;\nlayout(local_size_x_id = 1) in;",
            "share specialization id 1",
        ),
    ],
)
def test_refused(interface: Any, declarations: str, message: str) -> None:
    main = "void main() {}" if "local_size" in declarations else MAIN
    with pytest.raises(ReflectionError, match=message.replace("(", r"\(")):
        interface(declarations, main=main)


def module(*instructions: tuple[int, ...]) -> bytes:
    """A SPIR-V binary of the given (opcode, operand words...)."""
    words = [0x07230203, 0x00010300, 0, 100, 0]
    for opcode, *operands in instructions:
        words += [(len(operands) + 1) << 16 | opcode, *operands]
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"", "not SPIR-V: 0 bytes"),
        (b"\0" * 40, "not SPIR-V: it starts with"),
        (module() + struct.pack("<I", 9 << 16 | 5), "truncated SPIR-V"),
        (module() + struct.pack("<I", 0), "truncated SPIR-V"),
        (module((71, 1)), "truncated SPIR-V"),
        (module((17, 60000)), "capability 60000 is unknown"),
        # OpTypeInt 1 32 1, OpSpecConstant of it with SpecId 4 and no OpName
        (module((71, 2, 1, 4), (21, 1, 32, 1), (50, 1, 2, 7)), "with id 4 has no name"),
    ],
)
def test_malformed_or_nameless_modules(code: bytes, message: str) -> None:
    with pytest.raises(ReflectionError, match=message):
        reflect(code)


def test_either_endianness() -> None:
    name = struct.unpack("<I", b"abc\0")[0]
    code = module((5, 2, name), (71, 2, 1, 4), (21, 1, 32, 1), (50, 1, 2, 7))
    swapped = struct.pack(f">{len(code) // 4}I", *struct.unpack(f"<{len(code) // 4}I", code))
    assert reflect(code)["spec"] == [["abc", 4, "int", 7]]
    assert reflect(swapped) == reflect(code)
