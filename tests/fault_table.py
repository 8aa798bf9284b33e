"""Injects every fault and prints a table: how often it was tried, survived, and what it cost.

    python tests/fault_table.py --kills 50

The faults are those of the tests that are marked with `fault`; the kills are those of
tests/kill_and_go_on.py, which the tests try three times. Fails if anything was lost.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kill_and_go_on import MOMENTS, kill_and_go_on


@dataclass
class Row:
    """What has become of one fault."""

    tried: int = 0
    survived: int = 0
    transitions: int = 0
    metrics: int = 0

    @property
    def good(self) -> bool:
        return self.survived == self.tried and self.transitions == self.metrics == 0


class Tally:
    """A plugin of pytest that keeps to the tests of faults and counts what becomes of them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = defaultdict(Row)
        self._names: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """pytest's hook."""
        for item in items:
            if marker := item.get_closest_marker("fault"):
                parameters = item.callspec.params if hasattr(item, "callspec") else {}
                self._names[item.nodeid] = marker.args[0].format(**parameters)
        items[:] = [item for item in items if item.nodeid in self._names]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """pytest's hook, called before, for and after each test."""
        row = self.rows[self._names[report.nodeid]]
        if report.failed or report.when == "call":
            row.tried += 1
            row.survived += report.passed
            found: dict[str, Any] = dict(report.user_properties)
            row.transitions += found.get("transitions", 0)
            row.metrics += found.get("metrics", 0)


def main() -> int:
    """Fill the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    tally = Tally()
    here = str(Path(__file__).parent)
    pytest.main(["-p", "no:cacheprovider", "--numprocesses", "0", here], [tally])
    rows = {**tally.rows}
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_go_on(Path(folder), kills, epochs=40)
    metrics = outcome["metrics lost"] + outcome["metrics wrong"]  # one that differs is lost too
    transitions = outcome["transitions lost"]
    for name in MOMENTS:
        tried, good = outcome[name], metrics == transitions == 0
        rows[f"kill -9 {name}"] = Row(tried, tried if good else 0, transitions, metrics)
    print("\n| fault | tried | survived | transitions lost | metrics lost |\n|---|---|---|---|---|")
    for name, row in rows.items():
        tried = row.tried or "0 (not possible here)"
        print(f"| {name} | {tried} | {row.survived} | {row.transitions} | {row.metrics} |")
    return 0 if all(row.good for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
