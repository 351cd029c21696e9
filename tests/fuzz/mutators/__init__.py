"""Small changes to a model that exporters never make, and people with bad intent may.

Each mutator takes a ModelProto and a random source, and changes the model in place. All are
seeded: ``mutant(n)`` is the same for the same n. A mutant is what two or three of them made of a
seed model; some are damaged as bytes afterwards.

    attributes, tensors, types, nodes, nesting    the mutators by what they change
    parts                                         what they choose from
"""

from __future__ import annotations

from random import Random

import onnx
from google.protobuf.message import EncodeError

from tests.fuzz.mutators import attributes, nesting, nodes, tensors, types
from tests.fuzz.mutators.parts import graphs
from tests.fuzz.seeds import all_seeds, seed_names

__all__ = ["MUTATORS", "damaged", "graphs", "mutant"]

#: a mutant's number decides which it gets, so their order stays
MUTATORS = [
    *attributes.MUTATORS,
    *tensors.MUTATORS,
    *types.MUTATORS,
    *nodes.MUTATORS,
    *nesting.MUTATORS,
]
_WEIGHTS = [weight for weight, _ in MUTATORS]
_FUNCTIONS = [mutator for _, mutator in MUTATORS]


def mutant(number: int) -> tuple[str, bytes]:
    """The mutant of that number: the seed it was made of, and the file."""
    random = Random(number)
    seeds = all_seeds()
    name = random.choice(seed_names())
    data = seeds[name]
    proto = onnx.load_from_string(data)
    for mutator in random.choices(_FUNCTIONS, _WEIGHTS, k=random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        try:
            mutator(proto, random)
        except Exception:
            continue  # there is nothing of the kind in this model, or an earlier change forbids it
    try:
        made = proto.SerializeToString()
    except (EncodeError, ValueError):
        made = data
    return name, damaged(made, random) if random.random() < 0.04 else made


def damaged(data: bytes, random: Random) -> bytes:
    """Bytes flipped, cut, doubled or put in."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        position = random.randrange(len(found) or 1)
        kind = random.randrange(5)
        if kind == 0 and found:
            found[position] ^= 1 << random.randrange(8)
        elif kind == 1:
            del found[position:]
        elif kind == 2:
            found[position:position] = random.randbytes(random.choice((1, 4, 9)))
        elif kind == 3:
            found[position:position] = found[position : position + random.randrange(40)]
        elif found:
            found[position] = random.choice((0, 0x7F, 0x80, 0xFF))
    return bytes(found)
