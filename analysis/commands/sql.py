"""Ask questions in SQL over all tables of a trace, or of several."""

from __future__ import annotations

import argparse
import sys

EPILOG = """Each recorded table has its name, its columns are what is stored (times and durations in ns) and what the codes mean: syscall,
errno, comm, kind_name and so on; --tables lists them all. A recorded tracepoint is a table named in double quotes, such as
"sched:sched_process_exit". Of several traces, every table has the column run. The dialect is that of polars: joins, WITH,
window functions, quantile_disc. Nothing is written, and nothing but the traces is read.

examples:
  ringtape sql TRACE "select syscall, count(*) as calls, sum(dur) / 1e6 as ms from syscalls group by syscall order by ms desc limit 10"
  ringtape sql TRACE "select comm, errno, count(*) as n from syscalls where errno is not null group by comm, errno order by n desc"
  ringtape sql a.trace b.trace "select run, quantile_disc(dur, 0.99) as p99 from syscalls where syscall = 'fsync' group by run"
"""
SHOWN = 1000
WRITTEN = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    from ringtape.analysis.render import FORMATS
    from ringtape.analysis.verb import add_narrowing, options_anywhere

    options_anywhere(parser)
    parser.epilog = EPILOG.replace("%", "%%")
    parser.add_argument("words", metavar="TRACE ... QUERY", nargs="+", help="trace folders, and behind them the query (`-`: from standard input)")
    parser.add_argument("--tables", action="store_true", help="list tables and columns instead; no query is given")
    add_narrowing(parser)
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"rows that are written at most; that there are more is said (default: {SHOWN:,}, and {WRITTEN:,} as csv, json and parquet)",
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the result (default: table)")
    parser.add_argument("--output", metavar="FILE", help="write the result to this file")
    parser.add_argument("--strict", action="store_true", help="refuse a trace in which anything was lost")


def run(args: argparse.Namespace) -> int:
    """Answer the query."""
    from ringtape.analysis.registry import Analysis, Result
    from ringtape.analysis.render import write
    from ringtape.analysis.runs import Runs, open_all
    from ringtape.analysis.sql import DESCRIPTION, check_query, describe, plain, sql
    from ringtape.analysis.verb import loss_sentence, narrowed
    from ringtape.schemas.errors import RingtapeError, UsageError
    from ringtape.schemas.escape import escape

    *paths, query = (*args.words, "") if args.tables else args.words
    if not paths:
        raise UsageError(
            "a trace and a query are needed", 'write `ringtape sql TRACE "select ..."`; `ringtape sql TRACE --tables` lists what there is'
        )
    if args.limit is not None and args.limit < 0:
        raise UsageError(f"--limit {args.limit} is negative", "name how many rows to write")
    if not args.tables:
        query = sys.stdin.read() if query == "-" else query
        check_query(query)
    traces = list(narrowed(open_all(paths), args))
    sentences = [(trace, loss_sentence(trace)) for trace in traces]
    for trace, lost in sentences:
        if lost and args.strict:
            raise RingtapeError(f"{trace.path}: {lost}", "leave --strict out to ask of what was recorded")
    asked = traces[0] if len(traces) == 1 else Runs(traces)
    if args.tables:
        columns = [Result(name, kind, name, "count" if name == "rows" else "") for name, kind in DESCRIPTION.items()]
        write(describe(asked), Analysis("sql", describe, (), tuple(columns), (), False), args.format, args.output)
        return 0
    most = args.limit if args.limit is not None else SHOWN if args.format in ("table", "markdown") else WRITTEN
    result = sql(asked, query, limit=most + 1)
    shown = result.head(most)
    write(shown if args.format == "parquet" else plain(shown, args.format), Analysis("sql", sql, (), (), (), False, True), args.format, args.output)
    if len(result) > most:
        print(f"ringtape: note: there are more rows than the {most:,} of the limit; --limit N writes more of them", file=sys.stderr)
    for trace, lost in sentences:
        if lost:
            place = f"{escape(str(trace.path))}: " if len(traces) > 1 else ""
            print(f"ringtape: note: {place}{lost}: the query saw only what was recorded; `ringtape loss` tells what is missing", file=sys.stderr)
    return 0
