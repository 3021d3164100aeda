"""Which files, sockets and pipes were used: opens, reads, writes, bytes, time and errors of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import polars as pl

from ringtape.analysis.file_calls import shapes
from ringtape.analysis.file_names import UNKNOWN
from ringtape.analysis.file_use import Use, file_use
from ringtape.analysis.ledger import FOREVER, lost_calls
from ringtape.analysis.naming import errno_name
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

By = Literal["file", "process"]
GROUPS = (
    Result("file", pl.String, "path as the program named it, escaped; relative where its folder is not known; socket, pipe or other kind of thing"),
    Result("process", pl.Int32, "process number; null for calls that were lost"),
)
_NATIVE = {"file": "name", "process": "pid"}
LOST, LOST_NAME = "lost", "(lost calls)"
_OTHERS = "others"
_COUNTS = ("calls", "time", "read_time", "write_time", "opens", "reads", "writes", "bytes_read", "bytes_written", "errors", "still_open",
           "also", "mapped", "doubtful", "placed", "sequential")  # fmt: skip


@analysis(
    section="small",
    narrows=(),
    tables=("syscalls", "paths", "processes"),
    groups=GROUPS,
    columns=(
        Result("kind", pl.String, "file, socket, pipe, other, unknown or lost; null where several were added up", wide=True),
        Result("calls", pl.Int64, "calls that name it or a descriptor of it, or make it; each stands in one row", "count"),
        Result("time", pl.Int64, "time inside them, summed over threads", "ns"),
        Result("read_time", pl.Int64, "that of the calls that read", "ns", detail=True),
        Result("write_time", pl.Int64, "that of the calls that write", "ns", detail=True),
        Result("opens", pl.Int64, "how often it was opened or made: open, socket, accept, pipe (two ends), memfd_create ...", "count"),
        Result("reads", pl.Int64, "calls of the read and receive families, and copies from it", "count"),
        Result("writes", pl.Int64, "calls of the write and send families, and copies to it", "count"),
        Result("bytes_read", pl.Int64, "bytes that these returned", "bytes"),
        Result("bytes_written", pl.Int64, "bytes that these took", "bytes"),
        Result("sequential", pl.Float64, "share of the bytes that lay where the access before had ended; null without a position", "share"),
        Result("errors", pl.Int64, "calls that returned an error", "count"),
        Result("errnos", pl.String, "their errors, most frequent first, as `NAME count`", wide=True),
        Result("still_open", pl.Int64, "descriptors of it at the end of the recording, in processes that had not ended", "count", quiet=True),
        Result("also", pl.Int64, "calls in other rows that name it second (sendfile, splice, epoll_ctl, rename, link ...)", "count", detail=True),
        Result("mapped", pl.Int64, "calls that mapped it; access through a mapping is not visible", "count", detail=True),
        Result("doubtful", pl.Int64, "calls whose descriptor was made before a loss, which may have changed what it means", "count", quiet=True),
        Result("lost", pl.Int64, "calls among `calls` that are known from the loss ledger only", "count", quiet=True),
    ),
)
def files(trace: Trace, *, by: By | Sequence[By] = "file", top: int = 50) -> pl.DataFrame:
    """Put calls under the files that they work on.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"file", "process"} or both
        What to tell apart.
    top : int
        How many rows to show, those with most time; the rest is added up in one more row. 0 shows all.

    Returns
    -------
    DataFrame
        One row per file, most time first: ``kind``, ``calls``, ``time`` (ns), ``read_time``, ``write_time``, ``opens``,
        ``reads``, ``writes``, ``bytes_read``, ``bytes_written``, ``sequential`` (share of bytes), ``errors``, ``errnos``,
        ``still_open``, ``also``, ``mapped``, ``doubtful``, ``lost``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these.
    RingtapeError
        If the trace lacks one of the tables ``syscalls``, ``paths`` and ``processes``.

    Notes
    -----
    Descriptors are followed through open, dup, fcntl, socket, accept, pipe, close, fork, exec and exit, from those that the
    processes had at the start (table ``descriptors``) on; a file keeps the name under which it was opened. Paths are taken as
    the program gave them, relative ones from its working folder, or from the folder that the descriptor beside them means;
    symbolic links and ``..`` are not resolved. A call with two files counts in the row of the first (for links and renames the
    old name) and in ``also`` of the second, its bytes in both. Descriptors that came in a message (SCM_RIGHTS), and those whose
    making was lost, are ``fd N (unknown)``. Not visible: io_uring requests, mapped access, messages of recvmmsg and sendmmsg.

    Examples
    --------
    >>> from ringtape.analysis.analyses.files import files
    >>> files(getfixture("example_trace")).select("file", "calls", "opens", "bytes_read", "errnos").rows()
    [('/nowhere', 1, 0, 0, 'ENOENT 1'), ('a file', 4, 1, 10, '')]
    """
    chosen = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(_NATIVE):
        raise UsageError(f"by is {by!r}", f"by is one or more different ones of {', '.join(_NATIVE)}")
    keys = [_NATIVE[name] for name in chosen]
    used = file_use(trace, list(_doubts(trace)))
    rows = _together(used, keys).sort("time", "calls", *keys, descending=[True, True, *(False for _ in keys)])
    failed, others = used.failed, max(0, len(rows) - top) if top > 0 else 0
    if others > 1:
        # What is added up has the key -1 everywhere.
        rest = rows[top:].select(keys)
        rows = pl.concat([rows[:top], rows[top:].select(*(pl.lit(-1).cast(rows.schema[key]).alias(key) for key in keys), pl.col(_COUNTS).sum())])
        added = failed.join(rest, on=keys, how="semi").with_columns(pl.lit(-1).cast(failed.schema[key]).alias(key) for key in keys)
        failed = pl.concat([failed.join(rest, on=keys, how="anti"), added])
    errors = failed.group_by(*keys, "ret").agg(pl.col("count").sum()).with_columns(errno_name())
    text = pl.concat_str("errno", pl.lit(" "), "count").str.join(", ").alias("errnos")
    texts = errors.sort("count", "errno", descending=[True, False]).group_by(keys, maintain_order=True).agg(text)
    rows = rows.join(texts, on=keys, how="left").with_columns(pl.col("errnos").fill_null(""), pl.lit(0, pl.Int64).alias("lost"))
    share = pl.when(pl.col("placed") > 0).then(pl.col("sequential") / pl.col("placed")).alias("sequential")
    named = _named(rows.with_columns(share).drop("placed"), used, chosen, others)
    every = pl.concat([named, _lost(trace, named.schema)])
    last = every.select(pl.col("kind").eq_missing(pl.lit(_OTHERS))).to_series()
    order = [pl.col(name) for name in chosen]
    every = every.with_columns(pl.when(~last).then("kind").alias("kind"), last.alias("last"))
    return every.sort("last", "time", "calls", *order, descending=[False, True, True, *(False for _ in order)], nulls_last=True).drop("last")


def notes(result: pl.DataFrame) -> Iterator[str]:
    """Yield what has to be said beside a result."""
    if doubtful := int(result["doubtful"].sum()):
        yield f"{doubtful:,} calls use descriptors or folders from before a loss or with a filter in force; they may stand in the wrong row"
    unknown = result.filter(pl.col("kind") == UNKNOWN)
    if calls := int(unknown["calls"].sum()):
        yield f"{calls:,} calls on what is not known: not recorded when it was opened, passed in a message, or not open at all"
    if mapped := int(result["mapped"].sum()):
        yield f"{mapped:,} calls mapped a file; what is read and written through the mapping is not visible"
    if "file" in result.columns and "anon_inode:[io_uring]" in result["file"]:
        yield "requests through io_uring are not visible"


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the files with most time."""
    from ringtape.analysis.plots.files import files as draw

    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost and are not in the picture" if lost else ""
    caption = "Time in the calls on each file, socket and pipe; behind each bar the bytes that were read and written."
    yield Picture("files", caption, draw(files(trace).filter(pl.col("lost") == 0), note=note))


