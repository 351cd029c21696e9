"""How the weights of a kept plan are packed: from which parts of the model's file, by which packer.

A plan kept for the next load of a model holds none of the weights that planning did not look into:
it names them, by their number in the file. Those that it looked into are named with a digest of
what they held.
"""

from __future__ import annotations

from typing import Any

from vkconv.plan_file.container import DTYPES, Reader, Writer
from vkconv.plan_file.fields import Fields
from vkconv.storage import Packing, Recipe
from vkconv.stored_arrays import Source, StoredArray
from vkconv.weight_packing import PACKERS, packing

#: what a packer's numbers may be, at most
_LARGEST = 1 << 31


def can_write(recipe: Recipe, writer: Writer) -> bool:
    """Whether what is packed lies in the weights that the plan's reader will have, too."""
    known = {id(w) for w in writer.weights}
    stored = [s for s in recipe.sources if isinstance(s, StoredArray)]
    return isinstance(recipe.sources[0], StoredArray) and all(
        id(weight) in known for s in stored for weight, _, _ in s.parts
    )


def write_recipe(recipe: Recipe, packed: tuple[tuple[int, ...], str], writer: Writer) -> Any:
    return {
        "packer": recipe.packer,
        "numbers": {name: int(n) for name, n in recipe.numbers.items()},
        "sources": [_write_source(s, writer) for s in recipe.sources],
        "shape": list(packed[0]),
        "dtype": packed[1],
    }


def _write_source(source: Source | None, writer: Writer) -> Any:
    if source is None:
        return None
    if isinstance(source, StoredArray):
        parts = [[weight.number, first, count] for weight, first, count in source.parts]
        return {"parts": parts, "dtype": source.dtype.name, "shape": list(source.shape)}
    return {"array": writer.add(source)}


def read_recipe(row: Fields, reader: Reader) -> Packing:
    """The packing, to be made from the reader's weights."""
    name, given = row.text("packer"), row.fields("numbers")
    if name not in PACKERS:
        raise row.wrong("packer", "the name of one")
    numbers = {key: given.integer(key, 0, _LARGEST) for key in row.table("numbers")}
    sources = [
        None if value is None else _read_source(Fields(value, "a source", row.fail), reader)
        for value in row.items("sources")
    ]
    try:
        made = packing(name, *sources, **numbers)
    except (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError):
        raise row.wrong("packer", "one that takes these") from None
    if (made.shape, made.dtype) != (row.integers("shape"), row.text("dtype")):
        raise row.wrong("shape", "what the packer makes")
    return made


def _read_source(row: Fields, reader: Reader) -> Source:
    if "array" in row:
        return reader.array(row.raw("array"))
    dtype, shape = row.text("dtype"), row.integers("shape")
    if dtype not in DTYPES or not shape:
        raise row.wrong("dtype", "that of an array")
    parts = []
    for place in row.items("parts"):
        part = Fields({"part": place}, row.where, row.fail).integers("part")
        if len(part) != 3 or part[0] >= len(reader.weights):
            raise row.wrong("parts", "about the model's weights")
        weight, first, count = reader.weights[part[0]], part[1], part[2]
        if first + count > weight.nbytes:
            raise row.wrong("parts", "within the model's weights")
        parts.append((weight, first, count))
    try:
        return StoredArray(dtype, shape, parts)
    except ValueError:
        raise row.wrong("parts", "as large as the array") from None


def write_looked_into(writer: Writer) -> list[Any]:
    """The weights that a plan may depend on, and what they held: when all else is written."""
    return [[w.number, w.digest()] for w in writer.weights if w.was_read]


def check_looked_into(body: Fields, reader: Reader) -> None:
    """Raises InvalidModelError where they hold something else."""
    for row in body.items("looked_into") if "looked_into" in body else []:
        number, digest = row if isinstance(row, list) and len(row) == 2 else (None, None)
        if type(number) is not int or not 0 <= number < len(reader.weights):
            raise body.wrong("looked_into", "about the model's weights")
        if reader.weights[number].digest() != digest:
            raise reader.invalid("the model's weights are others")
