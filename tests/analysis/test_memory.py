"""Memory of processes and waiting for it, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ringtape
from ringtape.analysis.analyses.memory import memory
from ringtape.analysis.analyses.memory import pictures as memory_pictures
from ringtape.analysis.analyses.reclaim import pictures as reclaim_pictures
from ringtape.analysis.analyses.reclaim import reclaim
from ringtape.analysis.residency import over_time
from ringtape.schemas.errors import RingtapeError
from tests.factory import T0, make

SAMPLE, DIRECT, CGROUP, NODE, COMPACTION, OOM = range(6)
FORK, EXEC, EXIT = 1, 2, 3
MMAP, MUNMAP, BRK, MREMAP = 9, 11, 12, 25
S = 1_000_000_000
MB = 1 << 20
Row = dict[str, Any]


def sample(at: int, pid: int, anon: int, **more: Any) -> Row:
    more.setdefault("peak", anon)
    return {"ts": T0 + at, "pid": pid, "anon": anon, "mapped": 10 * MB, "mapped_peak": 10 * MB, **more}


def stall(at: int, dur: int, pid: int, kind: int = DIRECT, **more: Any) -> Row:
    return {"ts": T0 + at, "dur": dur, "pid": pid, "kind": kind, "mapped": MB, **more}


def life(at: int, kind: int, pid: int, **more: Any) -> Row:
    return {"ts": T0 + at, "kind": kind, "pid": pid, "comm": b"p%d" % pid, "start": T0 - pid, **more}


def test_peaks_last_values_and_growth(folder: Path) -> None:
    rows = [
        sample(0, 5, 1 * MB, file=MB),
        sample(1 * S, 5, 3 * MB, file=2 * MB, peak=6 * MB),
        sample(3 * S, 5, 4 * MB, swap=7, mapped=9 * MB, peak=6 * MB),
        sample(4 * S, 5, 2 * MB, shmem=MB, mapped=8 * MB, peak=6 * MB),
    ]
    row = memory(ringtape.open(make(folder, processes=[life(0, FORK, 5)], memory=rows))).row(0, named=True)
    assert (row["command"], row["process"], row["samples"]) == ("p5", 5, 4)
    assert (row["peak"], row["anon"], row["file"], row["shmem"], row["swap"]) == (6 * MB, 3 * MB, 2 * MB, 0, 7)
    assert (row["last"], row["mapped"], row["mapped_peak"]) == (3 * MB, 8 * MB, 10 * MB)
    # 2 MB at first, 3 at last, in 4 s; in the middle, at 2 s, what the sample at 1 s says: 5 MB.
    assert (row["growth_per_s"], row["late_growth_per_s"]) == (MB / 4, -MB)
    assert [row[name] for name in ("mmaps", "mmapped", "munmapped", "heap", "refused")] == [0] * 5


def test_a_rate_of_less_than_a_second_is_none(folder: Path) -> None:
    rows = [sample(0, 5, MB), sample(S - 1, 5, 2 * MB)]
    assert memory(ringtape.open(make(folder, memory=rows)))["growth_per_s"].to_list() == [None]


def test_stalls_and_kills_are_samples_at_their_end_and_rows_without_memory_are_none(folder: Path) -> None:
    rows = [sample(0, 5, MB), stall(10, 100, 5, anon=3 * MB, peak=3 * MB), sample(50, 5, 2 * MB), stall(200, 5, 6, mapped=0)]
    found = memory(ringtape.open(make(folder, memory=rows)))
    assert found.select("process", "peak", "last", "samples").rows() == [(5, 3 * MB, 3 * MB, 3)]


def test_a_number_that_is_used_again_is_another_process(folder: Path) -> None:
    lives = [life(0, FORK, 5), life(50, EXIT, 5), life(100, FORK, 5, start=T0, comm=b"other")]
    rows = [sample(10, 5, MB), sample(110, 5, 2 * MB)]
    found = memory(ringtape.open(make(folder, processes=lives, memory=rows)))
    assert found.select("command", "peak").rows() == [("other", 2 * MB), ("p5", MB)]


def test_what_the_process_of_the_command_was_before_is_left_out(folder: Path) -> None:
    lives, rows = [life(50, EXEC, 5, creator=5)], [sample(10, 5, 9 * MB), sample(60, 5, MB)]
    assert memory(ringtape.open(make(folder, header={"command": ["p5"]}, processes=lives, memory=rows)))["peak"].to_list() == [MB]


def test_calls_that_map_memory(folder: Path) -> None:
    def call(at: int, nr: int, arg0: int, arg1: int, ret: int, pid: int = 5) -> Row:
        return {"ts": T0 + at, "nr": nr, "arg0": arg0, "arg1": arg1, "ret": ret, "pid": pid}

    calls = [
        call(1, MMAP, 0, 5000, 0x7000_0000),
        call(2, MMAP, 0, 4096, -12),
        call(3, MUNMAP, 0x7000_0000, 5000, 0),
        call(4, MUNMAP, 1, 4096, -22),
        call(5, BRK, 0, 0, 0x10000),
        call(6, BRK, 0x30000, 0, 0x30000),
        call(7, BRK, 0x20000, 0, 0x20000),
        call(8, BRK, 0x90000, 0, 0x20000),
        call(9, BRK, 0, 0, 0x80000),
        call(10, BRK, 0x80001, 0, 0x80001),
        call(11, MMAP, 0, 1 << 33, 0x6000_0000, pid=6),
    ]
    rows = [sample(0, 5, MB), sample(0, 6, 2 * MB)]
    found = memory(ringtape.open(make(folder, memory=rows, syscalls=calls)))
    columns = ("process", "mmaps", "mmapped", "munmapped", "heap", "refused")
    # The heap: 0x20000 up, 0x10000 down, one refused, a new program, one byte up.
    assert found.select(columns).rows() == [(6, 1, 1 << 33, 0, 0, 0), (5, 1, 8192, 8192, 0x20001, 3)]


def test_without_calls_recorded_their_numbers_are_unknown(folder: Path) -> None:
    path = make(folder, header={"tables": {"memory": "1.0", "processes": "1.0"}}, memory=[sample(0, 5, MB)])
    assert memory(ringtape.open(path)).select("mmaps", "refused").rows() == [(None, None)]


def test_a_thinned_out_series_keeps_the_highest_of_each_stretch(folder: Path) -> None:
    rows = [sample(at * S // 10 + 1, 5, level) for at, level in enumerate([1, 9, 2, 8, 3, 7, 4, 6, 5, 5])]
    found = over_time(ringtape.open(make(folder, memory=rows)), bins=2)
    assert found["resident"].to_list() == [9, 7]


def test_stalls_by_kind_and_process_with_exact_quantiles(folder: Path) -> None:
    rows = [stall(at, dur, 5, reclaimed=4096) for at, dur in [(1, 30), (100, 10), (200, 20)]]
    rows += [stall(300, 5, 6, CGROUP), stall(400, 7, 5, COMPACTION, result=8), sample(500, 5, MB)]
    found = reclaim(ringtape.open(make(folder, processes=[life(0, FORK, 5), life(0, FORK, 6)], memory=rows)))
    columns = ("what", "command", "count", "time", "p50", "p99", "max", "reclaimed", "since")
    assert found.select(columns).rows() == [
        ("direct reclaim", "p5", 3, 60, 20, 30, 30, 3 * 4096, T0 + 1),
        ("compaction", "p5", 1, 7, 7, 7, 7, 0, T0 + 400),
        ("cgroup reclaim", "p6", 1, 5, 5, 5, 5, 0, T0 + 300),
    ]


def test_each_kill_is_a_row_in_their_order_after_the_stalls(folder: Path) -> None:
    rows = [stall(50, 0, 9, OOM, anon=3 * MB, actor=4), stall(10, 0, 7, OOM, anon=2 * MB, file=MB, actor=8), stall(90, 1, 9)]
    found = reclaim(ringtape.open(make(folder, memory=rows)))
    assert found.select("what", "process", "since", "resident", "by", "p50").rows() == [
        ("direct reclaim", 9, T0 + 90, 0, None, 1),
        ("OOM kill", 7, T0 + 10, 3 * MB, 8, None),
        ("OOM kill", 9, T0 + 50, 3 * MB, 4, None),
    ]


def test_an_unfinished_stall_is_counted_and_no_quantile(folder: Path) -> None:
    rows = [stall(10, 5, 5), stall(20, 1000, 5, unfinished=1, seq=-1)]
    found = reclaim(ringtape.open(make(folder, memory=rows))).row(0, named=True)
    assert (found["count"], found["time"], found["max"], found["unfinished"]) == (2, 1005, 5, 1)


def test_lost_stalls_have_their_time_and_open_the_quantiles_while_lost_samples_do_not(folder: Path) -> None:
    rows = [stall(10, 100, 5), stall(20, 200, 5), stall(30, 300, 5)]
    rows += [sample(40, 5, MB, dur=5000, lost=True), sample(50, 5, MB, lost=True)]  # the ledger knows no kinds, only durations
    found = reclaim(ringtape.open(make(folder, memory=rows)))
    known, lost = sorted(found.iter_rows(named=True), key=lambda row: row["time"])
    assert (lost["what"], lost["count"], lost["time"], lost["process"], lost["since"]) == ("(lost)", 1, 5000, None, T0 + 5040)
    assert (known["what"], known["count"], known["p50"], known["p50_low"], known["p50_high"]) == ("direct reclaim", 3, None, 100, 200)
    assert (known["max_low"], known["max_high"]) == (300, (1 << 63) - 1)


def test_an_empty_table_gives_empty_results_and_a_picture_that_says_so(folder: Path) -> None:
    trace = ringtape.open(make(folder))
    assert memory(trace).is_empty()
    assert reclaim(trace).is_empty()
    assert [picture.name for picture in memory_pictures(trace)] == ["memory-resident", "memory-mapped"]
    assert list(reclaim_pictures(trace)) == []


def test_pictures_name_what_they_show(folder: Path) -> None:
    lives = [life(0, FORK, pid, comm=b"$a_b$") for pid in range(1, 10)]
    rows = [sample(pid, pid, pid * MB) for pid in range(1, 10)] + [stall(10, 5, 9), stall(20, 0, 9, OOM, anon=MB)]
    trace = ringtape.open(make(folder, processes=lives, memory=rows))
    resident, mapped, kinds = memory_pictures(trace)
    labels = [text.get_text() for text in resident.figure.axes[0].get_legend().get_texts()]
    assert labels == [*(f"$a_b$ {pid}" for pid in range(9, 2, -1)), "OOM kill"]
    assert "the 7 of 9 processes" in resident.figure.texts[0].get_text()
    assert mapped.name == "memory-mapped"
    assert kinds.figure.axes[0].get_title(loc="left") == "Memory of $a_b$ 9 by kind"
    (picture,) = reclaim_pictures(trace)
    assert [text.get_text() for text in picture.figure.axes[0].get_legend().get_texts()] == ["direct reclaim: 1 stalls, 5e-06 ms", "OOM kill of 9"]


def test_without_the_table_the_error_says_how_to_record_it(folder: Path) -> None:
    trace = ringtape.open(make(folder, header={"tables": {"processes": "1.0"}}))
    for analysis in (memory, reclaim):
        with pytest.raises(RingtapeError, match="memory") as caught:
            analysis(trace)
        assert "--tables memory" in str(caught.value)
