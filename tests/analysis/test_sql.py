"""SQL over traces: what it answers, what it refuses, and how it says so."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape import cli
from ringtape.analysis.sql import describe, sql
from ringtape.schemas.errors import RingtapeError, UsageError
from tests.factory import T0, make

EVENTS = [{"ts": T0, "pid": 5, "kind": 1, "comm": b"five"}, {"ts": T0, "pid": 6, "kind": 1, "comm": b"s\x1bx"}]
CALLS = [
    {"ts": T0 + 1, "nr": 0, "pid": 5, "dur": 10, "ret": 1},
    {"ts": T0 + 2, "nr": 1, "pid": 5, "dur": 20, "ret": -2},
    {"ts": T0 + 3, "nr": 0, "pid": 6, "dur": 30, "ret": -11},
]
PATHS = [{"ts": T0 + 2, "pid": 5, "nr": 1, "value": b"/a\xff"}]


@pytest.fixture
def trace(folder: Path) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=CALLS, processes=EVENTS, paths=PATHS))


def test_names_are_decoded(trace: ringtape.Trace) -> None:
    found = sql(trace, "select syscall, comm, errno, dur from syscalls order by ts")
    assert found.rows() == [("read", "five", None, 10), ("write", "five", "ENOENT", 20), ("read", "s\\x1bx", "EAGAIN", 30)]


def test_tables_are_joined(trace: ringtape.Trace) -> None:
    found = sql(trace, "select s.syscall, p.value from syscalls s join paths p on s.tid = p.tid and s.ts = p.ts")
    assert found.rows() == [("write", b"/a\xff")]


def test_a_recorded_tracepoint_is_a_table(event_trace: ringtape.Trace) -> None:
    assert sql(event_trace, 'select event_comm, pid from "sched:sched_process_wait" order by event_ts').rows() == [("sh", 101), ("sh", 0)]


def test_sums_of_narrow_columns_do_not_overflow(folder: Path) -> None:
    rows = [{"pid": (1 << 31) - 1, "nr": 0}] * 3
    assert sql(ringtape.open(make(folder, syscalls=rows)), "select sum(pid) from syscalls").item() == 3 * ((1 << 31) - 1)


def test_several_traces_have_the_column_run(tmp_path: Path) -> None:
    make(tmp_path / "a", syscalls=CALLS, sched=[{"pid": 5, "run": 9}])
    make(tmp_path / "b", syscalls=CALLS[:1], header={"tables": {"syscalls": "1.1"}})
    both = ringtape.open([tmp_path / "a", tmp_path / "b"])
    assert sql(both, "select run, count(*) as n from syscalls group by run order by run").rows() == [("a", 3), ("b", 1)]
    assert sql(both, "select run, sched_run from sched").rows() == [("a", 9)]


def test_an_empty_trace_answers(folder: Path) -> None:
    trace = ringtape.open(make(folder))
    assert sql(trace, "select count(*) as n, sum(dur) as t from syscalls").rows() == [(0, None)]
    assert sql(trace, "select syscall from syscalls group by syscall").rows() == []


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('{file}')",
        "select * from READ_CSV ('{file}')",
        "select * from \"read_csv\"('{file}')",
        "select * from `read_csv`('{file}')",
        "select * from read_csv /* '*/ ('{file}')",
        "select * from read_csv -- x\n('{file}')",
        "select * from syscalls where ts in (select a from read_csv('{file}'))",
        "with x as (select * from read_parquet('{file}')) select * from x",
        "select * from read_ndjson('{file}')",
        "select * from read_ipc('{file}')",
        "select * from '{file}'",
        'select * from "{file}"',
        "create table x as select 1",
        "with x as (select 1) insert into x select 2",
        "drop table syscalls",
        "truncate table syscalls",
        "delete from syscalls where true",
        "update syscalls set dur = 1",
        "copy syscalls to '{file}'",
        "select 1; drop table syscalls",
        "explain create table x as select 1",
        "select * into x from syscalls",
        "show tables",
        "",
        "  -- nothing",
        "/* open",
        "selec 1",
    ],
)
def test_what_reads_other_files_writes_or_is_no_question_is_refused(trace: ringtape.Trace, tmp_path: Path, query: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError):
        sql(trace, query.replace("{file}", str(file)))
    assert file.read_text() == "a,b\n1,2\n"


def test_the_plan_is_refused_if_it_reads_another_file_whatever_the_words_were(
    trace: ringtape.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, write in (("x.parquet", pl.DataFrame.write_parquet), ("x.csv", pl.DataFrame.write_csv)):
        write(pl.DataFrame({"a": [1]}), tmp_path / name)
    monkeypatch.setattr("ringtape.analysis.sql.check_query", lambda query: None)
    for name in ("parquet", "csv"):
        with pytest.raises(UsageError, match="another file"):
            sql(trace, f"select * from read_{name}('{tmp_path / f'x.{name}'}')")


def test_words_in_texts_and_quoted_names_are_no_commands(trace: ringtape.Trace) -> None:
    assert sql(trace, "select 'read_csv(''x''); drop' as \"delete\";").rows() == [("read_csv('x'); drop",)]


@pytest.mark.parametrize(
    ("query", "what", "hint"),
    [
        ("select * from sycalls", "there is no table 'sycalls'", "did you mean syscalls"),
        ("select sycall from syscalls", "there is no column 'sycall'", "syscall (syscalls)"),
        ("select s.durr from syscalls s", "there is no column 'durr'", "dur (syscalls)"),
        ("select zzzzzz from syscalls", "there is no column 'zzzzzz'", "--tables"),
        ("select user from samples", "user is a word of SQL", 'written "user"'),
        ("select foo(dur) from syscalls", "unsupported function 'foo'", "polars"),
        ("select cast('a' as int)", "cannot be answered", "polars"),
    ],
)
def test_errors_say_what_is_not_there_and_what_is(trace: ringtape.Trace, query: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        sql(trace, query)
    assert what in caught.value.what
    assert hint in str(caught.value.hint)
    assert "\n" not in caught.value.what


def test_a_table_that_was_not_recorded_is_named(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=CALLS, header={"tables": {"syscalls": "1.1"}}))
    with pytest.raises(RingtapeError, match="'sched' was not recorded"):
        sql(trace, "select * from sched")


def test_every_column_of_every_table_is_described_as_it_is(trace: ringtape.Trace) -> None:
    described = describe(trace)
    assert described.filter(pl.col("meaning") == "").is_empty()
    for table, rows in described.group_by("table"):
        found = sql(trace, f"select * from {table[0]}")
        assert rows["column"].to_list() == found.columns
        assert rows["type"].to_list() == [str(kind) for kind in found.dtypes]


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_every_format(trace: ringtape.Trace, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    query = "select ts, value from paths"
    assert run("sql", trace.path, query, "--format", "csv") == 0
    assert capfd.readouterr().out == f"ts,value\n{T0 + 2},/a\\xff\n"
    assert run("sql", trace.path, "--format", "json", query) == 0
    assert json.loads(capfd.readouterr().out) == [{"ts": T0 + 2, "value": "/a\\xff"}]
    assert run("sql", trace.path, query, "--format", "markdown") == 0
    assert f"| {T0 + 2} | /a\\xff |" in capfd.readouterr().out
    assert run("sql", trace.path, query, "--format", "parquet", "--output", tmp_path / "x") == 0
    assert pl.read_parquet(io.BytesIO((tmp_path / "x").read_bytes())).rows() == [(T0 + 2, b"/a\xff")]
    assert run("sql", trace.path, "select comm from syscalls where pid = 6") == 0
    assert "\x1b" not in capfd.readouterr().out


def test_more_rows_than_the_limit_are_said(trace: ringtape.Trace, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("sql", trace.path, "select ts from syscalls", "--limit", 2, "--format", "csv") == 0
    found = capfd.readouterr()
    assert len(found.out.splitlines()) == 3
    assert "more rows than the 2" in found.err
    assert run("sql", trace.path, "select ts from syscalls", "--limit", 3) == 0
    assert capfd.readouterr().err == ""


def test_narrowing_and_options_between_the_words(trace: ringtape.Trace, capfd: pytest.CaptureFixture[str]) -> None:
    query = "select sum(dur) as t from syscalls"
    assert run("sql", trace.path, "--process", "five", query, "--format", "csv") == 0
    assert run("sql", trace.path, "--between", "2ns,", query, "--format", "csv") == 0
    assert capfd.readouterr().out.split() == ["t", "30", "t", "50"]


def test_what_was_lost_is_said_and_strict_refuses(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = make(folder, syscalls=[*CALLS, {"ts": T0 + 9, "nr": 0, "pid": 5, "lost": True}])
    assert run("sql", path, "select count(*) from syscalls") == 0
    assert "1 record of syscalls lost: the query saw only what was recorded" in capfd.readouterr().err
    assert run("sql", path, "select count(*) from syscalls", "--strict") == 1


@pytest.mark.parametrize("arguments", [[], ["--tables"], ["--limit", "-1", "select 1"]])
def test_usage_errors(folder: Path, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    path = make(folder)
    assert run("sql", *([path] if arguments != ["--tables"] else []), *arguments) == 2
    assert "hint:" in capfd.readouterr().err


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "nr": st.sampled_from([0, 1, 257]),
                "pid": st.sampled_from([10, 11]),
                "dur": st.integers(0, 10**12),
                "ret": st.sampled_from([0, -2, -11]),
            }
        ),
        max_size=40,
    )
)
def test_the_same_question_to_duckdb_over_the_same_files_has_the_same_answer(rows: list[dict[str, Any]]) -> None:
    queries = [
        "select nr, count(*) as n, sum(dur) as t, min(dur) as lo, max(dur) as hi from {} group by nr order by nr",
        "select pid, nr, quantile_disc(dur, 0.5) as m from {} group by pid, nr order by pid, nr",
        "select tid, ts, ts - lag(ts) over (partition by tid order by ts) as d from {} order by tid, ts",
        "with x as (select pid, sum(dur) as t from {} group by pid) select count(*) as n from x where t > 1000",
        "select ret < 0 as failed, count(distinct pid) as p from {} group by 1 order by 1",
    ]
    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name) / "t", syscalls=rows, parts=3)
        trace = ringtape.open(path)
        for query in queries if rows else []:
            theirs = duckdb.sql(query.format(f"'{path}/syscalls/*.parquet'")).fetchall()
            assert sql(trace, query.format("syscalls")).rows() == theirs
