"""Arrays that are in a file until somebody looks at their elements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from tests.small_models import floats
from vkconv import stored_arrays
from vkconv.files import reading_bytes
from vkconv.ir import Array, constant
from vkconv.stored_arrays import StoredArray, StoredWeight, concatenated, rows


def stored(*arrays: Array, reads: list[int] | None = None) -> StoredArray:
    """The arrays one behind the other, each a weight of its own."""
    parts = []
    for number, array in enumerate(arrays):
        read = reading_bytes(array.tobytes())

        def load(target: memoryview, offset: int, read: Callable[..., bool] = read) -> None:
            if reads is not None:
                reads.append(len(target))
            assert read(target, offset)

        parts.append((StoredWeight(number, array.nbytes, load), 0, array.nbytes))
    shape = (sum(len(a) for a in arrays), *arrays[0].shape[1:])
    return StoredArray(arrays[0].dtype.name, shape, parts)


def was_read(array: StoredArray) -> list[bool]:
    return [weight.was_read for weight, _, _ in array.parts]


def test_its_type_is_known_unread() -> None:
    reads: list[int] = []
    array = stored(floats(3, 4), floats(2, 4), reads=reads)
    assert (array.shape, array.ndim, array.size, array.nbytes) == ((5, 4), 2, 20, 80)
    assert array.dtype == np.float32 and len(array) == 5
    value = constant("w", array)
    assert value.array is array and value.is_constant
    assert value.known_type.dims == (5, 4) and value.dtype == "float32"
    assert not reads and was_read(array) == [False, False] and not array.held


@pytest.mark.parametrize(
    "look",
    [
        np.asarray,
        lambda a: a[:],
        lambda a: a * 1,
        lambda a: 1 * a,
        lambda a: np.concatenate([a]),
        lambda a: np.ascontiguousarray(a),
        lambda a: a.reshape(5, 4),
        lambda a: np.add(a, 0),
        lambda a: np.stack(list(a)),
        lambda a: np.where(True, a, 0),
        lambda a: a.astype(np.float32),
        lambda a: np.array(a, np.float32),
    ],
)
@pytest.mark.parametrize("pieces", [(5,), (3, 2)])
def test_whoever_looks_at_it_sees_an_array_and_is_noted(
    look: Callable[[object], Array], pieces: tuple[int, ...]
) -> None:
    whole = floats(5, 4)
    array = stored(*np.split(whole, np.cumsum(pieces)[:-1]))
    np.testing.assert_array_equal(look(array), whole)
    assert all(was_read(array))
    assert array.read() is array.read() and not array.read().flags.writeable
    assert np.asarray(array) is array.read()


def test_a_comparison_is_one_of_elements() -> None:
    array = stored(floats(5, 4))
    assert np.all(array == floats(5, 4)) and np.array_equal(array, floats(5, 4))
    assert float(np.max(np.abs(array - floats(5, 4)))) == 0


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_some_rows_are_read_and_no_more(dtype: str) -> None:
    reads: list[int] = []
    whole = (floats(9, 2, 3) * 9).astype(dtype)
    array = stored(whole[:4], whole[4:5], whole[5:], reads=reads)
    row = whole[0].nbytes
    for first in range(10):
        for last in range(first, 10):
            reads.clear()
            found = rows(array, first, last)
            np.testing.assert_array_equal(found, rows(whole, first, last))
            assert found.dtype == whole.dtype and sum(reads) == (last - first) * row
    assert was_read(array) == [False] * 3 and not array.held


def test_what_is_held_is_not_read_again() -> None:
    reads: list[int] = []
    whole = floats(5, 4)
    array = stored(whole[:3], whole[3:], reads=reads)
    array.hold()
    assert sum(reads) == whole.nbytes and sum(a.nbytes for a in array.held) == whole.nbytes
    np.testing.assert_array_equal(rows(array, 2, 4), whole[2:4])
    array.hold()
    assert sum(reads) == whole.nbytes and was_read(array) == [False, False]
    one = stored(whole)
    one.read()
    assert [a.nbytes for a in one.held] == [whole.nbytes], "one weight is read without a copy"


def test_concatenated_without_being_read() -> None:
    reads: list[int] = []
    a, b = floats(3, 4), floats(2, 4, seed=1)
    both = concatenated([stored(a, reads=reads), stored(b, reads=reads)])
    assert isinstance(both, StoredArray) and not reads and both.shape == (5, 4)
    np.testing.assert_array_equal(rows(both, 1, 5), np.concatenate([a, b])[1:])
    first = stored(a)
    np.testing.assert_array_equal(concatenated([first, b]), np.concatenate([a, b]))
    assert was_read(first) == [True]


def test_parts_that_do_not_fit() -> None:
    weight = StoredWeight(0, 16, lambda target, offset: None)
    with pytest.raises(ValueError, match="does not fit"):
        StoredArray("float32", (5,), [(weight, 0, 16)])


def test_a_digest_of_what_a_weight_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_arrays, "PIECE", 24)
    whole = floats(5, 4)
    ((weight, _, _),) = stored(whole).parts
    expected = hashlib.sha256(whole.tobytes()).hexdigest()
    assert weight.digest() == expected and not weight.was_read
    weight.hold()
    assert weight.digest() == expected


def test_a_file_that_was_left() -> None:
    """What is held can be read, and nothing else."""
    held, gone = stored(floats(5, 4)), stored(floats(5, 4))
    held.hold()
    for array in (held, gone):
        array.leave()
    np.testing.assert_array_equal(rows(held, 1, 3), floats(5, 4)[1:3])
    for ask in (gone.read, gone.hold, lambda: rows(gone, 0, 1)):
        with pytest.raises(ValueError, match="was left"):
            ask()
