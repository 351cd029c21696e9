"""What belongs to the whole suite: the device it runs on, validation, the conformance summary.

pytest --validate            under Khronos' validation layer; a message fails its test
pytest --driver swiftshader  on that driver
pytest --profile mali        on a device that imitates that class (VKCONV_PROFILE)
pytest --one-in 20           every 20th case of each parametrized test, the first included
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import drivers, validation
from tests.conformance import summary
from vkconv.device.vulkan.profiles import PROFILES

#: what runs under --validate, --driver or --profile where no test is named
ON_THE_DEVICE = (
    "tests/ops",
    "tests/models",
    "tests/cli",
    "tests/test_async_runs.py",
    "tests/test_control_flow.py",
    "tests/test_io_binding.py",
    "tests/test_random_graphs.py",
    "tests/test_session.py",
)
_messages = pytest.StashKey[validation.Messages]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vkconv")
    group.addoption("--validate", action="store_true", help="run under the validation layer")
    group.addoption("--driver", choices=sorted(drivers.FILES), help="run on this driver")
    group.addoption("--profile", choices=sorted(PROFILES), help="imitate this class of devices")
    group.addoption("--one-in", type=int, default=1, help="take every N-th case of each test")


def pytest_configure(config: pytest.Config) -> None:
    """Sets the environment before any test opens a device."""
    if config.getoption("--one-in") < 1:
        raise pytest.UsageError("--one-in takes a number from 1")
    if config.getoption("--driver"):
        drivers.select_driver(config.getoption("--driver"))
        # one that computes 0.6 GFLOP/s takes minutes for what others do in a second
        if config.getoption("--driver") == "swiftshader":
            os.environ.setdefault("VKCONV_TIMEOUT", "1200")
    if config.getoption("--profile"):
        os.environ["VKCONV_PROFILE"] = config.getoption("--profile")
    elsewhere = any(config.getoption(name) for name in ("--validate", "--driver", "--profile"))
    if elsewhere and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args = list(ON_THE_DEVICE)
    has_workers = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if config.getoption("--validate") and not has_workers:
        config.stash[_messages] = _watched_layer()
        validation.take_whole_ranges()


def _watched_layer() -> validation.Messages:
    if validation.layer_version() is None:
        raise pytest.UsageError(f"--validate: the loader finds no {validation.LAYER}")
    folder = tempfile.mkdtemp(prefix="vkconv-validation-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    messages = validation.Messages(Path(folder))
    os.environ.update(messages.environment)
    return messages


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what --one-in does not take, and what --validate has no business with."""
    step, seen = config.getoption("--one-in"), Counter[str]()
    kept, left = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        is_taken = seen[test] % step == 0
        if config.getoption("--validate"):
            is_taken &= not test.startswith(tuple(validation.NOT_VALIDATED))
        seen[test] += 1
        (kept if is_taken else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(scope="session", autouse=True)
def _no_leaks(pytestconfig: pytest.Config) -> Iterator[None]:
    """Under --validate, what is left when everything is closed fails the last test."""
    yield
    if messages := pytestconfig.stash.get(_messages, None):
        validation.close_instance()
        _fail_for(messages, "closing all devices")


@pytest.fixture(autouse=True)
def _no_messages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Under --validate, a message of the layer fails the test that made it."""
    yield
    if messages := request.config.stash.get(_messages, None):
        _fail_for(messages, "this test")


def _fail_for(messages: validation.Messages, what: str) -> None:
    if found := messages.take():
        shown = "\n".join(text[:1500] for text in found[:5])
        pytest.fail(f"{len(found)} validation messages from {what}:\n{shown}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    outcomes = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == summary.PROPERTY
    ]
    if outcomes:
        terminalreporter.section("ONNX's own tests")
        for line in summary.lines(outcomes):
            terminalreporter.write_line(line)
