"""Attributes of nodes: other numbers, words, types; dropped and added."""

from __future__ import annotations

from random import Random
from typing import Any

from onnx import AttributeProto, ModelProto, helper

from tests.fuzz.mutators.parts import REALS, WORDS, Mutators, integer, some_attribute, some_node
from vkconv.ops.registry import REGISTRY

MUTATORS = Mutators()


@MUTATORS.of_weight(14)
def change_integer(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.INT, AttributeProto.INTS)
    if item.type == AttributeProto.INT:
        item.i = integer(random, item.i)
    else:
        place = random.randrange(len(item.ints))
        item.ints[place] = integer(random, item.ints[place])


@MUTATORS.of_weight(4)
def change_length(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.INTS, AttributeProto.FLOATS)
    numbers: Any = item.ints if item.type == AttributeProto.INTS else item.floats
    if random.random() < 0.5:
        numbers.pop()
    else:
        numbers.extend([random.choice((0, 1, 2))] * random.choice((1, 1, 2, 40)))


@MUTATORS.of_weight(4)
def change_real(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.FLOAT, AttributeProto.FLOATS)
    if item.type == AttributeProto.FLOAT:
        item.f = random.choice(REALS)
    else:
        item.floats[random.randrange(len(item.floats))] = random.choice(REALS)


@MUTATORS.of_weight(5)
def change_word(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.STRING)
    item.s = random.choice(WORDS).encode() if random.random() < 0.95 else b"\xff\xfe"


@MUTATORS.of_weight(3)
def change_attribute_type(model: ModelProto, random: Random) -> None:
    some_attribute(model, random).type = random.randrange(15)


@MUTATORS.of_weight(3)
def drop_attribute(model: ModelProto, random: Random) -> None:
    node = some_node(model, random)
    del node.attribute[random.randrange(len(node.attribute))]


@MUTATORS.of_weight(4)
def add_attribute(model: ModelProto, random: Random) -> None:
    """One that the operator has, as often as not, with a value of a likely type."""
    node = some_node(model, random)
    name = random.choice(("axis", "axes", "to", "group", "pads", "keepdims", "unknown", "body"))
    operator = REGISTRY.get((node.domain, node.op_type))
    if operator is not None and random.random() < 0.8:
        fields = list(getattr(operator, "__dataclass_fields__", {})) or [name]
        name = random.choice(fields)
    values: list[Any] = [integer(random), [integer(random)] * random.choice((1, 2, 4)), 0.5, "SAME"]
    node.attribute.append(helper.make_attribute(name, random.choice(values)))
