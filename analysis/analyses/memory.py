"""Memory of processes: resident and mapped, peaks, growth, and what mmap, munmap and brk did."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.naming import is_error, syscall_name
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.residency import RESIDENT, numbered, over_time, process_lives, samples
from ringtape.analysis.trace import Trace

_CALLS = ("mmap", "mmap2", "munmap", "mremap", "brk")
SECOND = 1_000_000_000
LINES = 7
"""Processes that a picture shows."""


@analysis(
    tables=("memory",),
    columns=(
        Result("command", pl.String, "last command name"),
        Result("process", pl.Int32, "process number"),
        Result("peak", pl.Int64, "most resident memory (VmHWM), as the kernel keeps it", "bytes"),
        Result("anon", pl.Int64, "anonymous memory in the sample with most resident memory", "bytes"),
        Result("file", pl.Int64, "pages of files in that sample", "bytes"),
        Result("shmem", pl.Int64, "shared memory in that sample", "bytes"),
        Result("swap", pl.Int64, "most memory in swap", "bytes", quiet=True),
        Result("last", pl.Int64, "resident memory in the last sample", "bytes"),
        Result("growth_per_s", pl.Float64, "change of resident memory per second from the first sample to the last; null below 1 s", "bytes"),
        Result("late_growth_per_s", pl.Float64, "the same over the second half of that time: a leak goes on", "bytes"),
        Result("mapped_peak", pl.Int64, "largest size of the address space (VmPeak)", "bytes"),
        Result("mapped", pl.Int64, "size of the address space in the last sample", "bytes", wide=True),
        Result("mmaps", pl.Int64, "mappings made by mmap; null without the table syscalls", "count", wide=True),
        Result("mmapped", pl.Int64, "bytes that they asked for", "bytes", wide=True),
        Result("munmapped", pl.Int64, "bytes given back by munmap", "bytes", wide=True),
        Result("heap", pl.Int64, "bytes by which brk made the heap larger, summed", "bytes", wide=True),
        Result("refused", pl.Int64, "calls of mmap, munmap, mremap and brk that failed", "count"),
        Result("samples", pl.Int64, "samples", "count", wide=True),
    ),
)
def memory(trace: Trace) -> pl.DataFrame:
    """Tell how much memory each process had.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per process, the largest first: ``command``, ``process``, ``peak``, ``anon``, ``file``, ``shmem``, ``swap``, ``last``
        (bytes), ``growth_per_s``, ``late_growth_per_s`` (bytes per second), ``mapped_peak``, ``mapped`` (bytes), ``mmaps``, ``mmapped``,
        ``munmapped``, ``heap`` (bytes), ``refused``, ``samples``.

    Raises
    ------
    RingtapeError
        If the table ``memory`` was not recorded.

    Notes
    -----
    A sample is taken at the first change of resident memory within a tick of the kernel (1 to 10 ms), at once when one kind of it
    has changed by 512 KiB and a 64th, at fork, exit, the start and the end, and with every stall. ``peak`` and ``mapped_peak`` are
    the kernel's own high-water marks, which no sampling misses; they hold for one address space, so that of a process that calls
    exec the largest of its programs counts. Calls are those that were recorded: the loss ledger does not know their process.

    Examples
    --------
    >>> from ringtape.analysis.analyses.memory import memory
    >>> memory(getfixture("memory_trace")).select("command", "process", "peak", "last", "samples").rows()
    [('app', 100, 12288, 8192, 5)]
    """
    in_force, lives = process_lives(trace)
    rows = samples(trace, in_force)
    middle = ((pl.col("ts").min() + pl.col("ts").max()) / 2).alias("middle")
    halves = trace.collect(rows.group_by("life").agg(middle))
    ordered = pl.col("resident").sort_by("ts")
    # What was resident in the middle of the time is what the last sample before it says.
    early = pl.col("ts") <= pl.col("middle")
    found = trace.collect(
        rows.join(halves.lazy(), on="life")
        .group_by("life")
        .agg(
            pl.col("pid").first().alias("process"),
            pl.col("peak").max(),
            *(pl.col(name).sort_by("resident", "ts").last() for name in RESIDENT),
            pl.col("swap").max(),
            ordered.first().alias("first"),
            ordered.last().alias("last"),
            pl.col("resident").filter(early).sort_by(pl.col("ts").filter(early)).last().alias("half"),
            (pl.col("ts").max() - pl.col("ts").min()).alias("time"),
            pl.col("mapped_peak").max(),
            pl.col("mapped").sort_by("ts").last(),
            pl.len().cast(pl.Int64).alias("samples"),
        )
    )

    def rate(since: str, part: int) -> pl.Expr:
        return pl.when(pl.col("time") >= SECOND).then((pl.col("last") - pl.col(since)) * part * 1e9 / pl.col("time"))

    found = found.with_columns(rate("first", 1).alias("growth_per_s"), rate("half", 2).alias("late_growth_per_s"))
    found = found.join(lives.select("life", "command"), on="life", how="left").with_columns(pl.col("command").fill_null("?"))
    found = found.join(_calls(trace, in_force), on="life", how="left")
    if "syscalls" in trace.tables:
        found = found.with_columns(pl.col("mmaps", "mmapped", "munmapped", "heap", "refused").fill_null(0))
    return found.sort("peak", "process", descending=[True, False])


def _calls(trace: Trace, in_force: object) -> pl.DataFrame:
    """Sum what the calls that map memory did, by process."""
    from ringtape.analysis.in_force import InForce

    assert isinstance(in_force, InForce)
    schema = {"life": pl.Int64, "mmaps": pl.Int64, "mmapped": pl.Int64, "munmapped": pl.Int64, "heap": pl.Int64, "refused": pl.Int64}
    if "syscalls" not in trace.tables:
        return pl.DataFrame(schema=schema)
    page = int(str(trace.header.host.get("page_size", 4096)))
    calls = trace.scan("syscalls").filter(pl.col("kind") == 0).with_columns(syscall_name().alias("call")).filter(pl.col("call").is_in(_CALLS))
    rows = calls.select(numbered(in_force), "ts", "call", "arg0", "arg1", "ret", is_error().alias("error"))
    asked = -(-pl.col("arg1") // page) * page
    mapped = pl.col("call").is_in(["mmap", "mmap2"]) & ~pl.col("error")
    # brk does not fail: it returns the end of the heap that is in force, whatever was asked for.
    is_brk = pl.col("call") == "brk"
    refused = (~is_brk & pl.col("error")) | (is_brk & (pl.col("arg0") != 0) & (pl.col("ret") != pl.col("arg0")))
    sums = trace.collect(
        rows.group_by("life").agg(
            mapped.sum().cast(pl.Int64).alias("mmaps"),
            asked.filter(mapped).sum().alias("mmapped"),
            asked.filter((pl.col("call") == "munmap") & ~pl.col("error")).sum().alias("munmapped"),
            refused.sum().cast(pl.Int64).alias("refused"),
        )
    )
    # The first call of a program asks where its heap is (brk(0)); from there on each differs from the one before.
    heap = trace.collect(rows.filter(is_brk).select("life", "ts", "arg0", "ret")).sort("life", "ts")
    step = pl.when(pl.col("arg0") != 0).then(pl.col("ret") - pl.col("ret").shift().over("life")).clip(0)
    return sums.join(heap.with_columns(step.alias("step")).group_by("life").agg(pl.col("step").sum().alias("heap")), on="life", how="left")


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw resident and mapped memory over time."""
    from ringtape.analysis.plots.memory import composition, levels

    in_force, lives = process_lives(trace)
    sizes = trace.collect(samples(trace, in_force).group_by("life").agg(pl.col("pid").first(), pl.col("peak").max(), pl.col("mapped").max()))
    sizes = sizes.join(lives.select("life", "command"), on="life", how="left").with_columns(pl.col("command").fill_null("?"))
    largest = sizes.sort("peak", "pid", descending=[True, False]).head(LINES)
    found = over_time(trace, largest)
    origin, lost = trace.header.attached_at, trace.lost().get("memory", 0)
    kills = trace.collect(trace.scan("memory").filter(pl.col("kind") == OOM).select("ts", "pid"))
    notes = [f"the {LINES} of {len(sizes):,} processes with the highest peaks"] if len(sizes) > LINES else []
    notes += [f"{lost:,} samples were lost"] if lost else []
    note = "; ".join(notes)
    figure = levels(found, largest, "resident", origin, kills=kills, note=note)
    yield Picture("memory-resident", "Resident memory of the largest processes over time.", figure)
    yield Picture("memory-mapped", "Size of their address spaces over time.", levels(found, largest, "mapped", origin, note=note))
    if len(largest):
        first = found.filter(pl.col("life") == largest["life"][0])
        title = f"Memory of {largest['command'][0]} {largest['pid'][0]} by kind"
        yield Picture("memory-kinds", "What the memory of the largest process consists of.", composition(first, title, origin))


OOM = 5
