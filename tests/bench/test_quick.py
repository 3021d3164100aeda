"""The bench itself works: every table is printed. What it measures is judged by people, never here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.figures import Figure, Pair, Row, at_least, at_most, difference, pair, ratio, table, times

ROOT = Path(__file__).parent.parent.parent


def test_the_best_of_a_cost_is_the_least_and_of_a_rate_the_greatest() -> None:
    assert Figure.of([3, 1, 2]).best == 1
    assert Figure.of([3, 1, 2], more_is_better=True).best == 3
    assert pair(Figure.of([3, 1, 2])) == Pair(1, 2, 3)


def test_ratios_are_of_added_costs() -> None:
    bare, floor, tool = Figure.of([100, 110]), Figure.of([150, 170]), Figure.of([175, 215])
    assert ratio(difference(tool, bare), difference(floor, bare)) == Pair(75 / 50, 90 / 55, 2)


@pytest.mark.parametrize(
    ("best", "median", "reached"), [(1.0, 1.5, "yes"), (1.5, 1.6, "at its best only"), (1.6, 1.5, "by the median only"), (1.6, 1.7, "no")]
)
def test_a_target_is_reached_only_if_both_best_and_median_reach_it(best: float, median: float, reached: str) -> None:
    assert Row("what", Pair(best, median, 3), times, at_most(1.5)).reached == reached


def test_a_row_without_target_judges_nothing_and_a_ratio_of_nothing_reaches_nothing() -> None:
    assert Row("what", Pair(1, 1, 1), times).reached == ""
    assert Row("what", ratio(Pair(1, 1, 1), Pair(0, 0, 1)), times, at_most(1.5)).reached == "lost in noise"
    assert Row("what", ratio(Pair(1, 1, 1), Pair(0, 0, 1)), times, at_least(1.5)).reached == "lost in noise"


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [("1|2", "x")]) == ["| a    | b |", "|------|---|", "| 1\\|2 | x |"]


@pytest.mark.kernel
def test_a_quick_run_prints_its_tables_and_writes_its_values(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "two-cpus", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert [section["name"] for section in content["sections"]] == ["two-cpus"]
    assert all(section["rows"] for section in content["sections"])
    assert "| kernel" in done.stdout
