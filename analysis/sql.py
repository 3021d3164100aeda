"""SQL over the tables of traces, by the engine inside of polars; nothing but the traces can be read, and nothing written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches

import polars as pl

from ringtape.analysis.runs import RUN, Runs
from ringtape.analysis.trace import Trace
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RingtapeError, TraceError, UsageError
from ringtape.schemas.escape import escape
from ringtape.schemas.table import tables as declared_tables

_TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\n]*|/\*)|(?P<text>[eE]?'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`)|(?P<word>[^\W\d]\w*)|(?P<other>.)""",
    re.DOTALL,
)
_LIST = "`ringtape sql TRACE --tables` lists them"
_ELSEWHERE = f"a query sees the tables of its traces only; {_LIST}"
_BEGIN = ("select", "with", "from", "values", "explain")
_FILES = re.compile(r"(?:read|scan)_\w+", re.IGNORECASE)
_SCAN = re.compile(r"(\w+) SCAN \[([^\n\]]*)")
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)
DESCRIPTION = pl.Schema({"table": pl.String, "rows": pl.Int64, "column": pl.String, "type": pl.String, "unit": pl.String, "meaning": pl.String})


def sql(traces: Trace | Runs, query: str, *, limit: int | None = None) -> pl.DataFrame:
    """Answer a question in SQL.

    Parameters
    ----------
    traces : Trace or Runs
        One recording, or several: each table then has the column ``run``, the name of the trace, before its own; a column
        of that name in the table itself is then called ``<table>_run``.
    query : str
        One SELECT (WITH, VALUES, EXPLAIN) in the dialect of polars. Each recorded table has its name, and its columns are
        those of the trace's frames: what is stored, in ns, and beside it what the codes mean (``syscall``, ``errno``,
        ``comm``, ``kind_name`` ...). Each recorded tracepoint is a table too, with its name in double quotes.
    limit : int, optional
        Rows that are returned at most.

    Returns
    -------
    DataFrame
        What was asked for. Integer columns have 64 bits, so that sums do not overflow.

    Raises
    ------
    UsageError
        If the query cannot be understood, names what is not there, would write, or would read another file.
    TraceError
        If the trace cannot be read.

    Notes
    -----
    Only rows that were recorded are seen: where records were lost, counts and sums are too small by what the table ``losses``
    and the analysis ``loss`` tell.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.sql import sql
    >>> trace = ringtape.open("datasets/demo.trace")
    >>> sql(trace, "select syscall, count(*) as calls from syscalls group by syscall order by calls desc limit 2").rows()
    [('read', 35318), ('write', 33079)]
    """
    check_query(query)
    if limit is not None and limit < 0:
        raise UsageError(f"the limit of {limit} rows is negative", "give the number of rows to return at most")
    known = frames(traces)
    context = pl.SQLContext(frames=known, register_globals=False)
    try:
        found = context.execute(query, eager=False)
        _check_plan(found, traces)
        bounded = found if limit is None else found.head(limit)
        return bounded.collect(engine="streaming")
    except pl.exceptions.PanicException as error:
        raise UsageError(f"the SQL engine failed on this query: {_first(error)}", "write it differently") from None
    except pl.exceptions.PolarsError as error:
        raise _explained(error, known, query) from None
    except OSError as error:
        raise TraceError(f"reading failed: {_first(error)}") from None


def frames(traces: Trace | Runs) -> dict[str, pl.LazyFrame]:
    """Return the frame of each table that a query may name.

    Of several traces, a table that only some of them hold has the rows of those.
    """
    named = list(traces.named()) if isinstance(traces, Runs) else [(None, traces)]
    names = [name for name in declared_tables() if any(name in trace.tables for _, trace in named)]
    found = {}
    for name in names:
        parts = [_run(trace.frame(name), run, name) for run, trace in named if name in trace.tables]
        found[name] = _wide(pl.concat(parts) if len(parts) > 1 else parts[0])
    for event in dict.fromkeys(event for _, trace in named if "events" in trace.tables for event in trace.events):
        parts = [_run(trace.event(event), run, event) for run, trace in named if "events" in trace.tables and event in trace.events]
        # The fields of a tracepoint may differ between kernels.
        found[event] = _wide(pl.concat(parts, how="diagonal_relaxed") if len(parts) > 1 else parts[0])
    return found


