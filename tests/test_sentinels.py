"""The sentinels themselves: they see what they are there to see."""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, random
from tests.sentinels import guarded_arenas
from vkconv.device.vulkan import arena

CASE = Case("Softmax", (random(3, 7),))


def test_a_sound_node_spoils_nothing() -> None:
    with guarded_arenas() as guard, vkconv.InferenceSession(CASE.model()) as session:
        guard.poison()
        (result,) = session.run(None, CASE.feeds())
        guard.check()
    assert np.allclose(result, CASE.expected()[0], atol=1e-6)


def test_a_write_between_storages_is_seen() -> None:
    with guarded_arenas() as guard, vkconv.InferenceSession(CASE.model()) as session:
        guard.poison()
        session.run(None, CASE.feeds())
        for executable, _ in guard.prepared:
            arena.poison(executable, 0)
        with pytest.raises(AssertionError, match="out of bounds"):
            guard.check()
