"""What became of page faults, worked out by hand from the counters in their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import ringtape
from ringtape.analysis import faulting
from ringtape.analysis.analyses.faults import faults
from ringtape.analysis.faulting import MAJOR, MINOR, NONE, OPEN, UNCLEAR, outcomes, over_time
from ringtape.schemas.errors import RingtapeError
from tests.factory import T0, make

FORK, EXEC, EXIT = 1, 2, 3
USER, KERNEL, AT_ATTACH, AT_DETACH = range(4)
Row = dict[str, Any]


def fault(at: int, pid: int, minor: int, major: int, **more: Any) -> Row:
    return {"ts": T0 + at, "pid": pid, "min_flt": minor, "maj_flt": major, **more}


def life(at: int, kind: int, pid: int, minor: int = 0, major: int = 0, **more: Any) -> Row:
    return {"ts": T0 + at, "kind": kind, "pid": pid, "comm": b"p%d" % pid, "start": T0 - pid, "min_flt": minor, "maj_flt": major, **more}


def became(path: Path) -> list[tuple[int, int | None, int, int]]:
    rows = pl.concat(list(outcomes(ringtape.open(path)))).filter(pl.col("kind") >= 0).sort("ts", "life")
    return [(ts - T0, code, minor, major) for ts, code, minor, major in rows.select("ts", "became", "min_flt", "maj_flt").iter_rows()]


def counts(path: Path, by: Any = "process", columns: Sequence[str] = ("minor", "major", "traps", "untrapped")) -> dict[Any, tuple[int, ...]]:
    found = faults(ringtape.open(path), by=by)
    return {tuple(row[: len(found.columns) - 9]): tuple(row[found.columns.index(name)] for name in columns) for row in found.iter_rows()}


@pytest.fixture(params=[1_000_000, 1])
def small_windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Nothing may depend on how the rows are cut into windows."""
    monkeypatch.setattr(faulting, "WINDOW", request.param)
    return int(request.param)


def test_the_next_row_of_the_thread_tells_what_a_fault_came_to(folder: Path, small_windows: int) -> None:
    rows = [
        fault(10, 5, 0, 0),
        fault(20, 5, 1, 0),
        fault(30, 5, 1, 1),
        fault(40, 5, 1, 1),
        fault(50, 5, 4, 1),
        fault(60, 5, 5, 3),
    ]
    path = make(folder, parts=3, processes=[life(0, FORK, 5), life(90, EXIT, 5, 6, 3)], faults=rows)
    assert became(path) == [(10, MINOR, 0, 0), (20, MAJOR, 0, 0), (30, NONE, 0, 0), (40, MINOR, 2, 0), (50, UNCLEAR, 1, 2), (60, MINOR, 0, 0)]
    # 6 and 3 is what the exit says; of these 2 + 2 were no traps: the third page more at 40, and all but one of the three at 50.
    assert counts(path, columns=("minor", "major", "traps", "failed", "untrapped", "unclear")) == {(5, "p5"): (6, 3, 6, 1, 4, 1)}


