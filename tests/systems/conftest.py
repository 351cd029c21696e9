"""A pipeline cache of these tests' own, and the default device."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VKCONV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in ("VKCONV_DISABLE", "VKCONV_DEVICE", "VKCONV_LIMITS"):
            patch.delenv(name, raising=False)
        yield
