"""Runs one of ONNX's tests through ``vkconv.backend`` and says what came of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
from onnx.backend.test.runner import Runner

import vkconv.backend
from tests.conformance.collection import ConformanceTest
from tests.conformance.scope import in_scope, operators


@dataclass
class Outcome:
    """``error`` is None where all outputs were as they should be; its first line otherwise."""

    test: str
    operators: list[str]
    in_scope: bool
    error: str | None = None
    #: operator -> where its nodes ran
    places: dict[str, list[str]] = field(default_factory=dict)


def run(test: ConformanceTest) -> Outcome:
    model = test.load_model()
    outcome = Outcome(str(test), sorted(operators(model)), in_scope(model))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # nodes on the host
        try:
            with vkconv.backend.prepare(model) as prepared:
                for inputs, expected in test.load_data(model):
                    outputs = prepared.run(inputs)
                    Runner.assert_similar_outputs(expected, outputs, test.rtol, test.atol)
                places: dict[str, set[str]] = {}
                for node in prepared.session.placement:
                    places.setdefault(node.op_type, set()).add(node.where)
                outcome.places = {name: sorted(where) for name, where in sorted(places.items())}
        except Exception as error:  # whatever a test ends with is its outcome
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            outcome.error = f"{type(error).__name__}: {'; '.join(lines)[:400]}"
    return outcome
