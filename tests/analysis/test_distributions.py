"""Frames to draw, and the pictures drawn of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.distributions import latency_ecdf, latency_histogram, latency_over_time
from ringtape.analysis.in_force import InForce
from ringtape.analysis.plots import latency as plots
from ringtape.analysis.plots.mix import mix
from tests.factory import T0, make


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=80))
def test_the_distribution_function_is_exact_where_it_is_given(values: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = ringtape.open(make(Path(folder) / "t", syscalls=[{"pid": 1, "dur": value} for value in values]))
        frame, counted = latency_ecdf(trace), latency_histogram(trace)
    for dur, at_most, share, above in frame.select("dur", "at_most", "share", "above").iter_rows():
        truth = sum(value <= dur for value in values)
        assert (at_most, share, above) == (truth, truth / len(values), (len(values) - truth) / len(values))
    assert counted["count"].sum() == len(values)
    assert frame["dur"][-1] == max(values)


def test_a_call_stands_in_the_window_in_which_it_returned(folder: Path) -> None:
    calls = [{"ts": T0 + 10, "pid": 1, "dur": 5}, {"ts": T0 + 10, "pid": 1, "dur": 600_000_000}, {"ts": T0, "pid": 1, "dur": 9, "kind": 1}]
    frame = latency_over_time(ringtape.open(make(folder, syscalls=calls)), windows=2)
    assert frame.select(pl.col("begin") // 10**8, "low", "high", "count").rows() == [(0, 5.0, 6.0, 1), (5, 536870912.0, 671088640.0, 1)]


events = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30), st.integers(0, 5)), max_size=30)


@given(events, st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 40)), min_size=1, max_size=30))
def test_what_is_in_force_is_what_a_plain_search_finds(given_events: list[tuple[int, int, int]], questions: list[tuple[int, int]]) -> None:
    number, ts, code = np.array(given_events, np.int64).reshape(-1, 3).T
    answers = InForce.of(number, ts, code).codes(*np.array(questions, np.int64).T)
    for (who, when), answer in zip(questions, answers, strict=True):
        mine = sorted((event for event in given_events if event[0] == who), key=lambda event: event[1])
        before = [event for event in mine if event[1] <= when]
        assert answer == (before[-1][2] if before else mine[0][2] if mine else -1)


@pytest.mark.parametrize("calls", [0, 1, 3, 500])
def test_every_picture_can_be_drawn_of_any_trace(folder: Path, calls: int) -> None:
    rows = [{"ts": T0 + at * 1000, "nr": at % 20, "pid": 1, "dur": (at * 7919) % 10**7 if at else 0} for at in range(calls)]
    trace = ringtape.open(make(folder, syscalls=rows))
    distribution = latency_ecdf(trace)
    drawn = [
        plots.ecdf(distribution),
        plots.ccdf(distribution),
        plots.percentiles(distribution),
        plots.heat_map(latency_over_time(trace)),
        mix(syscall_mix(trace)),
    ]
    for figure in drawn:
        figure.canvas.draw()  # type: ignore[attr-defined]
        axes = figure.axes[0]
        assert axes.get_title(loc="left")
        if calls:
            assert axes.get_xlabel()


def test_names_with_dollars_are_no_mathematics(folder: Path) -> None:
    rows = [{"pid": 1, "dur": 5}, {"pid": 2, "dur": 6}]
    events = [{"ts": T0 - 1, "pid": pid, "kind": 1, "comm": b"$x_{%d$" % pid} for pid in (1, 2)]
    trace = ringtape.open(make(folder, syscalls=rows, processes=events))
    plots.ecdf(latency_ecdf(trace, by="command")).canvas.draw()  # type: ignore[attr-defined]
    mix(syscall_mix(trace, by="command")).canvas.draw()  # type: ignore[attr-defined]


def test_the_axis_of_percentiles_reads_90_99_and_so_on(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=[{"pid": 1, "dur": at} for at in range(1, 20_001)]))
    labels = [label.get_text() for label in plots.percentiles(latency_ecdf(trace)).axes[0].get_xticklabels()]
    assert labels == ["0", "50", "90", "99", "99.9", "99.99"]
