"""A window of time, chosen processes, several runs: what belongs to them, and that the parts add up to the whole."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis import registry
from ringtape.analysis.analyses.cpu import cpu
from ringtape.analysis.analyses.latency import latency
from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.offcpu import offcpu
from ringtape.analysis.analyses.processes import processes
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.analyses.timeline import timeline
from ringtape.analysis.runs import Runs
from ringtape.cli import main
from ringtape.schemas.errors import RingtapeError, TraceError, UsageError
from tests.factory import T0, make

FAMILIES = "datasets/families.trace"
READ, WRITE = 0, 1


def call(at, pid=7, nr=READ, **more):
    return {"ts": T0 + at, "pid": pid, "nr": nr, "dur": 10, **more}


@pytest.fixture
def trace(folder):
    """Process 7 is a, then b from 500 on, with a second thread; 8 is c."""
    events = [
        {"ts": T0, "pid": 7, "kind": 1, "comm": b"a"},
        {"ts": T0 + 1, "pid": 7, "tid": 9, "kind": 1, "comm": b"worker"},
        {"ts": T0 + 500, "pid": 7, "kind": 2, "comm": b"b"},
        {"ts": T0 + 10, "pid": 8, "kind": 1, "comm": b"c"},
    ]
    calls = [call(100), call(200, 8), call(300, tid=9), call(600), call(700, tid=9), call(800, 8, WRITE)]
    return ringtape.open(make(folder, syscalls=calls, processes=events, parts=3))


def times(trace):
    return [ts - T0 for ts in trace.collect(trace.syscalls.select("ts").sort("ts"))["ts"]]


def test_a_window_holds_its_start_and_not_its_end(trace):
    assert times(trace.between("100ns", "600ns")) == [100, 200, 300]
    assert times(trace.between(600)) == [600, 700, 800]
    assert times(trace.between(None, "0.2us")) == [100]
    assert times(trace.between(200, None).between(None, 700)) == [200, 300, 600]
    assert times(trace.between(5000, 6000)) == []
    assert trace.between(100, 600).span == (T0 + 100, T0 + 600)


def test_windows_that_cannot_be_are_refused(trace):
    for window in (("2s", "1s"), (5, 5)):
        with pytest.raises(UsageError, match="ends before it begins"):
            trace.between(*window)
    with pytest.raises(UsageError, match="'soon' is not a duration"):
        trace.between("soon")


def test_a_process_is_named_as_its_first_thread_is_at_the_time(trace):
    assert times(trace.process("a")) == [100, 300]
    assert times(trace.process("b")) == [600, 700]
    assert times(trace.process("c", "b")) == [200, 600, 700, 800]
    assert times(trace.process(8)) == times(trace.process("8")) == [200, 800]
    assert times(trace.process(8, "a")) == [100, 200, 300, 800]
    assert times(trace.process("b").between(650)) == times(trace.between(650).process("b")) == [700]
    assert times(trace.process(4711)) == []


def test_processes_chosen_twice_are_those_chosen_both_times(trace):
    assert times(trace.process("a", "b").process("b", "c")) == times(trace.process("b"))
    assert times(trace.process("a", "b").process(7)) == times(trace.process("a", "b"))
    assert times(trace.process(8).process("a")) == []
    assert times(trace.process("c").between(500).process(8)) == times(trace.between(500).process("c")) == [800]
    assert latency(trace.process(8).process("a")).is_empty()


def test_a_name_that_nobody_bore_is_refused_with_close_ones(trace):
    with pytest.raises(RingtapeError, match="no process was named 'worke'") as found:
        trace.process("worke")
    assert "worker" in found.value.hint
    with pytest.raises(UsageError, match="no process was named"):
        trace.process()


def test_what_lasts_is_known_from_before_the_window(trace):
    late = trace.between(650)
    assert trace.collect(late.syscalls.select("comm"))["comm"].to_list() == ["worker", "c"]
    assert processes(trace.process("c"))["calls"].to_list() == [2]


def lossy(folder):
    rows = [
        {"ts": T0 + 100, "until": T0 + 200, "count": 5, "sum": 5000, "nr": READ, "abi": 1, "bucket": 9, "cause": 0, "table": "syscalls"},
        {"ts": T0 + 900, "until": T0 + 1100, "count": 3, "sum": 3000, "nr": READ, "abi": 1, "bucket": 9, "cause": 0, "table": "syscalls"},
    ]
    return ringtape.open(make(folder, syscalls=[call(at) for at in (150, 950, 1050)], losses=rows))


def test_losses_inside_a_window_count_exactly_and_those_across_its_edge_may_belong_to_it(folder):
    trace = lossy(folder)
    assert trace.lost() == {"syscalls": 8}
    first = trace.between(None, 500)
    assert first.lost() == {"syscalls": 5}
    assert syscall_mix(first).select("syscall", "calls", "time", "lost").rows() == [("read", 6, 5010, 5)]
    low, high = latency(first).select("p50_low", "p50_high").row(0)
    assert (low, high) == (512, 1023)
    across = trace.between(1000)
    assert across.lost() == {"syscalls": 3}
    assert set(syscall_mix(across).select("syscall", "calls", "lost").rows()) == {("read", 1, 0), ("unknown (-1)", 3, 3)}
    assert latency(across).select("p50_low", "p50_high").row(0) == (10, 1023)
    assert trace.between(300, 400).lost() == {}


def test_lost_calls_may_be_of_any_process(folder):
    trace = lossy(folder).process(7)
    assert set(syscall_mix(trace).select("syscall", "calls", "lost").rows()) == {("read", 3, 0), ("unknown (-1)", 8, 8)}
    assert latency(trace).select("p50_low", "p50_high").row(0) == (10, 1023)


CUTS = st.lists(st.integers(0, 1_300_000_000), max_size=4, unique=True).map(lambda cuts: [None, *sorted(cuts), None])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CUTS)
def test_windows_side_by_side_add_up_to_the_whole(cuts):
    whole = ringtape.open(FAMILIES)
    windows = [whole.between(*edges) for edges in pairwise(cuts)]

    def together(analysis, keys, values):
        one = pl.concat([analysis(window).select(*keys, *values) for window in windows]).group_by(keys).agg(pl.col(values).sum())
        return one.filter(pl.any_horizontal(pl.col(values) != 0)).sort(keys, nulls_last=True).rows()

    def alone(analysis, keys, values):
        found = analysis(whole).select(*keys, *values).group_by(keys).agg(pl.col(values).sum())
        return found.filter(pl.any_horizontal(pl.col(values) != 0)).sort(keys, nulls_last=True).rows()

    for analysis, keys, values in (
        (syscall_mix, ["syscall"], ["calls", "time", "errors"]),
        (lambda trace: ledger(trace, by="thread"), ["thread", "where", "syscall", "reason"], ["time"]),
        (lambda trace: cpu(trace, by="thread"), ["thread"], ["occupied", "voluntary", "involuntary", "migrations"]),
        (lambda trace: offcpu(trace, by="thread"), ["thread", "state", "syscall"], ["time"]),
        (timeline, ["thread", "what", "cpu"], ["time"]),
    ):
        assert together(analysis, keys, values) == alone(analysis, keys, values)


def test_the_ledger_of_a_window_is_as_long_as_the_window():
    trace = ringtape.open(FAMILIES)
    seen = timeline(trace)
    begin, end = int(seen["start"].min()), int((seen["start"] + seen["time"]).max())
    since, until = (begin + (end - begin) * part // 4 - trace.header.attached_at for part in (1, 3))
    spans = ledger(trace.between(since, until), by="thread").group_by("thread").agg(pl.col("time").sum())
    assert max(spans["time"]) == until - since
    assert min(spans["time"]) > 0


@pytest.mark.parametrize("name", registry.names())
def test_every_analysis_of_a_part_answers_or_says_that_it_cannot(name):
    analysis = registry.get(name)
    trace = ringtape.open(FAMILIES)
    for part, narrows in ((trace.between("600ms", "900ms"), "time"), (trace.process("python3"), "process")):
        if narrows in analysis.narrows:
            result = analysis.function(part, **({"event": "sched:sched_process_wait", "field": "prio"} if name == "event_hist" else {}))
            assert set(result.columns) >= {column.name for column in analysis.columns}
        else:
            with pytest.raises(UsageError, match="cannot be narrowed"):
                analysis.function(part)


def test_the_rows_of_a_process_are_those_that_grouping_by_process_shows():
    trace = ringtape.open(FAMILIES)
    pid = int(trace.collect(trace.syscalls.group_by("pid").len().sort("len", descending=True).head(1))["pid"][0])
    for analysis in (syscall_mix, latency):
        alone = analysis(trace.process(pid), by=("process", "syscall")).drop("share_calls", "share_time", strict=False)
        among = analysis(trace, by=("process", "syscall")).filter(pl.col("process") == pid).drop("share_calls", "share_time", strict=False)
        assert alone.sort("syscall").equals(among.sort("syscall"))


def test_several_runs_are_one_frame_and_one_result_with_a_column_that_tells_them_apart(tmp_path):
    for name, calls in (("b1", 1), ("b2", 3), ("a", 2)):
        make(tmp_path / f"{name}.trace", syscalls=[call(at) for at in range(calls)])
    runs = ringtape.open(str(tmp_path / "b*.trace"))
    assert isinstance(runs, Runs)
    assert runs.names == ["b1.trace", "b2.trace"]
    assert runs.syscalls.group_by("run").len().sort("run").collect().rows() == [("b1.trace", 1), ("b2.trace", 3)]
    assert syscall_mix(runs).select("run", "syscall", "calls").rows() == [("b1.trace", "read", 1), ("b2.trace", "read", 3)]
    assert syscall_mix(runs.between(1)).select("run", "calls").rows() == [("b2.trace", 2)]
    assert len(ringtape.open([tmp_path / "a.trace", str(tmp_path / "b*.trace")])) == 3
    with pytest.raises(TraceError, match="no trace folder fits"):
        ringtape.open(str(tmp_path / "c*.trace"))
    with pytest.raises(UsageError, match="no trace was named"):
        ringtape.open([])


def test_a_folder_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    assert ringtape.open(make(tmp_path / "a[1].trace")).path.name == "a[1].trace"


def test_the_command_line_narrows_and_takes_several_traces(tmp_path, capsys):
    paths = [str(make(tmp_path / f"{name}.trace", syscalls=[call(1), call(2000, 8)])) for name in "ab"]
    assert main(["syscall-mix", *paths, "--between", "1us,", "--process", "8", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[:3] for line in lines] == [["run", "syscall", "calls"], ["a.trace", "read", "1"], ["b.trace", "read", "1"]]
    for wrong in ("1s", ",", "2s,1s"):
        assert main(["latency", paths[0], f"--between={wrong}"]) == 2
    assert "ends before it begins" in capsys.readouterr().err
