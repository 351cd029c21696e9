"""ONNX's own tests, through ``vkconv.backend``: every one passes or is excluded with a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.collection import ConformanceTest, all_tests
from tests.conformance.exclusions import exclusions
from tests.conformance.runner import run
from tests.conformance.summary import PROPERTY, properties

EXCLUDED = exclusions()


@pytest.mark.parametrize("test", all_tests(), ids=str)
def test_onnx(test: ConformanceTest, record_property: Callable[[str, object], None]) -> None:
    outcome = run(test)
    record_property(PROPERTY, properties(outcome))
    reason = next((e.reason for e in EXCLUDED if e.covers(str(test))), None)
    if reason is None:
        assert outcome.error is None, outcome.error
    else:
        assert outcome.error is not None, (
            f"passes, but exclusions.txt lists it ({reason}): remove the line, or make it narrower"
        )


def test_exclusions_have_a_reason_and_cover_something() -> None:
    names = [str(test) for test in all_tests()]
    for exclusion in EXCLUDED:
        assert exclusion.reason, f"'{exclusion.pattern}' has no reason"
        assert any(map(exclusion.covers, names)), f"'{exclusion.pattern}' matches no test"
