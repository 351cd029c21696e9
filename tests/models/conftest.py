"""Exported models, each made once in a run, and a pipeline cache of these tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from tests.models.export import export

#: exports a net the first time that ``name`` is asked for; keywords are those of ``export``
Exporting = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporting:
    folder = tmp_path_factory.mktemp("models")

    def find(
        name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], **how: object
    ) -> Path:
        path = folder / f"{name}.onnx"
        return path if path.exists() else export(make(), shape, path, **how)

    return find


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """A pipeline cache that the tests of this folder share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VKCONV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("VKCONV_DISABLE", raising=False)
        patch.delenv("VKCONV_DEVICE", raising=False)
        if other := os.environ.get("VKCONV_TEST_DEVICE"):  # scripts/test --kompute
            patch.setenv("VKCONV_DEVICE", other)
        yield