def describe(traces: Trace | Runs) -> pl.DataFrame:
    """Return every table and column that a query may name.

    Returns
    -------
    DataFrame
        ``table``, ``rows`` (stored, before any narrowing; null for tracepoints), ``column``, ``type`` (of polars), ``unit``,
        ``meaning``.
    """
    every = list(traces) if isinstance(traces, Runs) else [traces]
    rows = []
    for name, frame in frames(traces).items():
        table = declared_tables().get(name)
        stored = {column.name: column for column in table.columns} if table else {}
        units = {field.name: _unit(field.metadata) for field in arrow_schema(table)} if table else {}
        count = sum(trace.rows(name) for trace in every if name in trace.tables) if table else None
        for column, kind in frame.collect_schema().items():
            meaning = stored[column].doc if column in stored else _decoded(column, table is None)
            rows.append((name, count, column, str(kind), units.get(column, ""), meaning))
    return pl.DataFrame(rows, schema=DESCRIPTION, orient="row")


def _unit(metadata: dict[bytes, bytes] | None) -> str:
    return (metadata or {}).get(b"unit", b"").decode()


def _decoded(column: str, event: bool) -> str:
    if column == RUN:
        return "name of the trace folder"
    if column.endswith(f"_{RUN}"):
        return "the column `run` of the table itself"
    if column == "comm":
        return "command name in force at ts, as text"
    if column.endswith("_name"):
        return f"what {column.removesuffix('_name')} means"
    known = {"syscall": "name of the call", "errno": "name of the error; null where the call did not fail"}
    known |= {"local": "local address, as text", "peer": "address of the peer, as text"}
    return known.get(column, "field of the tracepoint" if event else "")


def _run(frame: pl.LazyFrame, run: str | None, name: str) -> pl.LazyFrame:
    if run is None:
        return frame
    # A table may have a column of that name: queries that join tables need one name for the run in all of them.
    own = {RUN: f"{re.sub('[^a-z0-9_]', '_', name)}_{RUN}"} if RUN in frame.collect_schema() else {}
    return frame.rename(own).select(pl.lit(run).alias(RUN), pl.all())


def _wide(frame: pl.LazyFrame) -> pl.LazyFrame:
    # A sum of 32-bit integers has 32 bits in polars, and overflows without a word.
    narrow = [name for name, kind in frame.collect_schema().items() if kind in _INTEGERS]
    return frame.with_columns(pl.col(narrow).cast(pl.Int64)) if narrow else frame


def check_query(query: str) -> None:
    """Refuse what is no single question, and what would read other files.

    Raises
    ------
    UsageError
        With the reason.
    """
    words = [(kind, text) for kind, text in _tokens(query) if not (kind == "other" and text == "(")]
    if not words:
        raise UsageError("the query is empty", 'write one such as "select syscall, count(*) from syscalls group by syscall"')
    first = words[0][1].lower()
    if first not in _BEGIN:
        raise UsageError(
            f"a query begins with SELECT or WITH, not {words[0][1]!r}", "nothing is written or changed by `ringtape sql`; ask with SELECT"
        )
    tokens = list(_tokens(query))
    ends = [at for at, token in enumerate(tokens) if token == ("other", ";")]
    if ends and ends[0] != len(tokens) - 1:
        raise UsageError("there is more than one statement", "ask one question at a time")
    for (kind, text), following in zip(tokens, [*tokens[1:], ("other", "")], strict=True):
        name = text[1:-1] if kind == "quoted" else text
        if kind in ("word", "quoted") and _FILES.fullmatch(name) and following == ("other", "("):
            raise UsageError(f"{name}() would read another file", _ELSEWHERE)
    changing = {"insert", "update", "delete", "create", "drop", "truncate", "copy", "into", "alter", "merge"}
    for kind, text in tokens:
        if kind == "word" and text.lower() in changing:
            raise UsageError(f"{text.upper()} would write", f'ask with SELECT; a column or table of that name is written "{text}"')


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        assert found is not None  # `other` takes any character
        at = found.end()
        if found["blank"] == "/*":
            at = _after_comment(query, at)
        elif found["blank"] is None:
            yield str(found.lastgroup), found[0]


