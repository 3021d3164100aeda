"""Histograms that are added up against exact values: the stated bound, any order, files, losses."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.histograms import BOUND, Histograms, histograms, merge
from ringtape.cli import main
from ringtape.schemas.errors import RingtapeError, TraceError, UsageError
from tests.factory import make

READ, WRITE = 0, 1
durations = st.one_of(st.integers(2, 300), st.integers(2, 10**7), st.integers(2, 1 << 52), st.integers(1, 52).map(lambda bit: 1 << bit))
calls = st.lists(
    st.fixed_dictionaries({"nr": st.sampled_from([READ, WRITE]), "pid": st.integers(1, 2), "dur": durations, "lost": st.booleans()}), max_size=40
)
ASKED = ("0", "0.5", "0.99", "0.999", "1")


def opened(folder: Path, rows: list[dict[str, Any]], **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=rows, **more))


def nth(values: list[int], q: Fraction) -> int:
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(calls, min_size=3, max_size=3))
def test_added_up_they_are_those_of_all_and_hold_the_exact_quantile_within_the_bound(runs: list[list[dict[str, Any]]]) -> None:
    kept = [[{**row, "lost": False} for row in rows] for rows in runs]
    with tempfile.TemporaryDirectory() as folder:
        parts = [histograms(opened(Path(folder) / str(at), rows)) for at, rows in enumerate(kept)]
        every = [row for rows in kept for row in rows]
        together = histograms(opened(Path(folder) / "all", every))
        path = Path(folder) / "h.parquet"
        (parts[0] + parts[1]).save(path)
        again = Histograms.load(path) + parts[2]
    assert again.counts.equals(together.counts)
    assert merge(reversed(parts)).counts.equals(together.counts)
    for row in again.quantiles(ASKED).iter_rows(named=True):
        mine = [call["dur"] for call in every if ("read", "write")[call["nr"]] == row["syscall"]]
        exact = nth(mine, Fraction(str(row["quantile"])))
        assert row["low"] <= exact <= row["high"]
        assert row["high"] - row["low"] <= row["low"] * BOUND
        assert row["calls"] == len(mine)
        assert exact >= 128 or row["low"] == row["high"]
    assert int(again.counts["sum"].sum()) == sum(row["dur"] for row in every)


@settings(max_examples=30, deadline=None)
@given(calls, calls)
def test_under_losses_the_bounds_hold_the_truth(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        traces = [opened(Path(folder) / str(at), rows) for at, rows in enumerate((first, second))]
        for by, key in (("syscall", "nr"), ("process", "pid")):
            both = histograms(traces[0], by=by) + histograms(traces[1], by=by)  # type: ignore[arg-type]
            for row in both.quantiles(ASKED).iter_rows(named=True):
                group = {"read": READ, "write": WRITE}.get(row[by], row[by])
                mine = [call["dur"] for call in first + second if call[key] == group]
                assert row["low"] <= nth(mine, Fraction(str(row["quantile"]))) <= row["high"]


def test_files_that_are_none_or_lie_are_refused(folder: Path, tmp_path: Path) -> None:
    good = histograms(opened(folder, [{"nr": READ, "pid": 1, "dur": at} for at in (5, 5000)]))
    path = tmp_path / "h.parquet"
    with pytest.raises(TraceError, match="no such file"):
        Histograms.load(path)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(TraceError, match="reading failed"):
        Histograms.load(path)
    good.counts.write_parquet(path)
    with pytest.raises(TraceError, match="no histograms"):
        Histograms.load(path)
    table = good.counts.to_arrow()
    pq.write_table(table.replace_schema_metadata({b"ringtape.histograms": b"2"}), path)
    with pytest.raises(TraceError, match="version 2"):
        Histograms.load(path)
    for change in (pl.col("count") * -1, pl.col("largest") + 10**6, pl.col("bucket") + 1):
        Histograms(good.by, good.counts.with_columns(change)).save(path)
        with pytest.raises(TraceError, match="contradicts"):
            Histograms.load(path)
    Histograms(good.by, good.counts.drop("sum")).save(path)
    with pytest.raises(TraceError, match="columns"):
        Histograms.load(path)
    with pytest.raises(RingtapeError, match="no such file or directory"):
        good.save(tmp_path / "nowhere" / "h.parquet")


def test_what_does_not_add_up_is_refused(folder: Path) -> None:
    trace = opened(folder, [{"nr": READ, "pid": 1, "dur": 5}])
    with pytest.raises(UsageError, match="do not add up"):
        histograms(trace) + histograms(trace, by="process")
    with pytest.raises(UsageError, match="no histograms"):
        merge([])
    for wrong in (2, -0.1, "x"):
        with pytest.raises(UsageError, match="quantile"):
            histograms(trace).quantiles([wrong])


def test_an_empty_trace_adds_nothing(folder: Path, tmp_path: Path) -> None:
    some, none = histograms(opened(folder, [{"nr": READ, "pid": 1, "dur": 5}])), histograms(opened(tmp_path / "empty", []))
    assert (some + none).counts.equals(some.counts)
    assert len(none.quantiles()) == 0


def test_the_verb_keeps_them_and_adds_files_and_traces_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    durations = [[100, 90, 80, 5000], [70, 60], [1 << 20] * 3]
    names = [str(make(tmp_path / f"{at}.trace", syscalls=[{"nr": READ, "pid": 1, "dur": dur} for dur in each])) for at, each in enumerate(durations)]
    kept = str(tmp_path / "kept.parquet")

    def quantiles(*words: str) -> list[tuple[int, float, int, int]]:
        assert main(["histogram", *words, "--format", "csv"]) == 0
        rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
        return [(int(row["calls"]), float(row["quantile"]), int(row["low"]), int(row["high"])) for row in rows]

    assert quantiles(names[0], "--save", kept, "--quantiles", "0.5,1")[0] == (4, 0.5, 90, 90)
    together = quantiles(*names)
    assert (
        quantiles(names[1], kept, names[2])
        == quantiles(kept, names[2], "--by", "syscall", names[1])
        == quantiles(str(tmp_path), "--by", "syscall")
        == together
    )
    every = sorted(dur for each in durations for dur in each)
    for calls, q, low, high in together:
        assert calls == len(every)
        assert low <= nth(every, Fraction(str(q))) <= high <= low * (1 + BOUND)
    for wrong in (("--syscall", "read"), ("--between", "0,1s"), ("--process", "1"), ("--by", "process"), ("--quantiles", "2")):
        assert main(["histogram", kept, *wrong]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "hint: " in captured.err


def test_the_verb_says_what_was_lost_and_is_strict_with_traces_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, kept = str(make(tmp_path / "a.trace", syscalls=[{"nr": READ, "dur": 100, "lost": at % 2} for at in range(8)])), str(tmp_path / "kept")
    assert main(["histogram", trace, "--save", kept]) == 0
    assert "4 calls were lost" in capsys.readouterr().err
    for name in (trace, kept):
        assert main(["histogram", name, "--strict"]) == 1
        assert "4 " in capsys.readouterr().err
