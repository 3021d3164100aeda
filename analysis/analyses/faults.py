"""Page faults: minor, major, failed, by process, thread, command, part of the address space, access or instruction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import polars as pl

from ringtape.analysis.faulting import KERNEL, MAJOR, MINOR, NONE, UNCLEAR, outcomes, over_time
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.threads import GROUPS, KEYS, named
from ringtape.analysis.trace import Trace
from ringtape.schemas.tables.faults import TABLE

By = Literal["process", "thread", "command", "region", "access", "instruction"]
UNTRAPPED = "(no trap)"
"""Group of what the kernel counted and no row shows: of that neither address nor instruction is known."""
_WRITE, _FETCH = 2, 16
_REGIONS = next(dict(column.values) for column in TABLE.columns if column.name == "region")
_COUNTS = ("faults", "minor", "major", "kernel", "failed", "untrapped", "unclear")


def _access() -> pl.Expr:
    written = pl.col("error").cast(pl.Int64) & _WRITE != 0
    return pl.when(pl.col("error").cast(pl.Int64) & _FETCH != 0).then(pl.lit("fetch")).when(written).then(pl.lit("write")).otherwise(pl.lit("read"))


_OWN = {
    "region": pl.col("region").cast(pl.Int64).replace_strict(list(_REGIONS), list(_REGIONS.values()), default="?", return_dtype=pl.String),
    "access": _access(),
    "instruction": pl.col("ip"),
}


@analysis(
    narrows=("process",),
    tables=("faults",),
    groups=(
        *GROUPS,
        Result("region", pl.String, f"part of the address space: mapping, program, heap, stack; {UNTRAPPED}: not known"),
        Result("access", pl.String, f"read, write or fetch (of an instruction); {UNTRAPPED}: not known"),
        Result("instruction", pl.String, f"address of the instruction that took the fault; {UNTRAPPED}: not known"),
    ),
    columns=(
        Result("minor", pl.Int64, "faults that the kernel counted as minor: nothing had to be read", "count"),
        Result("major", pl.Int64, "faults that the kernel counted as major: it waited for a disk", "count"),
        Result("share", pl.Float64, "share of all minor and major faults", "share"),
        Result("per_second", pl.Float64, "minor and major faults per second, from the first row of the group to the last", "count"),
        Result("traps", pl.Int64, "faults that were taken and recorded", "count"),
        Result("kernel", pl.Int64, "of these, in kernel mode: a system call read or wrote the memory", "count"),
        Result("failed", pl.Int64, "of these, without effect: no memory was there, or another thread had brought it meanwhile", "count", quiet=True),
        Result(
            "untrapped",
            pl.Int64,
            "of minor and major, those without a row: populated in advance, pinned by a system call, or lost",
            "count",
            quiet=True,
        ),
        Result("unclear", pl.Int64, "recorded traps of which minor or major cannot be told, untrapped ones lying next to them", "count", quiet=True),
    ),
)
def faults(trace: Trace, *, by: By = "process") -> pl.DataFrame:
    """Count page faults.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command", "region", "access", "instruction"}
        What to tell apart; the last three within each process.

    Returns
    -------
    DataFrame
        One row per group, most faults first: ``minor``, ``major``, ``share``, ``per_second``, ``traps``, ``kernel``, ``failed``,
        ``untrapped``, ``unclear``.

    Raises
    ------
    RingtapeError
        If the table ``faults`` was not recorded.

    Notes
    -----
    ``minor`` and ``major`` are the kernel's own counts, as getrusage has them, from the first row of each thread (its fork, its first
    fault, or the start of the recording) to its last (its exit, or the end of the recording). They are exact also where rows were
    lost, since each row carries both counters of its thread; only faults after the last row of a thread whose exit was not seen are
    missing. What became of a single fault follows from the next row of its thread. A thread that dies in a fault leaves it open.

    Examples
    --------
    >>> from ringtape.analysis.analyses.faults import faults
    >>> trace = getfixture("memory_trace")
    >>> faults(trace).select("process", "command", "minor", "major", "traps", "untrapped").rows()
    [(100, 'app', 6, 1, 5, 2)]
    >>> faults(trace, by="region").select("region", "minor", "major").rows()
    [('mapping', 2, 1), ('heap', 2, 0), ('(no trap)', 2, 0)]
    """
    own = by if by in _OWN else None
    lives, counted = _counted(trace, own)
    keys = KEYS["process" if own else by] + ([own] if own else [])  # type: ignore[index]
    threads = lives.rename({"life": "thread", "last": "end"})
    rows = counted.join(named(trace, threads, "process" if own else by), left_on="life", right_on="number", how="left")  # type: ignore[arg-type]
    totals = rows.group_by(keys).agg(pl.col(_COUNTS).sum(), pl.col("first").min(), pl.col("last").max())
    totals = totals.filter(pl.any_horizontal(pl.col(name) > 0 for name in _COUNTS))
    both = pl.col("minor") + pl.col("major")
    elapsed = pl.col("last") - pl.col("first")
    found = totals.with_columns(
        pl.when(both.sum() > 0).then(both / both.sum()).otherwise(0.0).alias("share"),
        pl.when(elapsed > 0).then(both * 1e9 / elapsed).alias("per_second"),
        pl.col("faults").alias("traps"),
    ).sort(both, *keys, descending=[True, *(False for _ in keys)], nulls_last=True)
    if own == "instruction":
        text = pl.col(own).map_elements(lambda ip: f"0x{ip & (1 << 64) - 1:x}", return_dtype=pl.String)
        return found.with_columns(text.fill_null(UNTRAPPED))
    return found.with_columns(pl.col(own).fill_null(UNTRAPPED)) if own else found


def _counted(trace: Trace, own: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the threads (``life``, ``pid``, ``tid``, ``last``), and counts by thread and the column that each fault has of its own."""
    kinds = {"life": pl.Int64, "pid": pl.Int32, "tid": pl.Int32, "first": pl.Int64, "last": pl.Int64}
    counts = dict.fromkeys(_COUNTS, pl.Int64)
    extra = {} if own is None else {own: pl.Int64 if own == "instruction" else pl.String}
    pieces = [pl.DataFrame(schema={**kinds, **extra, **counts})]
    became = pl.col("became")
    for rows in outcomes(trace):
        trap = became.is_not_null()
        rest = pl.col("min_flt") + pl.col("maj_flt") - (became == UNCLEAR).fill_null(False).cast(pl.Int64)
        minor, major = (became == MINOR).sum().cast(pl.Int64), (became == MAJOR).sum().cast(pl.Int64)
        always = [
            trap.sum().cast(pl.Int64).alias("faults"),
            (trap & (pl.col("kind") == KERNEL)).sum().cast(pl.Int64).alias("kernel"),
            (became == NONE).sum().cast(pl.Int64).alias("failed"),
            (became == UNCLEAR).sum().cast(pl.Int64).alias("unclear"),
            pl.col("ts").min().alias("first"),
            pl.max_horizontal("ts", "until").max().alias("last"),
        ]
        untrapped = (pl.col("min_flt").sum(), pl.col("maj_flt").sum(), rest.sum().alias("untrapped"))
        keys = ["life", "pid", "tid"]
        if own is None:
            grouped = rows.group_by(keys).agg(*always, (minor + untrapped[0]).alias("minor"), (major + untrapped[1]).alias("major"), untrapped[2])
            pieces.append(grouped.select(pieces[0].columns))
            continue
        zero = [pl.lit(0, pl.Int64).alias(name) for name in ("faults", "kernel", "failed", "unclear")]
        each = rows.filter(trap).group_by(*keys, _OWN[own].alias(own)).agg(*always, minor.alias("minor"), major.alias("major"))
        other = rows.group_by(keys).agg(untrapped[0].alias("minor"), untrapped[1].alias("major"), untrapped[2], *always[4:])
        pieces.append(each.with_columns(pl.lit(0, pl.Int64).alias("untrapped")).select(pieces[0].columns))
        pieces.append(other.with_columns(pl.lit(None, extra[own]).alias(own), *zero).select(pieces[0].columns))
    everything = pl.concat(pieces)
    lives = everything.group_by("life").agg(pl.col("pid", "tid").last(), pl.col("last").max())
    sums = everything.group_by("life", *extra).agg(pl.col(_COUNTS).sum(), pl.col("first").min(), pl.col("last").max())
    return lives, sums


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw faults over time."""
    from ringtape.analysis.plots.memory import faults_over_time

    found = over_time(trace)
    names = faults(trace).group_by("process", maintain_order=True).agg(pl.col("command").first())
    lost = trace.lost().get("faults", 0)
    note = f"{lost:,} rows were lost; what they counted stands where the next row of the thread is" if lost else ""
    yield Picture(
        "faults", "Page faults per second by process: minor above, major below.", faults_over_time(found, names, trace.header.attached_at, note=note)
    )
