"""What the conformance tests came to, printed behind the run: from the reports of all workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

#: the name under which a test hands its outcome to its report
PROPERTY = "conformance"


def properties(outcome: Any) -> dict[str, Any]:
    """What a report carries from worker to controller."""
    return {
        "test": outcome.test,
        "operators": outcome.operators,
        "in_scope": outcome.in_scope,
        "passed": outcome.error is None,
    }


def lines(outcomes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Passed of all and of those in scope, then the operators that have failures in scope."""
    found = list(outcomes)
    counted = [o for o in found if o["in_scope"]]
    result = [_share("all tests", found), _share("in scope", counted)]
    for kind in sorted({o["test"].partition("/")[0] for o in counted}):
        result.append(_share(f"  {kind}", [o for o in counted if o["test"].startswith(kind + "/")]))
    total = Counter(name for o in counted for name in o["operators"])
    failed = Counter(name for o in counted if not o["passed"] for name in o["operators"])
    result += [
        f"  {name}: {total[name] - count} of {total[name]}" for name, count in failed.most_common()
    ]
    return result


def _share(what: str, outcomes: list[Mapping[str, Any]]) -> str:
    passed = sum(o["passed"] for o in outcomes)
    share = 100 * passed / len(outcomes) if outcomes else 100.0
    return f"{what}: {passed} of {len(outcomes)} passed ({share:.2f} %)"
