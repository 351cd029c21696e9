"""Recipes in an entry of the plan cache: whatever is wrong with one is an InvalidModelError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.plan_file.test_damage import Tables, roomy, tables_of, with_tables
from tests.small_models import floats, model, node
from vkconv import InferenceSession, model_file, plan_cache
from vkconv.errors import InvalidModelError
from vkconv.plan_file import read_compiled
from vkconv.stored_arrays import StoredWeight


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[StoredWeight]]:
    """An entry of a convolution and a matrix product, and the weights it is about."""
    folder = tmp_path_factory.mktemp("kept")
    constants = {
        "w": floats(16, 8, 1, 1) - 0.5, "b": floats(16), "m": floats(8, 20),
        "a": floats(1, 200), "c": floats(1, 200),
    }  # fmt: skip
    nodes = [
        node("Conv", "x w b", "y"), node("Relu", "y", "r"), node("MatMul", "r m", "p"),
        node("Concat", "a c", "ac", axis=0), node("ReduceSum", "ac", "s", keepdims=0),
        node("Add", "p s", "z"),
    ]  # fmt: skip
    path = folder / "m.onnx"
    onnx.save(model(nodes, {"x": [1, 8, 8, 8]}, {"z": None}, constants), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VKCONV_CACHE_DIR", str(folder))
        patch.setattr(plan_cache, "SMALLEST_MODEL", 1)
        patch.setattr(plan_cache, "WORTH_KEEPING", 0.0)
        patch.setattr(model_file, "LEAST_BYTES", 256)
        InferenceSession(path).close()
        outline = model_file.read_outline(path)
    assert outline is not None
    (entry,) = (folder / plan_cache.FOLDER).glob("*.vkplan")
    return roomy(entry.read_bytes()), outline.in_order


def recipe(tables: Tables, packer: str) -> Tables:
    rows = tables["body"]["plan"]["storages"]
    found: list[Tables] = [r["recipe"] for r in rows if "recipe" in r]
    return next(r for r in found if r["packer"] == packer)


def part(tables: Tables) -> list[int]:
    found: list[int] = recipe(tables, "tiles")["sources"][0]["parts"][0]
    return found


def changed(packer: str, *path: Any, to: Any) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        target: Any = recipe(tables, packer)
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return apply


def set_part(index: int, value: Any) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        part(tables)[index] = value

    return apply


def look(*rows: Any) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        tables["body"]["looked_into"] = list(rows)

    return apply


def test_as_it_was_kept(kept: tuple[bytes, list[StoredWeight]]) -> None:
    data, weights = kept
    found = read_compiled(data, weights)
    packed = [s for s in found.planned.plan.constants if s.recipe is not None]
    assert {s.recipe.packer for s in packed if s.recipe} == {"tiles", "panels"}
    assert tables_of(data)["body"]["looked_into"]
    assert all(s.data is not None for s in packed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("tiles", "packer", to="none"), "packer"),
        (changed("tiles", "packer", to="winograd"), "packer"),
        (changed("tiles", "packer", to=3), "packer"),
        (changed("tiles", "numbers", "tile", to=0), "packer"),
        (changed("tiles", "numbers", "groups", to=0), "packer"),
        (changed("tiles", "numbers", "tile", to=8.5), "integer"),
        (changed("tiles", "numbers", "tile", to=1), "shape"),
        (changed("tiles", "numbers", "groups", to=2), "shape"),
        (changed("tiles", "numbers", "others", to=1), "packer"),
        (changed("tiles", "numbers", to={}), "packer"),
        (changed("tiles", "sources", to=[]), "packer"),
        (changed("tiles", "sources", to=[None, None]), "packer"),
        (changed("tiles", "sources", 0, "shape", to=[16]), "as large as"),
        (changed("tiles", "sources", 0, "shape", to=[]), "array"),
        (changed("tiles", "sources", 0, "shape", to=[16, -8]), "shape"),
        (changed("tiles", "sources", 0, "dtype", to="object"), "dtype"),
        (changed("tiles", "sources", 0, "parts", to=[]), "as large as"),
        (changed("tiles", "sources", 0, "parts", to=[3]), "part"),
        (changed("tiles", "sources", 0, to={"array": 10**6}), "no array"),
        (changed("tiles", "shape", to=[1]), "shape"),
        (changed("tiles", "dtype", to="int32"), "shape"),
        (changed("panels", "numbers", "width", to=0), "packer"),
        (changed("panels", "numbers", "last", to=1 << 20), "shape"),
        (set_part(0, 99), "weights"),
        (set_part(0, -1), "integers"),
        (set_part(1, 4), "within"),
        (set_part(2, 1 << 20), "within"),
        (look([0, "00"]), "others"),
        (look([99, "00"]), "looked_into"),
        (look(3), "looked_into"),
        (look(["0", "00"]), "looked_into"),
    ],
)  # fmt: skip
def test_a_forged_recipe(
    change: Callable[[Tables], None], says: str, kept: tuple[bytes, list[StoredWeight]]
) -> None:
    data, weights = kept
    tables = tables_of(data)
    change(tables)
    with pytest.raises(InvalidModelError, match=says) as caught:
        read_compiled(with_tables(data, tables), weights)
    assert "\n" not in str(caught.value)


def test_without_the_weights_it_is_about(
    kept: tuple[bytes, list[StoredWeight]], tmp_path: Path
) -> None:
    data, weights = kept
    for fewer in ([], weights[:1]):
        with pytest.raises(InvalidModelError, match="the model's weights"):
            read_compiled(data, fewer)
    (tmp_path / "m.vkplan").write_bytes(data)
    with pytest.raises(InvalidModelError, match=r"m\.vkplan"):
        InferenceSession(tmp_path / "m.vkplan")
