"""Which processes ran: the tree, with lifetimes, exit codes, calls, time and arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import polars as pl

from ringtape.analysis.in_force import InForce
from ringtape.analysis.ledger import CHILD
from ringtape.analysis.naming import comm_text, is_error
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.analysis.words import words
from ringtape.schemas.abi.errors import signal_name
from ringtape.schemas.errors import TraceError
from ringtape.schemas.part_file import LARGEST
from ringtape.schemas.units import format_size

EXISTING, FORK, EXEC, EXIT, RENAME = range(5)


@analysis(
    narrows=("process",),
    tables=("processes",),
    columns=(
        Result("command", pl.String, "last command name; people see it indented below its parent", indent="depth"),
        Result("process", pl.Int32, "process number"),
        Result("parent", pl.Int32, "process number of the parent", wide=True),
        Result("depth", pl.Int32, "generations below the first process of the tree"),
        Result("start", pl.Int64, "when the process was made, or first seen: the beginning of its first event or call", "time", detail=True),
        Result("lifetime", pl.Int64, "from there to its end; null while the end was not seen", "ns"),
        Result("exit", pl.String, "exit code, or the name of the signal that ended it; null while the end was not seen"),
        Result("exit_code", pl.Int32, "exit code; null where a signal ended it", detail=True),
        Result("exit_signal", pl.Int32, "number of the signal that ended it; 0 if none did", detail=True),
        Result("threads", pl.Int64, "threads that were seen", "count"),
        Result("calls", pl.Int64, "its recorded calls; null without the table syscalls", "count"),
        Result("time", pl.Int64, "time inside them, summed over threads: more than the lifetime where several wait at once", "ns"),
        Result("errors", pl.Int64, "those that failed", "count"),
        Result("cpu", pl.Int64, "CPU time of its threads that have ended", "ns", wide=True),
        Result("maxrss", pl.Int64, "largest resident set; null while the end was not seen", "bytes"),
        Result("uid", pl.Int64, "effective user", wide=True),
        Result("argv", pl.String, "arguments of its last exec, escaped; null where it made none", wide=True),
    ),
)
def processes(trace: Trace) -> pl.DataFrame:
    r"""List the processes as a tree: each one below its parent, children by the time of their start.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per process, parents before children: ``process``, ``parent``, ``command``, ``depth``, ``start`` (ns of
        CLOCK_MONOTONIC), ``lifetime`` (ns), ``exit``, ``exit_code``, ``exit_signal``, ``threads``, ``calls``, ``time`` (ns),
        ``errors``, ``cpu`` (ns), ``maxrss`` (bytes), ``uid``, ``argv``.

    Raises
    ------
    RingtapeError
        If the trace has no table ``processes``.

    Notes
    -----
    Numbers are used again by the kernel: a process is its number and its start. Calls and ``time`` are those that were
    recorded; the loss ledger does not know which process made a lost call.

    Examples
    --------
    >>> from ringtape.analysis.analyses.processes import processes
    >>> processes(getfixture("example_trace")).select("process", "command", "exit", "calls", "argv").rows()
    [(100, 'cat', '1', 5, "cat 'a file'")]
    """
    events = trace.collect(
        trace.scan("processes").select("ts", "start", "pid", "tid", "ppid", "kind", "uid", "comm", "exit_code", "exit_signal", "group_dead",
                                       "utime", "stime", "maxrss", "seq")
    ).sort("ts", "seq")  # fmt: skip
    lives = _lives(events)
    rows = lives.join(_calls(trace, lives), on="life", how="full", coalesce=True)
    # The recorded command is first seen when its exec succeeds, some time after the call was entered: that call is its own.
    birth = pl.when(pl.col("birth").is_not_null()).then(pl.min_horizontal("birth", "entered")).alias("birth")
    rows = rows.with_columns(pl.coalesce("pid", "orphan").alias("pid"), birth).drop("orphan", "entered")
    if "syscalls" in trace.tables:
        rows = rows.with_columns(pl.col("calls", "time", "errors").fill_null(0))
    arguments = _arguments(trace, lives)
    rows = rows.join(arguments, on="life", how="left")
    order = _tree(rows)
    ordered = rows.join(order, on="life").sort("place")
    return ordered.select(
        pl.col("comm").map_elements(comm_text, return_dtype=pl.String).alias("command"),
        pl.col("pid").alias("process"),
        pl.col("ppid").alias("parent"),
        "depth",
        pl.col("birth").alias("start"),
        (pl.col("death") - pl.col("birth")).alias("lifetime"),
        pl.struct("death", "exit_code", "exit_signal").map_elements(_exit, return_dtype=pl.String).alias("exit"),
        pl.when(pl.col("exit_signal") == 0).then("exit_code").alias("exit_code"),
        "exit_signal", "threads", "calls", "time", "errors", "cpu", "maxrss", "uid", "argv",
    )  # fmt: skip


def _exit(row: Mapping[str, int | None]) -> str | None:
    if row["death"] is None or row["exit_signal"] is None:
        return None
    return signal_name(row["exit_signal"]) if row["exit_signal"] else str(row["exit_code"])


def _lives(events: pl.DataFrame) -> pl.DataFrame:
    """Return one row per process, which is a number and the start of its first thread."""
    leaders = events.filter(pl.col("tid") == pl.col("pid"))
    lives = leaders.group_by("pid", "start", maintain_order=True).agg(
        pl.col("ts").first().alias("seen"),
        pl.col("kind").first().alias("first"),
        pl.col("ppid").filter(pl.col("kind") != EXIT).first().alias("early"),
        pl.col("ppid").first(),
        pl.col("uid", "comm").last(),
        pl.col("exit_code", "exit_signal").filter(pl.col("kind") == EXIT).last(),
    )
    # A process that ran before the recording is as old as the kernel says; the recorded command begins with its exec.
    birth = pl.when(pl.col("first") == EXISTING).then(pl.min_horizontal("start", "seen")).otherwise("seen").alias("birth")
    lives = lives.with_columns(birth, pl.coalesce("early", "ppid").alias("ppid")).drop("early", "first").with_row_index("life")
    lives = lives.with_columns(pl.col("life").cast(pl.Int32))
    codes = InForce.of(lives["pid"].to_numpy(), lives["seen"].to_numpy(), lives["life"].to_numpy())
    threads = events.with_columns(pl.Series("life", codes.codes(events["pid"].to_numpy(), events["ts"].to_numpy()), pl.Int32))
    ended = pl.col("kind") == EXIT
    threads = threads.filter(pl.col("life") >= 0).group_by("life").agg(
        pl.struct("tid", "start").n_unique().cast(pl.Int64).alias("threads"),
        pl.col("ts").filter(ended & (pl.col("group_dead") == 1)).last().alias("death"),
        (pl.col("utime") + pl.col("stime")).filter(ended).sum().alias("cpu"),
        pl.col("maxrss").filter(ended).max(),
        pl.col("exit_code").filter(ended & (pl.col("group_dead") == 1)).last().alias("group_code"),
        pl.col("exit_signal").filter(ended & (pl.col("group_dead") == 1)).last().alias("group_signal"),
    )  # fmt: skip
    joined = lives.join(threads, on="life", how="left")
    # The first thread's code is the process's; it is missing only if that record was lost.
    return joined.with_columns(
        pl.coalesce("exit_code", "group_code").alias("exit_code"), pl.coalesce("exit_signal", "group_signal").alias("exit_signal")
    )


def _calls(trace: Trace, lives: pl.DataFrame) -> pl.DataFrame:
    """Count each process's calls; processes that no event names get numbers below 0."""
    columns = {"life": pl.Int32, "orphan": pl.Int32, "calls": pl.Int64, "time": pl.Int64, "errors": pl.Int64, "entered": pl.Int64}
    if "syscalls" not in trace.tables:
        return pl.DataFrame(schema=columns)
    calls = trace.scan("syscalls").filter(pl.col("kind") != CHILD)
    totals = (
        pl.len().cast(pl.Int64).alias("calls"),
        pl.col("dur").sum().alias("time"),
        is_error().sum().cast(pl.Int64).alias("errors"),
        pl.col("ts").min().alias("entered"),
    )
    codes = InForce.of(lives["pid"].to_numpy(), lives["seen"].to_numpy(), lives["life"].to_numpy())
    again = sorted(lives.filter(pl.col("pid").is_duplicated())["pid"].unique())
    counted = trace.collect(calls.filter(~pl.col("pid").is_in(again)).group_by("pid").agg(totals))
    found = codes.codes(counted["pid"].to_numpy(), counted["pid"].to_numpy())
    pieces = [counted.with_columns(pl.Series("life", found, pl.Int32))]
    if again:
        life = (
            pl.struct("pid", "ts")
            .map_batches(
                lambda rows: pl.Series(codes.codes(rows.struct.field("pid").to_numpy(), rows.struct.field("ts").to_numpy())),
                return_dtype=pl.Int32,
                is_elementwise=True,
            )
            .alias("life")
        )
        pieces.append(
            trace.collect(calls.filter(pl.col("pid").is_in(again)).with_columns(life).group_by("pid", "life").agg(totals)).select(pieces[0].columns)
        )
    together = pl.concat(pieces).sort("pid")
    nameless = pl.col("life") < 0
    return together.with_columns(
        pl.when(nameless).then(-1 - nameless.cum_sum().cast(pl.Int32)).otherwise("life").cast(pl.Int32).alias("life"),
        pl.col("pid").alias("orphan"),
    ).select(list(columns))


