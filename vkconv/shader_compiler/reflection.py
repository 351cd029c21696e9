"""Read a compute shader's interface out of its SPIR-V: buffers, push and specialization constants.

Written against the SPIR-V specification, unified 1.6: 2.3 "Physical Layout of a SPIR-V Module and
Instruction" (header, word counts), 3.52.2 "Debug Instructions" (OpName, OpMemberName), 3.52.3
"Annotation Instructions" (OpDecorate, OpMemberDecorate), 3.52.6 "Type-Declaration", 3.52.7
"Constant-Creation" and 3.52.8 "Memory Instructions" (OpVariable), 3.20 "Decoration", 3.21
"BuiltIn", 3.6 "Execution Mode", 3.7 "Storage Class", 3.8 "Dim", 3.11 "Image Format", 3.31
"Capability".

The accepted interface is deliberately small, because each part of it is a promise to the planner:
buffers of descriptor set 0 (one runtime array each, or texel buffers), 32-bit scalars in push
constants, 32-bit scalar specialization constants. Anything else is a ReflectionError, so that it
fails the build and not a dispatch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

MAGIC = 0x07230203
STORAGE_CLASSES = {0: "UniformConstant", 2: "Uniform", 9: "PushConstant", 12: "StorageBuffer"}
DIM_BUFFER = 5
BUILTIN_WORKGROUP_SIZE = 25
MODE_LOCAL_SIZE_ID = 38
#: Image Format -> components; R32f, R16f, R32i, R32ui and the four-component ones
FORMAT_COMPONENTS = {1: 4, 2: 4, 21: 4, 22: 4, 23: 4, 30: 4, 31: 4, 32: 4, 3: 1, 9: 1, 24: 1, 33: 1}
#: Decoration -> name, for the decorations that carry interface
DECORATIONS = {
    1: "SpecId", 2: "Block", 3: "BufferBlock", 6: "ArrayStride", 11: "BuiltIn",
    24: "NonWritable", 25: "NonReadable", 33: "Binding", 34: "DescriptorSet", 35: "Offset",
}  # fmt: skip
#: Capability -> name. A device must be asked for each, so an unknown one is an error, not a number.
CAPABILITIES = {
    0: "Matrix", 1: "Shader", 9: "Float16", 10: "Float64", 11: "Int64",
    22: "Int16", 39: "Int8", 43: "Sampled1D", 46: "SampledBuffer", 47: "ImageBuffer",
    50: "ImageQuery",    55: "StorageImageReadWithoutFormat", 56: "StorageImageWriteWithoutFormat",
    49: "StorageImageExtendedFormats", 61: "GroupNonUniform", 62: "GroupNonUniformVote",
    63: "GroupNonUniformArithmetic", 64: "GroupNonUniformBallot", 65: "GroupNonUniformShuffle",
    66: "GroupNonUniformShuffleRelative", 67: "GroupNonUniformClustered", 68: "GroupNonUniformQuad",
    4423: "SubgroupBallotKHR", 4431: "SubgroupVoteKHR", 4433: "StorageBuffer16BitAccess",
    4434: "UniformAndStorageBuffer16BitAccess", 4435: "StoragePushConstant16",
    4448: "StorageBuffer8BitAccess", 4449: "UniformAndStorageBuffer8BitAccess",
    4450: "StoragePushConstant8", 4464: "DenormPreserve", 4465: "DenormFlushToZero",
    4466: "SignedZeroInfNanPreserve", 4467: "RoundingModeRTE", 4468: "RoundingModeRTZ",
    5345: "VulkanMemoryModel", 5346: "VulkanMemoryModelDeviceScope", 5357: "CooperativeMatrixNV",
    6016: "DotProductInputAll", 6017: "DotProductInput4x8Bit", 6018: "DotProductInput4x8BitPacked",
    6019: "DotProduct", 6022: "CooperativeMatrixKHR",
}  # fmt: skip


class ReflectionError(Exception):
    """The SPIR-V is malformed, or its interface is not one that vkconv dispatches."""


@dataclass
class Module:
    """The instructions of a module that bear on its interface, by result id."""

    names: dict[int, str] = field(default_factory=dict)
    member_names: dict[tuple[int, int], str] = field(default_factory=dict)
    decorations: dict[int, dict[str, int]] = field(default_factory=dict)
    member_decorations: dict[tuple[int, int], dict[str, int]] = field(default_factory=dict)
    #: id -> (kind, operands), e.g. ("vector", (component type id, count))
    types: dict[int, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    #: id -> value word, for OpConstant
    constants: dict[int, int] = field(default_factory=dict)
    #: id -> (type id, default word)
    spec_constants: dict[int, tuple[int, int]] = field(default_factory=dict)
    composites: dict[int, tuple[int, ...]] = field(default_factory=dict)
    #: (id, pointer type id, storage class)
    variables: list[tuple[int, int, int]] = field(default_factory=list)
    local_size_ids: tuple[int, ...] = ()
    capabilities: list[int] = field(default_factory=list)


TYPE_OPCODES = {
    20: "bool", 21: "int", 22: "float", 23: "vector", 24: "matrix", 25: "image", 26: "sampler",
    27: "sampled_image", 28: "array", 29: "runtime_array", 30: "struct", 32: "pointer",
}  # fmt: skip


def parse(code: bytes) -> Module:
    """Decode a SPIR-V binary (either endianness) up to its first function."""
    if len(code) < 20 or len(code) % 4:
        raise ReflectionError(f"not SPIR-V: {len(code)} bytes")
    order = "<" if struct.unpack_from("<I", code)[0] == MAGIC else ">"
    words = struct.unpack(f"{order}{len(code) // 4}I", code)
    if words[0] != MAGIC:
        raise ReflectionError(f"not SPIR-V: it starts with 0x{words[0]:08x}")
    module = Module()
    at = 5
    while at < len(words):
        count, opcode = words[at] >> 16, words[at] & 0xFFFF
        if count == 0 or at + count > len(words):
            raise ReflectionError(f"truncated SPIR-V: instruction {opcode} at word {at}")
        if (
            opcode == 54
        ):  # OpFunction: the interface lies before it (2.4 "Logical Layout of a Module")
            break
        try:
            _read_instruction(module, opcode, words[at + 1 : at + count])
        except IndexError:
            raise ReflectionError(f"truncated SPIR-V: instruction {opcode} at word {at}") from None
        at += count
    return module


def _read_instruction(module: Module, opcode: int, words: tuple[int, ...]) -> None:
    if opcode == 5:
        module.names[words[0]] = _string(words[1:])
    elif opcode == 6:
        module.member_names[words[0], words[1]] = _string(words[2:])
    elif opcode == 17:
        module.capabilities.append(words[0])
    elif opcode == 331 and words[1] == MODE_LOCAL_SIZE_ID:
        module.local_size_ids = words[2:5]
    elif opcode == 71 and words[1] in DECORATIONS:
        value = words[2] if len(words) > 2 else 1
        module.decorations.setdefault(words[0], {})[DECORATIONS[words[1]]] = value
    elif opcode == 72 and words[2] in DECORATIONS:
        value = words[3] if len(words) > 3 else 1
        members = module.member_decorations.setdefault((words[0], words[1]), {})
        members[DECORATIONS[words[2]]] = value
    elif opcode in TYPE_OPCODES:
        module.types[words[0]] = (TYPE_OPCODES[opcode], words[1:])
    elif opcode == 43:
        module.constants[words[1]] = words[2]
    elif opcode in (48, 49):  # OpSpecConstantTrue, OpSpecConstantFalse
        module.spec_constants[words[1]] = (words[0], int(opcode == 48))
    elif opcode == 50:
        module.spec_constants[words[1]] = (words[0], words[2])
    elif opcode in (44, 51):  # OpConstantComposite, OpSpecConstantComposite
        module.composites[words[1]] = words[2:]
    elif opcode == 59:
        module.variables.append((words[1], words[0], words[2]))


def _string(words: tuple[int, ...]) -> str:
    # the first octet is the lowest-order byte of a word, whatever the module's endianness (2.2.1)
    return struct.pack(f"<{len(words)}I", *words).split(b"\0", 1)[0].decode("utf-8", "replace")


def reflect(code: bytes) -> dict[str, Any]:
    """The interface as plain lists and numbers, in the form that ``vkconv/shaders.py`` reads."""
    module = parse(code)
    buffers: list[list[Any]] = []
    push: list[list[Any]] = []
    push_size = 0
    for variable, pointer, storage in module.variables:
        if storage not in STORAGE_CLASSES:
            continue
        pointee = module.types[pointer][1][1]
        if STORAGE_CLASSES[storage] == "PushConstant":
            push, push_size = _push_constants(module, pointee)
        else:
            buffers.append(_buffer(module, variable, pointee, STORAGE_CLASSES[storage]))
    _refuse_repeats("buffer", [row[0] for row in buffers])
    _refuse_repeats("binding", [row[1] for row in buffers])
    return {
        "buffers": sorted(buffers, key=lambda row: row[1]),
        "push": push,
        "push_size": push_size,
        "spec": _spec_constants(module),
        "capabilities": sorted(_capability(number) for number in module.capabilities),
    }


def _refuse_repeats(what: str, values: list[Any]) -> None:
    for value in sorted({value for value in values if values.count(value) > 1}):
        raise ReflectionError(f"{what} '{value}' is declared twice")


def _capability(number: int) -> str:
    try:
        return CAPABILITIES[number]
    except KeyError:
        raise ReflectionError(
            f"SPIR-V capability {number} is unknown here; add it to CAPABILITIES and see to it "
            "that the device is asked for it"
        ) from None


def _buffer(module: Module, variable: int, pointee: int, storage: str) -> list[Any]:
    """One descriptor as [name, binding, kind, components, reads, writes]."""
    decorations = module.decorations.get(variable, {})
    flags = set(decorations)
    kind, operands = module.types[pointee]
    name = module.names.get(variable, "")
    shown = name or module.names.get(pointee, "") or f"id {variable}"
    if storage == "StorageBuffer" and kind == "struct":
        if len(operands) != 1 or module.types[operands[0]][0] != "runtime_array":
            raise ReflectionError(
                f"buffer block '{shown}' must hold one runtime array and nothing else"
            )
        flags |= set(module.member_decorations.get((pointee, 0), {}))
        name = module.member_names.get((pointee, 0), "")
        row_kind = "storage_buffer"
        components = _element_components(module, operands[0], shown)
    elif storage == "UniformConstant" and kind in ("image", "sampled_image"):
        image = module.types[operands[0]][1] if kind == "sampled_image" else operands
        # OpTypeImage: sampled type, dim, depth, arrayed, multisampled, sampled, format
        if image[1] != DIM_BUFFER:
            raise ReflectionError(f"'{shown}' is an image; only texel buffers are supported")
        sampled = image[5] == 1
        row_kind = "uniform_texel" if sampled else "storage_texel"
        if not sampled and image[6] not in FORMAT_COMPONENTS:
            raise ReflectionError(f"image buffer '{shown}' needs a format such as rgba32f or r32f")
        components = 4 if sampled else FORMAT_COMPONENTS[image[6]]
        if sampled:
            flags.add("NonWritable")
    else:
        article = "an" if kind == "array" else "a"
        raise ReflectionError(
            f"'{shown}' is no buffer block or texel buffer but {article} {kind} in {storage}"
        )
    if not name:
        raise ReflectionError(
            f"the buffer at binding {decorations.get('Binding', '?')} has no name"
        )
    if decorations.get("DescriptorSet", 0) != 0:
        raise ReflectionError(
            f"buffer '{name}' is in set {decorations['DescriptorSet']}; use set 0"
        )
    if "Binding" not in decorations:
        raise ReflectionError(f"buffer '{name}' has no layout(binding = ...)")
    reads, writes = "NonReadable" not in flags, "NonWritable" not in flags
    return [name, decorations["Binding"], row_kind, components, reads, writes]


def _element_components(module: Module, array: int, shown: str) -> int:
    element = module.types[module.types[array][1][0]]
    if element[0] in ("int", "float"):
        return 1
    if element[0] == "vector" and element[1][1] == 4:
        return 4
    raise ReflectionError(f"elements of buffer '{shown}' must be scalars or 4-vectors")


def _scalar(module: Module, type_id: int) -> str:
    """GLSL's name of a 32-bit scalar type, or bool; "" for any other type."""
    kind, operands = module.types[type_id]
    if kind == "bool":
        return "bool"
    if kind == "float" and operands[0] == 32:
        return "float"
    if kind == "int" and operands[0] == 32:
        return "int" if operands[1] else "uint"
    return ""