def test_threads_do_not_mix_and_what_comes_between_them_is_nothing_to_them(folder: Path, small_windows: int) -> None:
    rows = [fault(at, 5, at // 20, 0, tid=5 + at // 10 % 2) for at in range(0, 100, 10)]
    lives = [life(0, FORK, 5), life(0, FORK, 5, tid=6, start=T0), life(200, EXIT, 5, 5), life(201, EXIT, 5, 5, tid=6, start=T0)]
    path = make(folder, parts=4, processes=lives, faults=rows)
    assert {code for _, code, _, _ in became(path)} == {MINOR}
    assert counts(path, "thread") == {(5, 5, "p5"): (5, 0, 5, 0), (5, 6, "p5"): (5, 0, 5, 0)}
    assert counts(path) == {(5, "p5"): (10, 0, 10, 0)}


def test_the_last_fault_of_a_thread_that_nothing_follows_stays_open(folder: Path) -> None:
    path = make(folder, processes=[life(0, FORK, 5)], faults=[fault(10, 5, 0, 0), fault(20, 5, 1, 0)])
    assert became(path) == [(10, MINOR, 0, 0), (20, OPEN, 0, 0)]
    assert counts(path) == {(5, "p5"): (1, 0, 2, 0)}


def test_a_thread_that_was_there_begins_with_its_counters_and_not_with_0(folder: Path) -> None:
    rows = [fault(0, 5, 1000, 7, kind=AT_ATTACH, seq=-1), fault(10, 5, 1000, 7), fault(90, 5, 1001, 7, kind=AT_DETACH, seq=-1)]
    path = make(folder, processes=[life(0, 0, 5, seq=-1)], faults=rows)
    assert counts(path) == {(5, "p5"): (1, 0, 1, 0)}


def test_pages_that_no_trap_brought_are_counted_before_the_first_and_after_the_last(folder: Path, small_windows: int) -> None:
    path = make(folder, parts=2, processes=[life(0, FORK, 5), life(90, EXIT, 5, 31, 2)], faults=[fault(10, 5, 10, 0), fault(20, 5, 11, 0)])
    # 10 before the first row; the one at 10; 20 minor and 2 major from the one at 20 on, which may have been either.
    assert counts(path, columns=("minor", "major", "traps", "untrapped", "unclear")) == {(5, "p5"): (31, 2, 2, 31, 1)}


def test_lost_rows_change_no_sum(folder: Path) -> None:
    rows = [fault(at, 5, at // 10, 0, cpu=0, lost=at in (30, 40, 50)) for at in range(0, 100, 10)]
    path = make(folder, processes=[life(0, FORK, 5), life(200, EXIT, 5, 10)], faults=rows)
    trace = ringtape.open(path)
    assert trace.lost() == {"faults": 3}
    assert counts(path) == {(5, "p5"): (10, 0, 7, 3)}


def test_a_number_that_is_used_again_is_another_thread(folder: Path) -> None:
    rows = [fault(10, 5, 0, 0), fault(20, 5, 1, 0), fault(110, 5, 0, 0), fault(120, 5, 1, 0)]
    lives = [life(0, FORK, 5), life(50, EXIT, 5, 2), life(100, FORK, 5, start=T0), life(150, EXIT, 5, 2, start=T0)]
    assert counts(make(folder, processes=lives, faults=rows)) == {(5, "p5"): (4, 0, 4, 0)}


def test_a_thread_that_takes_over_its_process_by_exec_takes_its_counters_along(folder: Path) -> None:
    rows = [fault(10, 5, 0, 0), fault(20, 5, 100, 0, tid=6), fault(60, 5, 101, 0)]
    lives = [
        life(0, FORK, 5),
        life(1, FORK, 5, tid=6, start=T0),
        life(30, EXIT, 5, 1),
        life(40, EXEC, 5, creator=6),
        life(90, EXIT, 5, 102),
    ]
    path = make(folder, processes=lives, faults=rows)
    assert became(path) == [(10, MINOR, 0, 0), (20, MINOR, 0, 0), (60, MINOR, 0, 0)]
    assert counts(path) == {(5, "p5"): (103, 0, 3, 100)}


def test_what_the_process_of_the_command_did_before_it_was_the_command_is_left_out(folder: Path) -> None:
    rows = [fault(10, 5, 300, 0), fault(20, 5, 301, 0), fault(60, 5, 400, 0)]
    path = make(folder, header={"command": ["p5"]}, processes=[life(50, EXEC, 5, creator=5), life(90, EXIT, 5, 401)], faults=rows)
    assert counts(path) == {(5, "p5"): (1, 0, 1, 0)}


def test_regions_accesses_and_instructions(folder: Path) -> None:
    where = [(0, 6, 1), (1, 4, 1), (2, 6, -1), (2, 7, -1), (3, 20, 2)]
    rows = [fault(10 * at, 5, at, 0, region=region, error=error, ip=ip) for at, (region, error, ip) in enumerate(where)]
    path = make(folder, processes=[life(0, FORK, 5), life(90, EXIT, 5, 8)], faults=rows)
    assert {key[-1]: value[0] for key, value in counts(path, "region").items()} == {"mapping": 1, "program": 1, "heap": 2, "stack": 1, "(no trap)": 3}
    assert {key[-1]: value[0] for key, value in counts(path, "access").items()} == {"write": 3, "read": 1, "fetch": 1, "(no trap)": 3}
    assert {key[-1]: value[0] for key, value in counts(path, "instruction").items()} == {
        "0x1": 2, "0xffffffffffffffff": 2, "0x2": 1, "(no trap)": 3,
    }  # fmt: skip
    for by in ("region", "access", "instruction"):
        assert sum(value[0] + value[1] for value in counts(path, by).values()) == 8


def test_rates_are_those_from_the_first_row_to_the_last(folder: Path) -> None:
    path = make(folder, processes=[life(0, FORK, 5), life(2_000_000_000, EXIT, 5, 100)], faults=[fault(10, 5, 0, 0)])
    found = faults(ringtape.open(path))
    assert found["per_second"].to_list() == [50.0]
    assert found["share"].to_list() == [1.0]


def test_over_time_each_fault_stands_where_it_was_taken_and_the_others_where_the_next_row_is(folder: Path) -> None:
    lives = [life(0, FORK, 5), life(990_000_000, EXIT, 5, 12, 1)]
    rows = [fault(0, 5, 0, 0), fault(100_000_000, 5, 1, 0), fault(300_000_000, 5, 1, 1), fault(900_000_000, 5, 12, 1, kind=KERNEL)]
    found = over_time(ringtape.open(make(folder, processes=lives, faults=rows)), bins=4)
    assert [((begin - T0) // 250_000_000, pid, minor, major) for begin, _, pid, minor, major in found.iter_rows()] == [
        (0, 5, 1, 1), (1, 5, 1, 0), (3, 5, 10, 0),
    ]  # fmt: skip


def empty(rows: Iterable[Row] = ()) -> dict[str, Any]:
    return {"faults": list(rows), "processes": []}


def test_an_empty_table_gives_an_empty_result_of_the_same_form(folder: Path) -> None:
    trace = ringtape.open(make(folder, **empty()))
    for by in ("process", "thread", "command", "region", "access", "instruction"):
        found = faults(trace, by=by)  # type: ignore[arg-type]
        assert len(found) == 0
        assert "minor" in found.columns
    assert over_time(trace).is_empty()


def test_faults_of_threads_that_no_event_names_are_counted_by_their_numbers(folder: Path) -> None:
    path = make(folder, faults=[fault(10, 5, 0, 0), fault(20, 5, 1, 0), fault(15, 6, 7, 0), fault(30, 6, 9, 0)])
    assert counts(path) == {(6, "?"): (2, 0, 2, 1), (5, "?"): (1, 0, 2, 0)}


def test_without_the_table_the_error_says_how_to_record_it(folder: Path) -> None:
    trace = ringtape.open(make(folder, header={"tables": {"processes": "1.0"}}))
    with pytest.raises(RingtapeError, match="faults") as caught:
        faults(trace)
    assert "--tables faults" in str(caught.value)
