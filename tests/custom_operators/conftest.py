"""The worked example, compiled and registered, and an end to whatever a test registers."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.custom_operators.made_operators import DOMAIN
from vkconv.cli.main import main
from vkconv.custom_operators import unregister_operator
from vkconv.ops.registry import REGISTRY

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_operator"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example in a folder of its own, its shader compiled and its operator registered."""
    folder = tmp_path_factory.mktemp("example")
    for path in EXAMPLE.iterdir():
        if path.suffix in (".py", ".comp") and not path.name.endswith("_spv.py"):
            shutil.copy(path, folder)
    assert main(["compile-shader", str(folder / "corner_pool.comp")]) == 0
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module("corner_pool")
        yield folder
    finally:
        sys.path.remove(str(folder))
        unregister_operator("CornerPool", domain=DOMAIN)
        for name in ("corner_pool", "corner_pool_spv", "export_model"):
            sys.modules.pop(name, None)


@pytest.fixture
def compiled(example: Path) -> ModuleType:
    """The example's compiled shader."""
    return importlib.import_module("corner_pool_spv")


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    """What a test registers goes with it."""
    before = dict(REGISTRY)
    yield
    for domain, op_type in REGISTRY.keys() - before.keys():
        if op_type != "CornerPool":
            unregister_operator(op_type, domain=domain)