def _push_constants(module: Module, block: int) -> tuple[list[list[Any]], int]:
    """Members as [name, byte offset, type, count], and the bytes the block covers."""
    rows: list[list[Any]] = []
    for index, member in enumerate(module.types[block][1]):
        name = module.member_names.get((block, index), f"member {index}")
        count, scalar = 1, _scalar(module, member)
        kind, operands = module.types[member]
        if kind == "array":
            count, scalar = module.constants.get(operands[1], 0), _scalar(module, operands[0])
            if module.decorations.get(member, {}).get("ArrayStride") != 4 or count < 1:
                scalar = ""
        if scalar in ("", "bool"):
            raise ReflectionError(
                f"push constant '{name}' must be an int, uint or float, or a 1-D array of them "
                "(std430); write a vector as an array"
            )
        offset = module.member_decorations.get((block, index), {}).get("Offset")
        if offset is None:
            raise ReflectionError(f"push constant '{name}' has no offset")
        rows.append([name, offset, scalar, count])
    _refuse_repeats("push constant", [row[0] for row in rows])
    return rows, max((row[1] + 4 * row[3] for row in rows), default=0)


def _spec_constants(module: Module) -> list[list[Any]]:
    """Specialization constants as [name, id, type, default], by id."""
    sizes = dict(zip(module.local_size_ids, "xyz", strict=False))
    for composite, decorations in module.decorations.items():
        if decorations.get("BuiltIn") == BUILTIN_WORKGROUP_SIZE:
            sizes.update(zip(module.composites.get(composite, ()), "xyz", strict=False))
    rows: dict[int, list[Any]] = {}
    for constant, (type_id, word) in module.spec_constants.items():
        number = module.decorations.get(constant, {}).get("SpecId")
        if number is None:
            continue  # an operand of OpSpecConstantOp that no pipeline can set
        name = module.names.get(constant, "")
        if not name and constant in sizes:
            name = f"local_size_{sizes[constant]}"
        if not name:
            raise ReflectionError(f"the specialization constant with id {number} has no name")
        scalar = _scalar(module, type_id)
        if not scalar:
            raise ReflectionError(
                f"specialization constant '{name}' must be a 32-bit scalar or bool"
            )
        default = struct.unpack("<f" if scalar == "float" else "<i", struct.pack("<I", word))[0]
        row = [name, number, scalar, word if scalar == "uint" else default]
        if rows.setdefault(number, row) != row:
            raise ReflectionError(
                f"'{rows[number][0]}' and '{name}' share specialization id {number}"
            )
    _refuse_repeats("specialization constant", [row[0] for row in rows.values()])
    return [rows[number] for number in sorted(rows)]
