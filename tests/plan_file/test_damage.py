"""Plan files are untrusted: whatever is wrong with one is an InvalidModelError, at load."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan_file.models import ALL, compiled
from vkconv import InferenceSession
from vkconv.errors import InvalidModelError, VkconvError
from vkconv.plan_file import read_compiled
from vkconv.plan_file.container import _HEAD, MAGIC, VERSION, Reader

Tables = dict[str, Any]


#: between the tables and the arrays, so that a test may put longer tables in
ROOM = 1 << 14


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("plans")
    return {
        name: roomy(compiled(make()[0], folder / f"{i}.vkplan").read_bytes())
        for i, (name, make) in enumerate(ALL.items())
    }


def roomy(data: bytes) -> bytes:
    """The same plan, its arrays ROOM bytes further on."""
    tables = tables_of(data)
    first = min(row[2] for row in tables["arrays"])
    for row in tables["arrays"]:
        row[2] += ROOM
    return with_tables(data[:first] + bytes(ROOM) + data[first:], tables)


def tables_of(data: bytes) -> Tables:
    size = _HEAD.unpack_from(data)[3]
    result: Tables = json.loads(data[_HEAD.size : _HEAD.size + size])
    return result


def with_tables(data: bytes, tables: Tables) -> bytes:
    """The file with other tables and right checksums, as somebody with bad intent would make it."""
    text = json.dumps(tables, separators=(",", ":")).encode()
    old = _HEAD.unpack_from(data)[3]
    assert len(text) < old + ROOM
    body = text + bytes(max(0, old - len(text))) + data[_HEAD.size + max(old, len(text)) :]
    digest = hashlib.sha256(text).digest()
    return _HEAD.pack(MAGIC, VERSION, 0, len(text), len(data), digest) + body


def refused(data: bytes) -> InvalidModelError:
    with pytest.raises(InvalidModelError) as caught:
        read_compiled(data)
    assert "\n" not in str(caught.value)
    return caught.value


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: b[:10], "shorter than its head"),
        (lambda b: b[: len(b) // 2], "should have"),
        (lambda b: b[:-1], "should have"),
        (lambda b: b + b"\0", "should have"),
        (lambda b: b[:8] + b"\1" + b[9:], "format 1"),
        (lambda b: b[:16] + b"\xff" * 8 + b[24:], "larger than the file"),
        (lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:], "checksum of its tables"),
        (lambda b: b[:-70] + bytes([b[-70] ^ 1]) + b[-69:], "checksum of an array"),
    ],
)
def test_damaged_bytes(
    damage: Callable[[bytes], bytes], says: str, plans: dict[str, bytes], tmp_path: Path
) -> None:
    data = damage(plans["convolutions"])
    assert says in str(refused(data))
    path = tmp_path / "damaged.vkplan"
    path.write_bytes(data)
    with pytest.raises(InvalidModelError, match=r"damaged\.vkplan"):
        InferenceSession(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_and_any_cut_is_refused(plans: dict[str, bytes], data: Any) -> None:
    whole = plans["convolutions"]
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        refused_or_padding(whole[:position], whole)
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        refused_or_padding(
            whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :], whole
        )


def test_a_session_reads_an_array_once_and_refuses_a_damaged_one(
    plans: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in its weights: at load, where they go to the device."""
    monkeypatch.setattr(Reader, "check_arrays", lambda _: pytest.fail("read twice"))
    data = plans["convolutions"]
    path = tmp_path / "net.vkplan"
    for dtype, shape, offset, _ in tables_of(data)["arrays"]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for at in (offset, offset + size // 2, offset + size - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(InvalidModelError, match=r"net\.vkplan.*checksum of an array"):
                InferenceSession(path)
    path.write_bytes(data)
    InferenceSession(path).close()


def refused_or_padding(data: bytes, whole: bytes) -> None:
    """Bytes between arrays belong to nobody: a plan with other ones is the same plan."""
    try:
        found = read_compiled(data)
    except InvalidModelError:
        return
    expected = read_compiled(whole)
    assert len(data) == len(whole)
    for a, b in zip(found.planned.plan.constants, expected.planned.plan.constants, strict=True):
        assert np.array_equal(np.asarray(a.data), np.asarray(b.data))


def test_a_file_that_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "m.vkplan"
    path.write_bytes(b"something else entirely, and long enough for a head" * 4)
    with pytest.raises(VkconvError):
        InferenceSession(path)
    with pytest.raises(InvalidModelError, match="cannot be read"):
        InferenceSession(str(tmp_path / "none.vkplan"))


# --- tables with right checksums ------------------------------------------------------------------


def steps(tables: Tables) -> list[Tables]:
    found: list[Tables] = tables["body"]["plan"]["steps"]
    return found


def first_dispatch(tables: Tables) -> Tables:
    return next(s for s in steps(tables) if "kernel" in s)


def first_range(tables: Tables) -> list[int]:
    return next(iter(first_dispatch(tables)["buffers"].values()))


def change(path: str, value: Any) -> Callable[[Tables], None]:
    """Sets what dots and numbers lead to."""

    def apply(tables: Tables) -> None:
        *parts, last = [int(p) if p.lstrip("-").isdigit() else p for p in path.split(".")]
        target: Any = tables
        for part in parts:
            target = target[part]
        target[last] = value

    return apply


def set_range(index: int, value: int) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        first_range(tables)[index] = value

    return apply


def set_step(key: str, value: Any) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        first_dispatch(tables)[key] = value

    return apply


def set_inside(key: str, value: Any) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        inner = first_dispatch(tables)[key]
        inner[next(iter(inner))] = value

    return apply


def write_a_constant(tables: Tables) -> None:
    storages = tables["body"]["plan"]["storages"]
    constant = max(
        (i for i, s in enumerate(storages) if s["array"] is not None),
        key=lambda i: storages[i]["size"],
    )
    assert storages[constant]["size"] > 256
    step = first_dispatch(tables)
    for name in step["buffers"]:
        step["buffers"][name] = [constant, 0, min(16, storages[constant]["size"])]


BAD = {
    "a range behind its storage": set_range(2, 1 << 40),
    "an offset behind its storage": set_range(1, 1 << 30),
    "an offset that is not aligned": set_range(1, 4),
    "a negative offset": set_range(1, -256),
    "an empty range": set_range(2, 0),
    "a storage that is not there": set_range(0, 10**6),
    "a negative storage": set_range(0, -1),
    "a kernel that is not there": set_step("kernel", 99),
    "a grid of nothing": set_step("grid", [0, 1, 1]),
    "a grid of two": set_step("grid", [1, 1]),
    "a grid that is text": set_step("grid", "1"),
    "a push constant that is text": set_inside("push", "1"),
    "a push constant beyond int32": set_inside("push", 1 << 40),
    "a push constant that is a list": set_inside("push", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    "no push constants": set_step("push", {}),
    "no buffers": set_step("buffers", {}),
    "a specialization for hours": set_inside("spec", 10**9),
    "a specialization that is text": set_inside("spec", "8"),
    "an unknown specialization": set_step("spec", {"nothing": 1}),
    "a barrier that is a number": set_step("barrier", 1),
    "a constant that is written": write_a_constant,
    "an arena too small": change("body.plan.arena_size", 256),
    "an arena too large": change("body.plan.arena_size", 1 << 46),
    "an arena beyond all": change("body.plan.arena_size", 1 << 62),
    "a storage of nothing": change("body.plan.storages.0.size", 0),
    "a storage beyond the arena": change("body.plan.storages.0.offset", 1 << 40),
    "a storage between": change("body.plan.storages.0.offset", 4),
    "a constant that is no array": change("body.plan.storages.0.array", 10**6),
    "a kernel by another digest": change("body.plan.kernels.0.digest", "0" * 64),
    "a kernel of another name": change("body.plan.kernels.0.kernel", "../x"),
    "an array that leaves the file": change("arrays.0.2", 1 << 40),
    "an array of too many elements": change("arrays.0.1", [1 << 40]),
    "an array of another type": change("arrays.0.0", "object"),
    "an array between": change("arrays.0.2", 3),
    "no arrays": change("arrays", []),
    "an input of an open size": change("body.inputs.0.type.shape.0", None),
    "an input of another size": change("body.inputs.0.type.shape.0", 7),
    "an output less": change("body.outputs", []),
    "a port that lies elsewhere": change("body.plan.inputs.0.place.storage", 10**6),
    "a port behind its storage": change("body.plan.inputs.0.place.offset", 1 << 30),
    "a port of another shape": change("body.plan.inputs.0.place.shape", [1]),
    "a port of no type": change("body.plan.inputs.0.dtype", "object"),
    "no steps": change("body.plan.steps", None),
    "a step that is none": change("body.plan.steps.0", {"node": "x"}),
    "capabilities that are text": change("body.caps.max_storage_buffers", "many"),
    "metadata that is no text": change("body.about.metadata", {"a": 1}),
    "no body": change("body", {}),
}


@pytest.mark.parametrize("name", BAD)
def test_tables_that_lie(name: str, plans: dict[str, bytes]) -> None:
    data = plans["convolutions"]
    tables = tables_of(data)
    BAD[name](tables)
    refused(with_tables(data, tables))


BAD_ELSEWHERE = {
    "an operator that is not there": ("host steps", ("host", "op_type"), "Nonsense"),
    "an operator of another kind": ("host steps", ("host", "op_type"), "Reshape"),
    "an attribute too many": ("host steps", ("host", "attributes"), {"what": ["int", 1]}),
    "an attribute that is none": ("host steps", ("host", "attributes"), {"to": ["code", "x"]}),
    "an input less": ("host steps", ("inputs",), []),
    "an output elsewhere": ("host steps", ("outputs",), [None]),
}


@pytest.mark.parametrize("name", BAD_ELSEWHERE)
def test_host_steps_that_lie(name: str, plans: dict[str, bytes]) -> None:
    plan, keys, value = BAD_ELSEWHERE[name]
    tables = tables_of(plans[plan])
    target = next(s for s in steps(tables) if "host" in s)
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    refused(with_tables(plans[plan], tables))


BAD_REST = {
    "a value out of order": ("later stages", "graph.nodes.0.inputs.0", "last"),
    "a value that is not there": ("later stages", "graph.nodes.0.inputs.0", 10**6),
    "an operator that is not there": ("later stages", "graph.nodes.0.op_type", "Nonsense"),
    "a fact that nobody gives": ("later stages", "facts", ["nothing"]),
    "a count that nobody gives": ("later stages", "trims.0.count", "nothing"),
    "an axis that is not there": ("later stages", "trims.0.axis", 30),
    "a body that is no graph": ("driven loop", "computed.nodes.0.attributes.body", ["graph", 1]),
    "a loop without a body": ("driven loop", "computed.nodes.0.attributes", {}),
}


@pytest.mark.parametrize("name", BAD_REST)
def test_what_is_planned_later_lies(name: str, plans: dict[str, bytes]) -> None:
    plan, path, value = BAD_REST[name]
    tables = tables_of(plans[plan])
    rest = tables["body"]["rest"]
    if value == "last":
        value = rest["graph"]["nodes"][-1]["outputs"][0]
    change(path, value)(rest)
    refused(with_tables(plans[plan], tables))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(leaf for k, v in value.items() for leaf in leaves(v, (*path, k)))]
    if isinstance(value, list):
        return [path, *(leaf for i, v in enumerate(value) for leaf in leaves(v, (*path, i)))]
    return [path]


@settings(max_examples=250, deadline=None)
@given(data=st.data(), name=st.sampled_from(list(ALL)))
def test_tables_with_anything_anywhere(plans: dict[str, bytes], data: Any, name: str) -> None:
    """Whatever stands where something else belongs: a typed error, or a plan that is as good."""
    tables = copy.deepcopy(tables_of(plans[name]))
    *parts, last = data.draw(st.sampled_from(leaves(tables["body"])[1:]))
    target: Any = tables["body"]
    for part in parts:
        target = target[part]
    anything = st.sampled_from([None, True, 0, 1, -1, 2**31, 1.5, "", "x", [], {}, [1], [[]]])
    target[last] = data.draw(anything)
    with contextlib.suppress(InvalidModelError):
        read_compiled(with_tables(plans[name], tables))
