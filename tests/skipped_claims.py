"""What `make test` ends with: the claims that were not tested, and why. `pytest -p tests.skipped_claims` loads it."""

from __future__ import annotations

from collections import Counter

import pytest
from rich.console import Console
from rich.table import Table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one row for each claim and reason; variants of a parametrized test are counted together."""
    skipped = Counter((_claim(report), _reason(report)) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.section("claims skipped")
    if not skipped:
        terminalreporter.write_line("None: every claim was tested.")
        return
    table = Table("claim", "cases", "why", show_lines=True)
    for (claim, reason), cases in sorted(skipped.items()):
        table.add_row(claim, str(cases), reason)
    console = Console(width=max(80, terminalreporter._tw.fullwidth), no_color=True, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    terminalreporter.write(capture.get())


def _claim(report: pytest.TestReport | pytest.CollectReport) -> str:
    """`tests/test_sinks.py: a full disk is reported`, from the name of the test; a whole file has no second part."""
    path, _, test = report.nodeid.partition("::")
    name = test.partition("[")[0].rpartition("::")[2].removeprefix("test_").replace("_", " ")
    return f"{path}: {name}" if name else path


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):  # (path, line, "Skipped: reason")
        return report.longrepr[2].removeprefix("Skipped: ")
    return f"expected to fail: {getattr(report, 'wasxfail', '')}"
