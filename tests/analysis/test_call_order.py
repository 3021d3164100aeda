"""Transitions, runs and sequences of calls, beside plain references."""

from __future__ import annotations

import random
import tempfile
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis import call_order, grams, holes
from ringtape.analysis.analyses import sequences as sequences_module
from ringtape.analysis.analyses.ngrams import ngrams
from ringtape.analysis.analyses.sequences import sequences
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.analyses.transitions import picture, transitions
from ringtape.schemas.errors import UsageError
from tests.factory import T0, make

NAMES = {0: "read", 1: "write", 3: "close", 56: "clone", 59: "execve", 60: "exit"}
Story = list[tuple[int, int, int]]
stories = st.lists(st.tuples(st.sampled_from([10, 11, 12]), st.sampled_from(sorted(NAMES)), st.integers(0, 5)), max_size=60)


def rows_of(story: Story) -> list[dict[str, Any]]:
    """Return calls of three threads that do not overlap: (thread, call, time before it)."""
    now: dict[int, int] = defaultdict(lambda: T0)
    rows = []
    for at, (tid, nr, gap) in enumerate(story):
        now[tid] += gap
        kind = 1 if nr == 60 else 0
        rows.append(
            {"ts": now[tid], "nr": nr, "pid": 10, "tid": tid, "cpu": tid % 2, "dur": 3 + at % 4, "kind": kind, "ret": -2 if at % 3 == 0 else 0}
        )
        now[tid] += 3 + at % 4
    return rows