def _after_comment(query: str, at: int) -> int:
    """Return where a comment ends, which may hold others."""
    depth = 1
    for mark in re.finditer(r"/\*|\*/", query[at:]):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return at + mark.end()
    raise UsageError("a comment (/*) does not end", "end it with */")


def _check_plan(found: pl.LazyFrame, traces: Trace | Runs) -> None:
    """Refuse a plan that reads anything but the parts of the traces: what the words of a query hide, its plan shows."""
    folders = [str(trace.path) for trace in (traces if isinstance(traces, Runs) else [traces])]
    for kind, files in _SCAN.findall(found.explain(optimized=False)):
        if kind.lower() != "parquet" or not files.startswith((*(f"{folder}/" for folder in folders), "/proc/self/fd/")):
            raise UsageError("the query would read another file", _ELSEWHERE)


def _explained(error: pl.exceptions.PolarsError, known: dict[str, pl.LazyFrame], query: str) -> RingtapeError:
    text = _first(error)
    missing = re.search(r"relation '([^']*)' was not found", text)
    if missing:
        name = missing[1]
        if name in declared_tables():
            return RingtapeError(
                f"table {name!r} was not recorded", f"record again with `--tables {name}` among the others; there are {', '.join(known)}"
            )
        close = get_close_matches(name.lower(), known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(list(known)[:24])}"
        return UsageError(f"there is no table {name!r}", hint)
    asked = {text.strip('"`').lower() for _, text in _tokens(query)}
    order = sorted(known, key=lambda table: table.lower() in asked)  # those that the query names have the last word
    columns = {column: table for table in order for column in known[table].collect_schema().names()}
    missing = re.search(r"(?:unable to find column|column not found:?|no column named)\s*[\"'`]?([^\"'`;]+?)[\"'`]?(?:;|\s|$)", text, re.IGNORECASE)
    if missing or isinstance(error, pl.exceptions.ColumnNotFoundError):
        name = missing[1] if missing else text.strip("\"'` ")
        close = get_close_matches(name.lower(), columns, 4, 0.5)
        matches = " or ".join(f"{column} ({columns[column]})" for column in close)
        hint = f"did you mean {matches}?" if close else "`ringtape sql TRACE --tables` lists the columns"
        return UsageError(f"there is no column {name!r}", hint)
    function = re.search(r"unsupported function '([^']*)'", text)
    if function and function[1] in columns:
        return UsageError(f"{function[1]} is a word of SQL", f'the column of table {columns[function[1]]} is written "{function[1]}"')
    if isinstance(error, pl.exceptions.ComputeError) and "parquet" in text.lower():
        return TraceError(f"reading failed: {text}")
    return UsageError(f"the query cannot be answered: {text}", "the dialect is that of polars (docs.pola.rs, SQL interface)")


def _first(error: BaseException) -> str:
    """Return what an error of polars says, without the plan that it prints behind it."""
    text = re.split(r"\n\s*Resolved plan until failure", str(error))[0]
    return " ".join(re.sub(r"\{.*", "", text, flags=re.DOTALL).split())[:300] or type(error).__name__


def plain(frame: pl.DataFrame, form: str) -> pl.DataFrame:
    """Return a result whose bytes are escaped text, and for CSV whose lists are JSON: what people and these formats can take."""
    changed = []
    for name, kind in frame.schema.items():
        if kind == pl.Binary:
            changed.append(pl.Series(name, [None if raw is None else escape(raw) for raw in frame[name]], pl.String))
        elif kind.is_nested() and form != "json":
            changed.append(
                pl.Series(name, [None if value is None else json.dumps(value, default=_value) for value in frame[name].to_list()], pl.String)
            )
    return frame.with_columns(changed)


def _value(value: object) -> object:
    return escape(value) if isinstance(value, bytes) else str(value)
