"""Waiting for memory: stalls in reclaim and compaction, and OOM kills."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES
from ringtape.analysis.faulting import of_the_target
from ringtape.analysis.naming import meaning
from ringtape.analysis.order_statistics import bounded_quantiles
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.residency import RESIDENT, numbered, process_lives
from ringtape.analysis.trace import Trace
from ringtape.schemas.tables.memory import TABLE

SAMPLE, OOM = 0, 5
KINDS = next(dict(column.values) for column in TABLE.columns if column.name == "kind")


def _quantile_columns() -> Iterator[Result]:
    for name in QUANTILES:
        doc = "longest stall" if name == "max" else f"quantile {name[1:].replace('_', '.')} % of the stalls"
        yield Result(name, pl.Int64, f"{doc}; null where lost ones leave it open", "ns")
        yield Result(f"{name}_low", pl.Int64, f"least that {name} can be, whatever was lost", "ns")
        yield Result(f"{name}_high", pl.Int64, f"most that {name} can be", "ns")


@analysis(
    tables=("memory",),
    columns=(
        Result("what", pl.String, "direct reclaim, cgroup reclaim, node reclaim, compaction, or OOM kill"),
        Result("command", pl.String, "last command name of the process that waited, or was killed; null for lost stalls"),
        Result("process", pl.Int32, "its number; null for lost stalls, of which neither kind nor process is known"),
        Result("count", pl.Int64, "stalls, or kills", "count"),
        Result("time", pl.Int64, "time in the stalls, summed over threads; exact also for lost ones", "ns"),
        *_quantile_columns(),
        Result("reclaimed", pl.Int64, "memory that they gained", "bytes"),
        Result("unfinished", pl.Int64, "stalls that were going on at the end; not in the quantiles", "count", quiet=True),
        Result("since", pl.Int64, "when the first began; when the victim was chosen", "time"),
        Result("resident", pl.Int64, "largest resident memory of the process in these rows: what the victim had", "bytes"),
        Result("by", pl.Int32, "thread whose allocation brought the OOM kill about"),
    ),
)
def reclaim(trace: Trace) -> pl.DataFrame:
    """Tell who waited for memory, for how long, and who was killed for lack of it.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per kind of stall and process, most time first, and one per OOM kill in their order: ``what``, ``command``,
        ``process``, ``count``, ``time``, ``p50``, ``p90``, ``p99``, ``p99_9``, ``max`` (ns, each with ``_low`` and ``_high``),
        ``reclaimed`` (bytes), ``unfinished``, ``since`` (ns of CLOCK_MONOTONIC), ``resident`` (bytes), ``by``.

    Raises
    ------
    RingtapeError
        If the table ``memory`` was not recorded.

    Notes
    -----
    Quantiles are order statistics, as in the analysis ``latency``. A stall in compaction is one pass over one zone. Lost stalls
    stand in a row of their own, with the exact sum of their times; any of them may belong to any other row, which makes its
    quantiles intervals. Lost OOM kills cannot be told from lost samples: the signal in the table ``processes`` remains.

    Examples
    --------
    >>> from ringtape.analysis.analyses.reclaim import reclaim
    >>> reclaim(getfixture("memory_trace")).select("what", "process", "count", "time", "p50", "reclaimed").rows()
    [('cgroup reclaim', 100, 2, 4000, 1000, 8192), ('OOM kill', 100, 1, 0, None, 0)]
    """
    in_force, lives = process_lives(trace)
    rows = trace.collect(
        trace.scan("memory")
        .filter(pl.col("kind") != SAMPLE, of_the_target(trace))
        .select(numbered(in_force), "ts", "dur", "pid", "actor", "kind", "reclaimed", "unfinished", pl.sum_horizontal(RESIDENT).alias("resident"))
    ).sort("ts")
    killed = pl.col("kind") == OOM
    rows = rows.with_columns(
        # Each kill is a row of its own.
        pl.when(killed).then(pl.int_range(pl.len())).otherwise(-1).alias("kill"),
        pl.when(killed | (pl.col("unfinished") == 1)).then(None).otherwise(pl.col("dur")).alias("known"),
    )
    lost, time, since = _lost(trace)
    keys = ["kind", "life", "kill"]
    sums = rows.group_by(keys, maintain_order=True).agg(
        pl.col("pid").first().alias("process"),
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("dur").sum().alias("time"),
        pl.col("reclaimed").sum(),
        (pl.col("unfinished") == 1).sum().cast(pl.Int64).alias("unfinished"),
        pl.col("ts").first().alias("since"),
        pl.col("resident").max(),
        pl.when(killed).then(pl.col("actor")).first().alias("by"),
    )
    stalls = rows.filter(~killed)
    found = sums.join(bounded_quantiles(stalls, keys, "known", QUANTILES, None, lost), on=keys, how="left")
    found = found.join(lives.select("life", "command"), on="life", how="left").with_columns(
        meaning("kind", KINDS).alias("what"), pl.col("command").fill_null("?")
    )
    if lost:
        row = {"what": "(lost)", "count": lost, "time": time, "since": since, "reclaimed": None, "unfinished": 0}
        found = pl.concat([found, pl.DataFrame([row]).cast({"since": pl.Int64, "reclaimed": pl.Int64}, strict=False)], how="diagonal_relaxed")
    order = pl.when(pl.col("kill") >= 0).then(pl.col("kill")).otherwise(-1)
    return found.sort(order.fill_null(-1), "time", "process", descending=[False, True, False], nulls_last=True)


def _lost(trace: Trace) -> tuple[int, int, int | None]:
    """Return how many stalls were lost, their time, and since when; a lost sample has no duration."""
    if "losses" not in trace.tables:
        return 0, 0, None
    ledger = trace.scan("losses").filter(pl.col("table") == "memory", pl.col("cause") == 0, pl.col("bucket") > 0)
    found = trace.collect(ledger.select(pl.col("count").sum(), pl.col("sum").sum(), pl.col("ts").min()))
    return int(found["count"][0]), int(found["sum"][0]), found["ts"][0]


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw when threads waited for memory, and for how long; nothing if none did."""
    from ringtape.analysis.plots.memory import stalls

    columns = ["ts", "dur", "pid", "kind"]
    rows = trace.collect(trace.scan("memory").filter(pl.col("kind") != SAMPLE, of_the_target(trace)).select(columns))
    if len(rows):
        caption = "When threads waited for memory, and for how long; OOM kills."
        yield Picture("reclaim", caption, stalls(rows, KINDS, trace.header.attached_at))
