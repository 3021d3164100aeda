"""What the recording itself cost: CPU time, memory, disk."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace


@analysis(
    narrows=(),
    tables=("recorder",),
    columns=(
        Result("elapsed", pl.Int64, "time during which the recorder drained the rings", "ns"),
        Result("user", pl.Int64, "its user CPU time during that", "ns"),
        Result("system", pl.Int64, "its system CPU time during that", "ns"),
        Result("share_cpu", pl.Float64, "(user + system) / elapsed: the share of one CPU that it took", "share"),
        Result("startup", pl.Int64, "its CPU time before and after: loading the probes, merging; null without a footer", "ns"),
        Result("busiest", pl.Float64, "that share in the busiest interval of at least half a second", "share"),
        Result("rows", pl.Int64, "rows recorded, all tables", "count"),
        Result("rows_per_cpu_second", pl.Float64, "rows / (user + system)", "count"),
        Result("memory", pl.Int64, "largest resident memory, mapped rings included", "bytes"),
        Result("rings", pl.Int64, "memory of all rings", "bytes"),
        Result("ring_peak", pl.Float64, "fullest that any ring was found, as a share of its size", "share"),
        Result("disk", pl.Int64, "size of all parts", "bytes"),
        Result("bytes_per_row", pl.Float64, "disk / rows", ""),
        Result("written", pl.Int64, "bytes written, parts that were merged later included", "bytes"),
        Result("lost", pl.Int64, "records lost, all tables", "count"),
    ),
)
def overhead_self(trace: Trace) -> pl.DataFrame:
    """Tell what the recorder used, apart from what its probes cost the recorded program.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row: ``elapsed``, ``user``, ``system`` (ns), ``share_cpu``, ``busiest`` (shares of one CPU), ``startup`` (ns), ``rows``,
        ``rows_per_cpu_second``, ``memory``, ``rings`` (bytes), ``ring_peak`` (share), ``disk`` (bytes), ``bytes_per_row``,
        ``written`` (bytes), ``lost``. Values that the trace does not tell (no footer, no row) are null.

    Raises
    ------
    RingtapeError
        If the trace has no table ``recorder``.

    Notes
    -----
    Times come from the rows of the table; what the footer's total has beyond them is ``startup``. The time by which each
    recorded call was made longer is not in a trace: `./run bench` measures it.

    Examples
    --------
    >>> from ringtape.analysis.analyses.overhead_self import overhead_self
    >>> overhead_self(getfixture("example_trace")).select("rows", "lost").rows()
    [(9, 0)]
    """
    busy = (pl.col("utime") + pl.col("stime")) / pl.col("interval")
    totals = trace.collect(
        trace.scan("recorder").select(
            pl.col("interval", "utime", "stime", "written").sum(),
            pl.col("rss", "ring_resident", "ring_peak").max(),
            busy.filter(pl.col("interval") >= 500_000_000).max().alias("busiest"),
            pl.len().alias("intervals"),
        )
    ).row(0, named=True)
    cost = trace.footer.cost if trace.footer else {}
    seen = totals["intervals"] > 0

    elapsed, user, system = (totals[name] if seen else None for name in ("interval", "utime", "stime"))
    cpu = user + system if user is not None and system is not None else None
    total = [round(cost[name] * 1e9) for name in ("user_seconds", "system_seconds") if name in cost]
    rows = sum(trace.rows(table) for table in trace.tables)
    disk = sum(part.bytes for table in trace.tables for part in trace.parts(table))
    peak = cost.get("max_rss", totals["rss"])
    return pl.DataFrame(
        {
            "elapsed": elapsed,
            "user": user,
            "system": system,
            "share_cpu": cpu / elapsed if cpu is not None and elapsed else None,
            "startup": max(0, sum(total) - max(0, cpu)) if len(total) == 2 and cpu is not None else None,
            "busiest": totals["busiest"],
            "rows": rows,
            "rows_per_cpu_second": rows / cpu * 1e9 if cpu else None,
            "memory": None if peak is None else int(peak),
            "rings": totals["ring_resident"],
            "ring_peak": totals["ring_peak"] / 1000 if seen else None,
            "disk": disk,
            "bytes_per_row": disk / rows if rows else None,
            "written": totals["written"] if seen else None,
            "lost": sum(count for table, count in trace.lost().items() if table in trace.tables),
        }
    )
