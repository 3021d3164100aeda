"""What a run is compared by: one number per run for each measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES, latency
from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

Scale = Literal["ratio", "difference"]
NANOSECOND = 1.0
"""Times are recorded in whole ns."""
SCHEMA = pl.Schema({"measure": pl.String, "what": pl.String, "value": pl.Float64})


@dataclass(frozen=True)
class Measure:
    """A kind of number that every run has for each system call, or for other things.

    ``scale`` tells whether sides are compared by their ratio or by their difference; ``more`` and ``less`` are the words for
    a value that is greater, or smaller, on the other side.
    """

    name: str
    unit: str
    doc: str
    scale: Scale = "ratio"
    more: str = "more"
    less: str = "fewer"

    @property
    def step(self) -> float:
        """In what step values are recorded; 0 where they are exact."""
        return NANOSECOND if self.unit == "ns" else 0.0


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("elapsed", "ns", "time from the attachment of the probes to the end", "ratio", "slower", "faster"),
        Measure("calls", "count", "system calls, those that were lost among them"),
        Measure("rate", "", "system calls per second of the recording", "ratio", "more", "less"),
        Measure("time", "ns", "time inside of the calls, summed over all threads", "ratio", "slower", "faster"),
        *(Measure(name, "ns", f"quantile of the latency: {name.replace('_', '.')}", "ratio", "slower", "faster") for name in QUANTILES),
        Measure("errors", "share", "share of the calls that failed", "difference", "more", "fewer"),
        Measure("ledger", "share", "share of the time of all threads (time ledger)", "difference", "more", "less"),
    )
}
USUAL = ("elapsed", "calls", "time", "p50", "p99", "errors", "ledger")
ALL = "(all)"


def measured(trace: Trace, wanted: Sequence[str]) -> pl.DataFrame:
    """Return the numbers of one run.

    Parameters
    ----------
    trace : Trace
        The run.
    wanted : sequence of str
        Names of `MEASURES`.

    Returns
    -------
    DataFrame
        ``measure``, ``what`` (system call, ``(all)``, or place in the time ledger), ``value``. What the recording does not tell
        has no row: quantiles that losses leave open, measures of tables that were not recorded.

    Raises
    ------
    UsageError
        If there is no such measure.
    """
    unknown = [name for name in wanted if name not in MEASURES]
    if unknown:
        raise UsageError(f"there is no measure {unknown[0]!r}", f"the measures are {', '.join(MEASURES)}")
    return pl.concat([pl.DataFrame(schema=SCHEMA), *(piece.cast(SCHEMA) for piece in _pieces(trace, frozenset(wanted)))])


def _pieces(trace: Trace, wanted: frozenset[str]) -> Iterator[pl.DataFrame]:
    begin, end = trace.span
    length = None if end is None else float(end - begin)
    if "elapsed" in wanted and length is not None:
        yield pl.DataFrame([("elapsed", ALL, length)], schema=SCHEMA, orient="row")
    if "syscalls" in trace.tables and wanted & {"calls", "rate", "time", "errors"}:
        mix = syscall_mix(trace)
        whole = mix.select(pl.lit(ALL).alias("syscall"), pl.col("calls", "time", "errors").sum())
        rows = pl.concat([whole, mix.select(whole.columns)]).rename({"syscall": "what"}).filter(pl.col("what").is_not_null())
        values = {"calls": pl.col("calls"), "time": pl.col("time"), "errors": pl.col("errors") / pl.col("calls")}
        if length:
            values["rate"] = pl.col("calls") / (length / 1e9)
        for name in wanted & values.keys():
            held = rows.filter(pl.col("calls") > 0)
            yield held.select(pl.lit(name).alias("measure"), "what", values[name].cast(pl.Float64).alias("value"))
    quantiles = [name for name in QUANTILES if name in wanted]
    if "syscalls" in trace.tables and quantiles:
        found = latency(trace).select(pl.col("syscall").alias("what"), *quantiles)
        long = found.unpivot(quantiles, index="what", variable_name="measure", value_name="value")
        yield long.drop_nulls().select("measure", "what", "value")
    if "ledger" in wanted and "sched" in trace.tables:
        entries = ledger(trace, by="command")
        place = pl.concat_str("where", "syscall", "reason", separator=", ", ignore_nulls=True).alias("what")
        sums = entries.group_by(place).agg(pl.col("time").sum())
        share = pl.col("time") / pl.col("time").sum()
        yield sums.select(pl.lit("ledger").alias("measure"), "what", share.alias("value"))
