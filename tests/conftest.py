"""What belongs to the whole suite: the conformance summary at its end."""

from __future__ import annotations

import pytest

from tests.conformance import summary


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