def _together(used: Use, keys: list[str]) -> pl.DataFrame:
    """Return all counts by the chosen keys; what is only still open, and was not opened in the recording, is left out."""
    frames = [used.sums, used.opens, used.remaining.join(pl.concat([used.sums.select("name"), used.opens.select("name")]), on="name", how="semi")]
    whole = pl.concat(frames, how="diagonal").with_columns(pl.col("pid").cast(pl.Int32))
    return whole.group_by(keys).agg(pl.col(_COUNTS).sum())


def _named(rows: pl.DataFrame, used: Use, chosen: Sequence[str], others: int) -> pl.DataFrame:
    values = rows.drop([name for name in _NATIVE.values() if name in rows.columns])
    parts: list[pl.Series] = []
    kinds: list[str | None] = [_OTHERS if rows[_NATIVE[chosen[0]]][at] == -1 else None for at in range(len(rows))]
    for name in chosen:
        if name == "file":
            numbers = rows["name"].to_list()
            texts = [used.names.text(number) if number >= 0 else f"({others:,} others)" for number in numbers]
            parts.append(pl.Series("file", texts, pl.String))
            kinds = [used.names.values[number][1] if number >= 0 else _OTHERS for number in numbers]
        else:
            parts.append(rows.select(pl.when(pl.col("pid") >= 0).then("pid").cast(pl.Int32).alias("process")).to_series())
    return pl.DataFrame([*parts, pl.Series("kind", kinds, pl.String), *values.get_columns()])


def _lost(trace: Trace, schema: pl.Schema) -> pl.DataFrame:
    """Return the row of the calls that were made and not recorded, if there were any."""
    found = lost_calls(trace).filter(~pl.col("child"))
    known = shapes().touches(shapes().index(found["abi"].to_numpy(), found["nr"].to_numpy()))
    touching = found.filter((pl.col("nr") < 0) | pl.Series(known))
    count = int(touching["lost"].sum())
    if not count:
        return pl.DataFrame(schema=schema)
    given = {"file": LOST_NAME, "kind": LOST, "calls": count, "time": int(touching["time"].sum()), "lost": count, "errnos": ""}
    row = {name: given.get(name, 0 if dtype == pl.Int64 else None) for name, dtype in schema.items()}
    return pl.DataFrame([row], schema=schema)


def _doubts(trace: Trace) -> Iterator[tuple[int, int]]:
    """Yield the stretches of time in which calls may be missing that change descriptors."""
    options = trace.header.options
    if options.get("syscall") or options.get("min_duration"):
        yield trace.header.attached_at, FOREVER
    ledger = trace.scan("losses") if "losses" in trace.tables else pl.LazyFrame(schema={"table": pl.String})
    changing = {nr for numbers in shapes().numbers(trace.header.abi, changing=True) for nr in numbers}
    located = {"syscalls": 0, "processes": 0}
    if "losses" in trace.tables:
        relevant = pl.col("table").is_in(list(located)) & (pl.col("cause") != 2)
        for table, nr, since, until, count in trace.collect(ledger.filter(relevant).select("table", "nr", "ts", "until", "count")).iter_rows():
            located[table] += count
            if table == "processes" or nr < 0 or nr in changing:
                yield since, until
    if any(trace.lost().get(table, 0) > count for table, count in located.items()):
        yield trace.header.attached_at, FOREVER
