"""What several operators' tests share."""

from __future__ import annotations

import pytest

import vkconv.passes


@pytest.fixture(params=["stored_linear", "stored_c4"])
def both_results(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution alone in a model stores its result in LINEAR; a test that uses this runs again
    with the result in C4 and a conversion behind it."""
    if request.param == "stored_c4":
        monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
        monkeypatch.setattr(vkconv.passes, "store_linear", lambda _: None)
