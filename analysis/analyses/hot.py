"""Which functions the time went to, on the CPU or off it: self and total, by the stacks that were taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.stacks import Of, stacks
from ringtape.analysis.trace import Trace

COLUMNS = (
    Result("function", pl.String, "function; `_[k]`: of the kernel; `module+0xplace` where the file names none"),
    Result("module", pl.String, "file that holds it"),
    Result("self_count", pl.Int64, "stacks in which it was the innermost", "count"),
    Result("self", pl.Int64, "time that they stand for", "ns"),
    Result("self_share", pl.Float64, "share of the time of all stacks", "share"),
    Result("count", pl.Int64, "stacks in which it was at all", "count"),
    Result("total", pl.Int64, "time that they stand for", "ns"),
    Result("share", pl.Float64, "share of the time of all stacks", "share"),
)


@analysis(tables=("samples", "mappings", "symbols"), columns=COLUMNS, section=False)
def hot(trace: Trace, *, of: Of = "cpu", symbols: str | None = None) -> pl.DataFrame:
    """Rank functions by the stacks that they are in.

    Times on the CPU are samples times 1/frequency; lost samples are in none of the figures (`ringtape loss` counts them).
    Times off the CPU are measured, those shorter than what `--offcpu-stacks` was told are not there.

    Parameters
    ----------
    trace : Trace
        The recording.
    of : {"cpu", "offcpu"}
        Stacks of running threads, or of threads that had left their CPU.
    symbols : str, optional
        Folder with the programs, or their debug files, looked at first; build ids must match.

    Returns
    -------
    DataFrame
        One row per function, by self time, longest first.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.hot import hot
    >>> trace = ringtape.open("datasets/families.trace")
    >>> hot(trace).columns[:2], len(hot(trace)) > 10
    (['function', 'module'], True)
    """
    found = stacks(trace, of, Path(symbols) if symbols else None)
    whole = int(found.groups["time"].sum())
    lengths = np.array([len(frames) for frames in found.frames], np.int64)
    everything = np.concatenate([*found.frames, np.empty(0, np.int64)])
    owner = np.repeat(np.arange(len(lengths)), lengths)
    leaves = np.zeros(len(everything), np.bool_)
    leaves[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    counts, times = found.groups["count"].to_numpy(), found.groups["time"].to_numpy()
    frame = pl.DataFrame({"id": everything, "stack": owner, "leaf": leaves})
    stack = pl.DataFrame({"stack": np.arange(len(lengths)), "samples": counts, "time": times})
    # A recursive function is in a stack once.
    once = frame.group_by("id", "stack").agg(pl.col("leaf").any()).join(stack, on="stack")
    summed = once.group_by("id").agg(
        (pl.col("samples") * pl.col("leaf")).sum().alias("self_count"),
        (pl.col("time") * pl.col("leaf")).sum().alias("self"),
        pl.col("samples").sum().alias("count"),
        pl.col("time").sum().alias("total"),
    )
    names = pl.DataFrame(
        {"id": np.arange(len(found.names)), "function": found.names, "module": found.modules},
        schema_overrides={"function": pl.String, "module": pl.String},
    )
    divisor = max(whole, 1)
    result = summed.join(names, on="id").with_columns((pl.col("self") / divisor).alias("self_share"), (pl.col("total") / divisor).alias("share"))
    return result.sort("self", "total", "function", "module", descending=[True, True, False, False])