def _arguments(trace: Trace, lives: pl.DataFrame) -> pl.DataFrame:
    """Return the arguments of the last exec of each process."""
    execs = trace.scan("processes").filter(pl.col("kind") == EXEC)
    last = trace.collect(execs.group_by("pid", "start").agg(pl.col("argv").max_by("ts"), pl.col("cut").max_by("ts")))
    size = int(last["argv"].bin.size().cast(pl.Int64).sum())
    if size > LARGEST:
        raise TraceError(f"{trace.path}: the arguments of {len(last)} processes take {format_size(size)}", "ringtape writes no such trace")
    texts = [_words(argv, cut) for argv, cut in last.select("argv", "cut").iter_rows()]
    named = last.select("pid", "start", pl.Series("argv", texts, pl.String))
    return lives.select("life", "pid", "start").join(named, on=["pid", "start"]).select("life", "argv")


def _words(argv: bytes, cut: int) -> str:
    return (words(argv.removesuffix(b"\0").split(b"\0")) if argv else "") + (" ..." if cut else "")


def _tree(rows: pl.DataFrame) -> pl.DataFrame:
    """Return place and depth of every process; a loop of parents, which no kernel makes, is broken at its oldest."""
    known = rows.select("life", "pid", "ppid", "birth", "seen").with_columns(pl.col("seen").fill_null(0), pl.col("birth").fill_null(0))
    codes = InForce.of(known["pid"].to_numpy(), known["seen"].to_numpy(), known["life"].to_numpy())
    parents = codes.codes(known["ppid"].fill_null(-1).to_numpy(), known["birth"].to_numpy())
    absent = ~known["ppid"].fill_null(-1).is_in(known["pid"].to_list())
    children: dict[int | None, list[int]] = defaultdict(list)
    ordered = known.with_columns(pl.Series("above", parents, pl.Int32), absent.alias("root")).sort("birth", "pid", "life")
    for life, above, root in ordered.select("life", "above", "root").iter_rows():
        children[None if root or above == life else above].append(life)
    placed: dict[int, int] = {}
    for start in [*children[None], *ordered["life"]]:
        stack = [(start, 0)]
        while stack:
            life, depth = stack.pop()
            if life not in placed:
                placed[life] = depth
                stack.extend((child, depth + 1) for child in reversed(children[life]))
    return pl.DataFrame(
        {"life": list(placed), "depth": list(placed.values()), "place": range(len(placed))},
        schema={"life": pl.Int32, "depth": pl.Int32, "place": pl.Int64},
    )