def lives(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the calls of each program of each thread."""
    found = []
    for tid in {row["tid"] for row in rows}:
        life: list[dict[str, Any]] = []
        for row in sorted((row for row in rows if row["tid"] == tid), key=lambda row: row["ts"]):
            life.append(row)
            if row["kind"] == 1 or (row["nr"] == 59 and row["ret"] == 0):
                found.append(life)
                life = []
        found.append(life)
    return found


def plain(rows: list[dict[str, Any]], n: int) -> dict[str, tuple[int, int, int]]:
    result: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for life in lives(rows):
        for at in range(len(life) - n + 1):
            run = life[at : at + n]
            entry = result[" → ".join(NAMES[row["nr"]] for row in run)]
            entry[0] += 1
            entry[1] += run[-1]["ts"] + run[-1]["dur"] - run[0]["ts"]
            entry[2] += sum(row["dur"] for row in run)
    return {name: (count, time, inside) for name, (count, time, inside) in result.items()}


@pytest.mark.parametrize("block", [1 << 21, 7])
@settings(max_examples=25, deadline=None)
@given(story=stories, n=st.integers(2, 5))
def test_runs_are_those_of_a_plain_reference_in_blocks_of_any_size(story: Story, n: int, block: int) -> None:
    rows = rows_of(story)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_order, "BLOCK", block)
        patch.setattr(call_order.CallOrder.windows, "__defaults__", (block,))
        result = ngrams(ringtape.open(make(Path(folder) / "t", syscalls=rows, parts=3)), n=n, top=10**6)
    assert {row[0]: row[1:] for row in result.select("calls", "count", "time", "inside").iter_rows()} == plain(rows, n)
    assert (result["between"] == result["time"] - result["inside"]).all()
    assert not len(result) or result["share"].sum() == pytest.approx(1)


def test_transitions_are_those_of_duckdb(folder: Path) -> None:
    generator = random.Random(3)
    rows = rows_of([(generator.choice([10, 11, 12]), generator.choice([0, 1, 3]), generator.randrange(9)) for _ in range(500)])
    path = make(folder, syscalls=rows, parts=4)
    query = f"""
        with x as (select nr, tid, ts, lag(nr) over w as before, ts - lag(ts + dur) over w as wait from '{path}/syscalls/*.parquet'
                   window w as (partition by tid order by ts)),
        y as (select before, nr, count(*)::bigint as n, sum(wait)::bigint as w, min(wait) as lo, max(wait) as hi
                from x where before is not null group by all)
        select *, n / sum(n) over (partition by before) from y
    """
    theirs = {(NAMES[row[0]], NAMES[row[1]]): row[2:] for row in duckdb.sql(query).fetchall()}
    found = transitions(ringtape.open(path))
    ours = {row[:2]: row[2:] for row in found.select("from", "to", "count", "wait", "wait_min", "wait_max", "probability").iter_rows()}
    assert ours.keys() == theirs.keys()
    for pair, values in ours.items():
        assert values == pytest.approx(theirs[pair])
    assert found["count"].sum() == len(rows) - 3


def test_a_new_thread_of_an_old_number_does_not_go_on(folder: Path) -> None:
    rows = [
        {"ts": T0, "nr": 0, "pid": 1, "dur": 1},
        {"ts": T0 + 10, "nr": 56, "pid": 1, "kind": 4},
        {"ts": T0 + 20, "nr": 1, "pid": 1, "dur": 1},
        {"ts": T0 + 30, "nr": 3, "pid": 1, "dur": 1},
    ]
    assert transitions(ringtape.open(make(folder, syscalls=rows))).select("from", "to").rows() == [("write", "close")]


def test_nothing_goes_on_over_lost_calls_of_any_cpu(folder: Path) -> None:
    rows = [{"ts": T0 + at * 10, "nr": at % 2, "pid": 1 + at % 3, "tid": 1 + at % 3, "cpu": at % 2, "dur": 5} for at in range(60)]
    rows[30]["lost"] = True
    found = transitions(ringtape.open(make(folder, syscalls=rows)))
    # CPU 0 has records that end at 285 and 325 beside the gap: what lies in between is not known.
    hole = (T0 + 285, T0 + 325)
    kept = [row for row in rows if not row.get("lost")]
    pairs = [pair for tid in (1, 2, 3) for pair in pairwise([row for row in kept if row["tid"] == tid])]
    sure = [(a, b) for a, b in pairs if a["ts"] + a["dur"] >= hole[1] or b["ts"] < hole[0]]
    expected = Counter((NAMES[a["nr"]], NAMES[b["nr"]]) for a, b in sure)
    assert {row[:2]: row[2] for row in found.select("from", "to", "count").iter_rows()} == dict(expected)
    assert found["broken"].unique().to_list() == [len(pairs) - len(sure)]
    assert f"broken at {len(pairs) - len(sure)} places where calls were lost" in found["caveat"][0]
    assert 0 < len(pairs) - len(sure) < 6


@settings(max_examples=40, deadline=None)
@given(stories, st.lists(st.booleans(), min_size=60, max_size=60), st.integers(1, 4))
def test_what_is_counted_under_loss_did_occur(story: Story, lost: list[bool], run: int) -> None:
    rows = [{**row, "lost": gone} for row, gone in zip(rows_of(story), lost, strict=False)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(holes, "RUN", run)
        result = ngrams(ringtape.open(make(Path(folder) / "t", syscalls=rows)), n=2, top=10**6)
    truth = plain(rows, 2)
    for name, count, time in result.select("calls", "count", "time").iter_rows():
        assert count <= truth[name][0]
        assert time <= truth[name][1]


def test_losses_before_the_first_and_after_the_last_record_are_known(folder: Path) -> None:
    rows = [{"ts": T0 + at * 10, "nr": 0, "pid": 1, "cpu": at // 5, "dur": 2, "lost": at in (4, 5, 14)} for at in range(15)]
    found = holes.holes(ringtape.open(make(folder, syscalls=rows)))
    assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == [(T0 + 32, T0 + 42), (T0 + 52, T0 + 62), (T0 + 132, T0 + 142)]


def test_many_holes_are_taken_together_without_leaving_one_out(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    generator = random.Random(5)
    rows = [{"ts": T0 + at * 10 + generator.randrange(9), "nr": 0, "pid": 1, "dur": 1, "lost": at % 3 == 1} for at in range(300)]
    trace = ringtape.open(make(folder, syscalls=rows))
    exact = holes.holes(trace)
    monkeypatch.setattr(holes, "MOST", 10)
    few = holes.holes(trace)
    assert len(few.starts) <= 10 < len(exact.starts)
    assert all(
        any(low <= start and end <= high for low, high in zip(few.starts, few.ends, strict=True))
        for start, end in zip(exact.starts, exact.ends, strict=True)
    )


@settings(max_examples=30, deadline=None)
@given(stories)
def test_where_runs_are_too_many_their_counts_are_intervals_that_hold_the_truth(story: Story) -> None:
    rows = rows_of(story)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_order.CallOrder.windows, "__defaults__", (10,))
        patch.setattr(grams, "MOST", 4)
        result = ngrams(ringtape.open(make(Path(folder) / "t", syscalls=rows)), n=3, top=10**6)
    truth = plain(rows, 3)
    for name, count, low, high in result.select("calls", "count", "count_low", "count_high").iter_rows():
        assert low <= truth[name][0] <= high
        assert count in (None, truth[name][0])


def test_a_filtered_recording_is_said(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=[{"nr": 0, "pid": 1}] * 3, header={"options": {"syscall": ["read"]}}))
    assert transitions(trace)["caveat"].to_list() == ["only some system calls were recorded: others were made between those that stand side by side"]


@settings(max_examples=60, deadline=None)
@given(stories, st.sampled_from([1 << 21, 9]))
def test_each_call_is_in_one_sequence_so_that_calls_and_times_add_up(story: Story, block: int) -> None:
    rows = rows_of(story)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_order.CallOrder.windows, "__defaults__", (block,))
        patch.setattr(sequences_module, "BLOCK", block)
        trace = ringtape.open(make(Path(folder) / "t", syscalls=rows))
        result = sequences(trace, top=10**6)
        mix = syscall_mix(trace)
    assert result["calls"].sum() == mix["calls"].sum() == len(rows)
    assert result["inside"].sum() == mix["time"].sum()
    assert (result["time"] == result["inside"] + result["between"]).all()
    assert (result["calls"] >= result["count"]).all()


def test_loops_are_one_pattern_and_the_longest_is_counted(folder: Path) -> None:
    # Copies of three files: open, read and write in rounds of different number, close; 2 ns between calls.
    story = []
    for rounds in (3, 5, 2):
        story += [257, *([0, 1] * rounds), 3]
    rows = [{"ts": T0 + at * 12, "nr": nr, "pid": 7, "dur": 10} for at, nr in enumerate(story)]
    found = sequences(ringtape.open(make(folder, syscalls=rows)))
    assert found.select("sequence", "count", "calls", "time", "inside", "between").rows() == [
        ("(openat → (read → write)+ → close)+", 1, 26, 26 * 12 - 2, 260, 50)
    ]


def test_the_longest_occurrence_is_told(folder: Path) -> None:
    rows = []
    for at, tid in enumerate((1, 2, 3)):
        base = T0 + at * 1000
        rows += [{"ts": base + 10 * step, "nr": nr, "pid": tid, "dur": 5 + 50 * (tid == 2 and step == 2)} for step, nr in enumerate((257, 0, 3))]
    found = sequences(ringtape.open(make(folder, syscalls=rows)))
    assert found.select("sequence", "count", "mean", "longest", "longest_at", "thread").rows() == [
        ("openat → read → close", 3, (25 + 75 + 25) / 3, 75, T0 + 1000, 2)
    ]


@pytest.mark.parametrize("analysis", [ngrams, transitions, sequences])
def test_empty_and_one_event_traces(tmp_path: Path, analysis: Any) -> None:
    empty = analysis(ringtape.open(make(tmp_path / "a")))
    one = analysis(ringtape.open(make(tmp_path / "b", syscalls=[{"nr": 0, "pid": 1, "dur": 4}])))
    assert len(empty) == 0
    assert empty.schema == one.schema
    assert len(one) == (1 if analysis is sequences else 0)
    if analysis is transitions:
        assert picture(one).axes


def test_ten_thousand_threads(folder: Path) -> None:
    rows = [
        {"ts": T0 + step * 10_000 + tid, "nr": nr, "pid": 1, "tid": tid + 1, "dur": 1} for step, nr in enumerate((257, 0, 3)) for tid in range(10_000)
    ]
    trace = ringtape.open(make(folder, syscalls=rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_order.CallOrder.windows, "__defaults__", (7_000,))
        assert ngrams(trace).select("calls", "count").rows() == [("openat → read → close", 10_000)]
        assert transitions(trace).select("from", "to", "count", "probability").rows() == [
            ("openat", "read", 10_000, 1.0),
            ("read", "close", 10_000, 1.0),
        ]
    assert sequences(trace).select("sequence", "count").rows() == [("openat → read → close", 10_000)]


def test_calls_beyond_the_most_frequent_share_a_name(folder: Path) -> None:
    rows = [{"ts": T0 + at, "nr": 0 if at % 2 else 1000 + at, "pid": 1, "dur": 0} for at in range(9000)]
    found = transitions(ringtape.open(make(folder, syscalls=rows)))
    assert found["count"].sum() == 8999
    assert found.filter(found["to"] == "(others)")["count"].item() == 4500 - (call_order.OTHER - 1)


@pytest.mark.parametrize("wrong", [{"n": 1}, {"n": 6}, {"top": -1}])
def test_what_cannot_be_counted_is_said(folder: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        ngrams(ringtape.open(make(folder)), **wrong)
