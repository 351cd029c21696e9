"""The family of errors: who is whose, and what their messages say."""

from __future__ import annotations

import pickle

import pytest

import vkconv
from vkconv import errors
from vkconv.errors import NodeProblem, OutOfDeviceMemoryError, UnsupportedModelError, VkconvError


def test_one_family_reached_from_the_package() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if name != "NodeProblem":
            assert issubclass(kind, VkconvError)
            assert getattr(vkconv, name) is kind
    for kind in (
        errors.DeviceLostError,
        errors.OutOfDeviceMemoryError,
        errors.DeviceTimeoutError,
    ):
        assert issubclass(kind, errors.DeviceError)


def test_out_of_memory_knows_the_bytes() -> None:
    assert OutOfDeviceMemoryError("3 GiB do not fit", 3 << 30).requested == 3 << 30


def test_a_problem_prints_what_is_known() -> None:
    whole = NodeProblem("pick", "TopK", "no kernel", 13, "float")
    assert str(whole) == "pick [TopK, opset 13, float]: no kernel"
    assert str(NodeProblem("", "Nms", "unknown", domain="trt")) == "(unnamed) [trt.Nms]: unknown"


def test_all_nodes_are_kept_and_like_ones_are_told_together() -> None:
    problems = [NodeProblem(f"conv{i}", "Conv", "no kernel", 17) for i in range(88)]
    problems.append(NodeProblem("pick", "TopK", "no such operator", 17))
    error = UnsupportedModelError.from_nodes(problems)
    assert error.nodes == problems
    assert str(error) == (
        "89 nodes of the model cannot be run: 'conv0', 'conv1', 'conv2' and 85 more "
        "[Conv, opset 17: no kernel]; 'pick' [TopK, opset 17: no such operator]"
    )
    one = UnsupportedModelError.from_nodes(problems[-1:])
    assert str(one).startswith("1 node of the model cannot be run: 'pick'")


def test_many_kinds_stay_readable() -> None:
    problems = [NodeProblem(f"n{i}", f"Op{i}", "no such operator", 17) for i in range(200)]
    message = str(UnsupportedModelError.from_nodes(problems))
    assert len(message) < 600 and "194 more kinds" in message


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedModelError.from_nodes([NodeProblem("a", "B", "c")]),
        OutOfDeviceMemoryError("too much", 5),
    ],
)
def test_errors_cross_to_another_interpreter(error: VkconvError) -> None:
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error) and vars(twin) == vars(error)
