"""Constants: packed where they are wanted, kept while somebody wants them, and gone afterwards."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from vkconv.ir import Array
from vkconv.storage import Packing, Storage


def doubled(source: Array, calls: list[int] | None = None) -> Packing:
    def write(target: Array) -> None:
        np.multiply(source, 2, out=target)
        if calls is not None:
            calls.append(1)

    return Packing(source.shape, write)


def numbers(count: int = 6) -> Array:
    return np.arange(count, dtype=np.float32)


def read(storage: Storage) -> Array:
    found: list[Array] = []
    storage.read(lambda data: found.append(data.copy()))
    return found[0].view(np.float32)


def test_a_packing_is_made_in_the_place_that_is_given() -> None:
    calls: list[int] = []
    storage = Storage(32, "w", pack=doubled(numbers(), calls))
    assert storage.is_constant and not calls and storage.held_bytes == 0
    assert storage.data_type == ((6,), "float32")
    memory = np.full(64, 0xA5, np.uint8)
    assert storage.write_to(memory) == 24 and calls == [1]
    assert np.array_equal(memory[:24].view(np.float32), numbers() * 2)
    assert np.all(memory[24:] == 0xA5)
    assert storage.data is not None and np.array_equal(storage.data, numbers() * 2)
    assert storage.held_bytes == 0


def test_plain_data_is_written_too_and_may_be_packed_anew() -> None:
    for data in (numbers(), numbers().reshape(2, 3).T, np.array(1.5, np.float32)):
        storage = Storage(24, "w", data, pack=lambda data=data: data)
        memory = np.zeros(24, np.uint8)
        count = storage.write_to(memory)
        assert np.array_equal(memory[:count].view(np.float32), data.reshape(-1))
        storage.drop()
        assert storage.held_bytes == 0 and storage.data is data


def test_more_than_there_is_room_for() -> None:
    for storage in (Storage(8, "w", numbers()), Storage(8, "w", pack=doubled(numbers()))):
        with pytest.raises(ValueError, match="'w' holds 24 bytes in a storage of 8"):
            storage.write_to(np.zeros(64, np.uint8))


def test_what_is_used_once_goes_with_its_source() -> None:
    source = numbers()
    gone = weakref.ref(source)
    storage = Storage(24, "w", pack=doubled(source))
    storage.used_once = True
    del source
    storage.write_to(np.zeros(24, np.uint8))
    assert gone() is not None
    storage.drop()
    assert gone() is None and storage.data is None
    with pytest.raises(ValueError, match="forgotten"):
        storage.write_to(np.zeros(24, np.uint8))
    with pytest.raises(ValueError, match="is gone"):
        read(storage)


def test_what_is_used_again_keeps_its_source() -> None:
    storage = Storage(24, "w", pack=doubled(numbers()))
    storage.drop()
    assert np.array_equal(read(storage), numbers() * 2)
    storage.forget()
    assert storage.data is None


def test_who_wants_a_constant_can_read_it_until_it_is_released() -> None:
    storage = Storage(24, "w", pack=doubled(numbers()))
    storage.used_once = True
    storage.want()
    storage.drop()  # a device whose memory the host does not reach has it
    storage.forget()
    assert np.array_equal(read(storage), numbers() * 2)
    storage.release()
    assert storage.data is None


def test_released_before_the_device_has_it() -> None:
    storage = Storage(24, "w", pack=doubled(numbers()))
    storage.used_once = True
    storage.want()
    storage.release()
    assert storage.write_to(np.zeros(24, np.uint8)) == 24


def test_resident_bytes_are_read_where_they_are() -> None:
    calls: list[int] = []
    memory = np.zeros(32, np.uint8)
    storage = Storage(24, "w", pack=doubled(numbers(), calls))
    storage.used_once = True
    storage.want()
    storage.drop(memory[: storage.write_to(memory)])
    memory[:4].view(np.float32)[0] = 99  # the device's memory counts, not what was packed
    assert read(storage)[0] == 99 and calls == [1]
    storage.leave()
    with pytest.raises(ValueError, match="is gone"):
        read(storage)


def test_memory_does_not_go_while_it_is_read() -> None:
    memory = np.zeros(24, np.uint8)
    storage = Storage(24, "w", pack=doubled(numbers()))
    storage.drop(memory)
    inside, go_on, left = threading.Event(), threading.Event(), threading.Event()

    def look(_: Array) -> None:
        inside.set()
        assert go_on.wait(10) and not left.is_set()

    def leave() -> None:
        storage.leave()
        left.set()

    reader = threading.Thread(target=storage.read, args=(look,))
    reader.start()
    assert inside.wait(10)
    owner = threading.Thread(target=leave)
    owner.start()
    assert not left.wait(0.05)
    go_on.set()
    reader.join(10)
    owner.join(10)
    assert left.is_set()
