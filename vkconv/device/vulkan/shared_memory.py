"""How much shared memory a compute shader declares, read from its SPIR-V.

The driver does not say: a shader beyond maxComputeSharedMemorySize is undefined behaviour (spec
47.1), so what is too much must be refused before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_TYPE_BOOL, _TYPE_INT, _TYPE_FLOAT = 20, 21, 22
_TYPE_VECTOR, _TYPE_MATRIX, _TYPE_ARRAY, _TYPE_STRUCT, _TYPE_POINTER = 23, 24, 28, 30, 32
_CONSTANT, _SPEC_CONSTANT, _FUNCTION, _VARIABLE = 43, 50, 54, 59
_WORKGROUP = 4
_HEADER_WORDS = 5


def shared_memory_bytes(code: bytes) -> int:
    """Bytes of all variables of storage class Workgroup, tightly packed.

    An array whose length is a specialization constant counts with the constant's default; one whose
    length is computed of several counts as one element.
    """
    sizes: dict[int, int] = {}
    numbers: dict[int, int] = {}
    pointees: dict[int, int] = {}
    total = 0
    for opcode, words in _instructions(code):
        if opcode in (_TYPE_INT, _TYPE_FLOAT):
            sizes[words[0]] = words[1] // 8
        elif opcode == _TYPE_BOOL:
            sizes[words[0]] = 4
        elif opcode in (_TYPE_VECTOR, _TYPE_MATRIX):
            sizes[words[0]] = sizes.get(words[1], 0) * words[2]
        elif opcode == _TYPE_ARRAY:
            sizes[words[0]] = sizes.get(words[1], 0) * numbers.get(words[2], 1)
        elif opcode == _TYPE_STRUCT:
            sizes[words[0]] = sum(sizes.get(member, 0) for member in words[1:])
        elif opcode == _TYPE_POINTER:
            pointees[words[0]] = words[2]
        elif opcode in (_CONSTANT, _SPEC_CONSTANT):
            numbers[words[1]] = words[2]
        elif opcode == _VARIABLE and words[2] == _WORKGROUP:
            total += sizes.get(pointees.get(words[0], 0), 0)
        elif opcode == _FUNCTION:
            break  # global declarations precede all functions (SPIR-V 2.4)
    return total


def _instructions(code: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Opcode and operands of each instruction (SPIR-V 2.3)."""
    words = struct.unpack(f"<{len(code) // 4}I", code[: len(code) // 4 * 4])
    at = _HEADER_WORDS
    while at < len(words):
        length = max(words[at] >> 16, 1)
        yield words[at] & 0xFFFF, words[at + 1 : at + length]
        at += length
