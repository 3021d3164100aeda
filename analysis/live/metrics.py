"""Counters and histograms of a recording that goes on, in the text formats that Prometheus scrapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from ringtape.analysis.live.follower import Batch
from ringtape.analysis.naming import comm_text, errno_name, is_error, syscall_label
from ringtape.schemas.escape import escape

TABLES: Final = ("syscalls", "processes", "recorder")
"""What is read of a trace."""
BOUNDS: Final = (*(factor * 10**exponent for exponent in range(2, 11) for factor in (1, 2.5, 5)), 10**11)
"""Upper bounds of the buckets, in ns: 100 ns to 100 s, three a decade."""
MOST: Final = 1000
"""Pairs of command and system call that are told apart; later ones are counted under the command ``(other)``."""
OTHER: Final = "(other)"
PATIENCE: Final = 6
"""How many more times rows are fed before calls of a process without a name are counted under its number."""
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_CHILD, _RETURNED = 4, 0


class Metrics:
    """What has been counted since the first row that was fed.

    Parameters
    ----------
    native : str
        The ABI of the recorded machine, whose calls need no mark.
    """

    def __init__(self, native: str) -> None:
        self._native = native
        self._commands: dict[int, str] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._errors: dict[tuple[str, str, str], int] = {}
        self._lengths: dict[tuple[str, str], np.ndarray[Any, np.dtype[np.int64]]] = {}
        self._sums: dict[tuple[str, str], int] = {}
        self._unnamed: list[tuple[int, tuple[Any, ...]]] = []
        self._cpu = 0
        self._recorder: Mapping[str, Any] | None = None

    def feed(self, batches: Sequence[Batch]) -> None:
        """Count rows; names of processes first, so that calls sealed together with them have theirs."""
        for wanted, take in (("processes", self._take_processes), ("syscalls", self._take_syscalls), ("recorder", self._take_recorder)):
            for batch in batches:
                if batch.table == wanted and batch.rows.height:
                    take(batch.rows)
            # A row of the recorder's own comes every second, so nothing waits for long.
            if wanted == "processes" and batches:
                waiting, self._unnamed = self._unnamed, []
                for patience, row in waiting:
                    self._count(row, patience - 1)

    def _take_processes(self, rows: pl.DataFrame) -> None:
        for pid, comm in rows.sort("ts").select("pid", "comm").rows():
            if comm:
                self._commands[pid] = comm_text(comm)

    def _take_syscalls(self, rows: pl.DataFrame) -> None:
        own = rows.lazy().filter(pl.col("kind") != _CHILD)
        bucket = pl.when(pl.col("kind") == _RETURNED).then(_bucket())
        counted = (
            own.group_by("pid", "abi", "nr", bucket.alias("bucket"), pl.when(is_error()).then(pl.col("ret")).alias("ret"))
            .agg(pl.len().cast(pl.Int64).alias("calls"), pl.col("dur").sum().alias("time"))
            .with_columns(syscall_label(self._native).alias("syscall"), errno_name().alias("errno"))
            .collect()
        )
        for row in counted.select("pid", "bucket", "ret", "calls", "time", "syscall", "errno").rows():
            self._count(row, PATIENCE)

    def _count(self, row: tuple[Any, ...], patience: int) -> None:
        pid, number, failed, calls, time, syscall, errno = row
        # A full ring of calls is sealed before the table that has the names; a name is the process' own from then on.
        if pid not in self._commands and patience:
            self._unnamed.append((patience, row))
            return
        key = self._key(self._commands.get(pid, str(pid)), syscall)
        self._calls[key] = self._calls.get(key, 0) + calls
        if failed is not None:
            which = (*key, errno or str(-failed))
            self._errors[which] = self._errors.get(which, 0) + calls
        if number is not None:
            self._lengths.setdefault(key, np.zeros(len(BOUNDS) + 1, np.int64))[number] += calls
            self._sums[key] = self._sums.get(key, 0) + time

    def _key(self, command: str, syscall: str) -> tuple[str, str]:
        key = (command, syscall)
        return key if key in self._calls or len(self._calls) < MOST else (OTHER, syscall)

    def _take_recorder(self, rows: pl.DataFrame) -> None:
        self._cpu += int(rows.select(pl.col("utime").sum() + pl.col("stime").sum()).item())
        self._recorder = rows.sort("ts").row(-1, named=True)

    def settle(self) -> None:
        """Count what still waits for a name: nothing more will come."""
        waiting, self._unnamed = self._unnamed, []
        for _, row in waiting:
            self._count(row, 0)

    def exposition(self, lost: Mapping[str, int], up: bool, open_metrics: bool = False) -> bytes:
        """Return everything in the exposition format.

        Parameters
        ----------
        lost : mapping
            Records that were lost, by table.
        up : bool
            Whether the recording goes on.
        open_metrics : bool
            OpenMetrics 1.0 instead of Prometheus' text format 0.0.4.
        """
        lines: list[str] = []

        def family(name: str, kind: str, told: str, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> None:
            # A counter's family is named without _total in OpenMetrics, and with it before.
            shown = name if open_metrics or kind != "counter" else f"{name}_total"
            lines.extend((f"# HELP {shown} {told}", f"# TYPE {shown} {kind}"))
            lines.extend(f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in samples)

        family("ringtape_recording_up", "gauge", "Whether the recording goes on.", [("", {}, int(up))])
        family(
            "ringtape_syscalls",
            "counter",
            "System calls that were recorded, by command and call.",
            (("_total", _pair(key), calls) for key, calls in sorted(self._calls.items())),
        )
        family(
            "ringtape_syscall_errors",
            "counter",
            "System calls that failed, by command, call and errno.",
            (("_total", {**_pair(key[:2]), "errno": key[2]}, count) for key, count in sorted(self._errors.items())),
        )
        family("ringtape_syscall_duration_seconds", "histogram", "Time from entry to return of calls that returned.", self._histograms())
        family(
            "ringtape_lost_records",
            "counter",
            "Records that were lost, by table.",
            (("_total", {"table": table}, count) for table, count in sorted(lost.items())),
        )
        family("ringtape_recorder_cpu_seconds", "counter", "Processor time of the recorder.", [("_total", {}, self._cpu / 1e9)])
        if self._recorder is not None:
            family("ringtape_recorder_resident_memory_bytes", "gauge", "Memory of the recorder.", [("", {}, self._recorder["rss"])])
            family("ringtape_recorder_ring_fullest_ratio", "gauge", "How full any ring was found.", [("", {}, self._recorder["ring_peak"] / 1000)])
        return ("\n".join(lines) + ("\n# EOF\n" if open_metrics else "\n")).encode()

    def _histograms(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        bounds = [*(_number(bound / 1e9) for bound in BOUNDS), "+Inf"]
        for key, counts in sorted(self._lengths.items()):
            pair = _pair(key)
            for bound, count in zip(bounds, np.cumsum(counts).tolist(), strict=True):
                yield "_bucket", {**pair, "le": bound}, count
            yield "_sum", pair, self._sums[key] / 1e9
            yield "_count", pair, int(counts.sum())


def _bucket() -> pl.Expr:
    """Return the number of the first bound that a duration does not exceed."""
    bucket = pl.lit(len(BOUNDS), pl.Int32)
    for number in reversed(range(len(BOUNDS))):
        bucket = pl.when(pl.col("dur") <= BOUNDS[number]).then(pl.lit(number, pl.Int32)).otherwise(bucket)
    return bucket


def _pair(key: tuple[str, ...]) -> dict[str, str]:
    return {"command": key[0], "syscall": key[1]}


def _labels(labels: Mapping[str, str]) -> str:
    r"""Return labels; values have no line break, quote or backslash that ends them early.

    >>> print(_labels({"command": 'a"b', "syscall": "read"}))
    {command="a\"b",syscall="read"}
    """
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_value(text)}"' for name, text in labels.items()) + "}"


def _value(text: str) -> str:
    return re.sub(r'([\\"])', r"\\\1", escape(text))


def _number(value: float) -> str:
    return repr(value) if isinstance(value, int) else f"{value:.12g}"
