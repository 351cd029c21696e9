"""Codes of the functions of two elements in ``shaders/include/binary_functions.glsl`` (a test
compares)."""

from __future__ import annotations

from enum import IntEnum


class Binary(IntEnum):
    """``BINARY_<name>`` of the shader include."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    POW = 4
    MAX = 5
    MIN = 6
    PRELU = 7
    MOD = 8
    REMAINDER = 9
    EQUAL = 10
    LESS = 11
    LESS_OR_EQUAL = 12
    GREATER = 13
    GREATER_OR_EQUAL = 14
    AND = 15
    OR = 16
    XOR = 17
