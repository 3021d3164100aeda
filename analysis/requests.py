"""Block I/O requests: by what they can be told apart, what was lost of them, and how many there were at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import numpy as np
import polars as pl

from ringtape.analysis.ledger import FOREVER, NO_STORAGE, RING_FULL
from ringtape.analysis.naming import comm_text, command_number
from ringtape.analysis.registry import Result
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError
from ringtape.schemas.table import table

By = Literal["device", "partition", "operation", "flags", "process", "thread", "command"]

COMPLETE, AT_ATTACH, MERGED, UNFINISHED, END_UNSEEN = range(5)
FLUSH_ASKED = -1
"""Operation, in a result, of a request that carries no data and asks for a flush: the kernel issues a FLUSH of its own for it."""
PREFLUSH = 1 << 10
FLAGS = {3: "sync", 4: "meta", 5: "prio", 9: "fua", 10: "preflush", 11: "readahead", 12: "background", 13: "nowait"}
"""Bits of the column ``flags`` that have kept their place since Linux 4.10."""
_FLAG_MASK = sum(1 << bit for bit in FLAGS)
SECTOR = 512
SLICE = 1 << 21
"""Requests that are held in memory at a time where their order matters."""

GROUPS = (
    Result("device", pl.String, "name of the disk"),
    Result("partition", pl.String, "name of the partition, or of the disk for requests to the whole of it"),
    Result("operation", pl.String, "READ, WRITE, DISCARD ...; FLUSH asked: a thread's wait for the FLUSH that the kernel then issues"),
    Result("flags", pl.String, "sync, meta, fua, preflush, readahead, background, as the kernel had them"),
    Result("process", pl.Int32, "process that made the request; null: not known"),
    Result("thread", pl.Int32, "thread that made the request; null: not known"),
    Result("command", pl.String, "command name in force when the request was made"),
)
_KEYS: dict[str, tuple[str, ...]] = {
    "device": ("disk",), "partition": ("disk", "partition"), "operation": ("operation",), "flags": ("flags",), "process": ("pid",),
    "thread": ("tid",), "command": ("command",),
}  # fmt: skip


@dataclass(frozen=True)
class Requests:
    """A choice of group columns, and the stored columns that stand for them while requests are counted."""

    trace: Trace
    by: tuple[By, ...]

    @classmethod
    def of(cls, trace: Trace, by: By | Sequence[By]) -> Requests:
        """Check the argument ``by`` of an analysis.

        Raises
        ------
        UsageError
            If it names something that requests are not told apart by, nothing, or something twice.
        """
        chosen = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
        for name in chosen:
            if name not in _KEYS:
                raise UsageError(f"requests cannot be told apart by {name!r}", f"by is one or more of {', '.join(_KEYS)}")
        if not chosen or len(set(chosen)) != len(chosen):
            raise UsageError(f"by is {by!r}", f"by is one or more different ones of {', '.join(_KEYS)}")
        if "command" in chosen:
            trace.require("processes")
        return cls(trace, cast(tuple[By, ...], chosen))

    @property
    def keys(self) -> list[str]:
        """Columns to group rows by."""
        return list(dict.fromkeys(key for name in self.by for key in _KEYS[name]))

    def rows(self, since: int | None = None, until: int | None = None, device: str | None = None) -> pl.LazyFrame:
        """Return the requests made in a window, with the columns to group by."""
        asked = (pl.col("operation") == 1) & (pl.col("bytes") == 0) & (pl.col("flags").cast(pl.Int64) & PREFLUSH != 0)
        frame = self.trace.scan("block", since, until)
        if device is not None:
            frame = frame.filter(pl.col("disk") == self._disk(device))
        frame = frame.with_columns(
            pl.when(asked).then(FLUSH_ASKED).otherwise(pl.col("operation")).cast(pl.Int8).alias("operation"),
            # Of other bits the meaning changes between kernels: they are not to part groups that read the same.
            pl.col("flags").cast(pl.Int64) & _FLAG_MASK,
        )
        return frame.with_columns(command_number(self.trace.commands)) if "command" in self.by else frame

    def _disk(self, device: str) -> bytes:
        raw = self.trace.collect(self.trace.scan("block").select("disk").unique())["disk"].to_list()
        names = {comm_text(disk): disk for disk in raw}
        if device not in names:
            raise UsageError(f"no request of device {device!r} was recorded", f"the devices are {', '.join(sorted(names)) or 'none'}")
        return bytes(names[device])

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame of groups with names in place of numbers, the group columns first."""
        rest = [column for column in frame.columns if column not in self.keys]
        commands = self.trace.commands().names if "command" in self.by else []
        make: dict[str, Callable[[], pl.Series]] = {
            "device": lambda: pl.Series([_device(raw) for raw in frame["disk"]], dtype=pl.String),
            "partition": lambda: pl.Series(
                [_partition(raw, number) for raw, number in frame.select("disk", "partition").iter_rows()], dtype=pl.String
            ),
            "operation": lambda: pl.Series([operation_name(code) for code in frame["operation"]], dtype=pl.String),
            "flags": lambda: pl.Series([flags_text(flags) for flags in frame["flags"]], dtype=pl.String),
            "process": lambda: frame["pid"].replace(0, None),
            "thread": lambda: frame["tid"].replace(0, None),
            "command": lambda: pl.Series(["?" if number < 0 else commands[number] for number in frame["command"]], dtype=pl.String),
        }
        return pl.DataFrame([make[name]().alias(name) for name in self.by]).hstack(frame.select(rest))


def _device(raw: bytes) -> str:
    return comm_text(raw) or "?"


def _partition(raw: bytes, number: int) -> str:
    """Return the name of a partition, as the kernel makes it.

    >>> _partition(b"vda", 1), _partition(b"nvme0n1", 2), _partition(b"vda", 0)
    ('vda1', 'nvme0n1p2', 'vda')
    """
    name = _device(raw)
    return name if not number else f"{name}p{number}" if name[-1:].isdigit() else f"{name}{number}"


def operation_name(code: int) -> str:
    """Return the name of an operation in a result."""
    return "FLUSH asked" if code == FLUSH_ASKED else table("block").column("operation").values.get(code, f"operation {code}")


def flags_text(flags: int) -> str:
    """Return the names of the flags that are set.

    >>> flags_text(8 | 512), flags_text(0)
    ('sync fua', '')
    """
    return " ".join(name for bit, name in FLAGS.items() if flags >> bit & 1)


def several(number: int) -> str:
    """Return a number of requests with its verb.

    >>> several(1), several(1200)
    ('1 request was', '1,200 requests were')
    """
    return "1 request was" if number == 1 else f"{number:,} requests were"


def lost_requests(trace: Trace) -> pl.DataFrame:
    """Return the requests that were made and not recorded.

    Returns
    -------
    DataFrame
        One row per duration bucket: ``low`` and ``high`` (ns; the time from making to end of each lies between them, ends
        included), ``lost``. Of requests that did not fit into the map of those in flight nothing is known.
    """
    schema = pl.Schema({"low": pl.Int64, "high": pl.Int64, "lost": pl.Int64})
    rows: list[tuple[int, int, int]] = []
    located = 0
    if "losses" in trace.tables:
        query = trace.scan("losses").filter(pl.col("table") == "block", pl.col("cause").is_in([RING_FULL, NO_STORAGE]))
        for cause, bucket, count in trace.collect(query.group_by("cause", "bucket").agg(pl.col("count").sum())).iter_rows():
            low = 1 << bucket if bucket else 0
            rows.append((low, (2 << bucket) - 1, count) if cause == RING_FULL else (0, FOREVER, count))
            located += count if cause == RING_FULL else 0
    if (rest := trace.lost().get("block", 0) - located) > 0:
        rows.append((0, FOREVER, rest))
    return pl.DataFrame(sorted(rows), schema=schema, orient="row").group_by("low", "high").agg(pl.col("lost").sum()).sort("low", "high")


def slices(trace: Trace, most: int = SLICE) -> Iterator[tuple[int, int]]:
    """Yield half-open windows of ``ts`` that hold, together, all requests, and each not many more than ``most``."""
    parts = [part for part in trace.parts("block") if part.rows]
    if not parts:
        return
    first, last = min(part.min_ts for part in parts), max(part.max_ts for part in parts) + 1
    pieces = -(-trace.rows("block") // most)
    if pieces == 1:
        yield first, last
        return
    width = max(1, -(-(last - first) // (64 * pieces)))
    counted = trace.collect(trace.scan("block").group_by(((pl.col("ts") - first) // width).alias("bin")).agg(pl.len().cast(pl.Int64).alias("rows")))
    begin, held = first, 0
    for number, rows in counted.sort("bin").iter_rows():
        if held and held + rows > most:
            edge = first + number * width
            yield begin, edge
            begin, held = edge, 0
        held += rows
    yield begin, last


def follow_each_other(requests: Requests, device: str | None = None, most: int = SLICE) -> pl.DataFrame:
    """Count the requests that begin where the one before them, in the same group, ended.

    Returns
    -------
    DataFrame
        Per group ``followers`` (requests that have one before them) and ``sequential`` (those of them that begin at its end).
    """
    keys = requests.keys
    carry: pl.DataFrame | None = None
    found: list[pl.DataFrame] = []
    for since, until in slices(requests.trace, most):
        rows = requests.rows(since, until, device).filter(pl.col("kind").is_in([COMPLETE, AT_ATTACH]), pl.col("bytes") > 0)
        here = requests.trace.collect(rows.select(*keys, "ts", "seq", "sector", (pl.col("sector") + pl.col("bytes") // SECTOR).alias("end")))
        here = here.sort("ts", "seq").with_columns(pl.lit(True).alias("counts"))
        if carry is not None:
            here = pl.concat([carry.with_columns(pl.lit(False).alias("counts")), here])
        before = pl.col("end").shift(1).over(keys)
        judged = here.with_columns((before == pl.col("sector")).alias("sequential")).filter("counts")
        found.append(judged.group_by(keys).agg(pl.col("sequential").is_not_null().sum().alias("followers"), pl.col("sequential").sum()))
        carry = here.group_by(keys, maintain_order=True).last().select(*keys, "ts", "seq", "sector", "end")
    if not found:
        return pl.DataFrame(schema={**{key: requests.rows().collect_schema()[key] for key in keys}, "followers": pl.Int64, "sequential": pl.Int64})
    return pl.concat(found).group_by(keys).agg(pl.col("followers", "sequential").cast(pl.Int64).sum())


def at_once(
    requests: Requests, stage: Literal["queue", "device"] = "device", device: str | None = None, windows: int = 0, most: int = SLICE
) -> pl.DataFrame:
    """Tell how many requests of each group were waiting, or at the device, at once.

    Parameters
    ----------
    requests : Requests
        Of which trace, and by what they are told apart.
    stage : {"queue", "device"}
        From being made to being issued, or from there to completion.
    device : str, optional
        Only requests of this device.
    windows : int
        Into how many windows the recording is cut; 0: it is one.
    most : int
        Requests that are held in memory at a time.

    Returns
    -------
    DataFrame
        Per group and window: ``window`` (its number), ``area`` (sum over its requests of the time that they were there, ns),
        ``busy`` (time in which there was at least one, ns), ``highest`` (most at any time). Windows of a group in which there
        was none are left out.
    """
    trace, keys = requests.trace, requests.keys
    begin, known_end = trace.span
    end = known_end if known_end is not None else begin + 1
    width = max(1, -(-(end - begin) // max(1, windows)))
    start = pl.col("ts") if stage == "queue" else pl.col("ts") + pl.col("issue")
    stop = pl.col("ts") + pl.col("issue") if stage == "queue" else pl.col("ts") + pl.col("issue") + pl.col("service")
    passed = pl.col("issue") >= 0 if stage == "queue" else pl.col("service") >= 0
    # What was still there at the end stays to the end; of a request whose end was not seen nothing is claimed.
    present = pl.col("kind").is_in([COMPLETE, AT_ATTACH, UNFINISHED]) & (passed | (pl.col("kind") == UNFINISHED))
    present &= pl.lit(True) if stage == "queue" else pl.col("issue") >= 0

    def rows(since: int | None, until: int | None) -> pl.LazyFrame:
        there = requests.rows(since, until, device).filter(present)
        stopped = pl.when(passed).then(stop).otherwise(end)
        return there.select(
            *keys, start.clip(begin, end).alias("start"), stopped.clip(begin, end).alias("stop"), (stopped - pl.col("ts")).alias("reach")
        )

    groups = trace.collect(rows(None, None).group_by(keys).agg(pl.col("reach").max()))
    numbers = dict.fromkeys(("window", "area", "busy", "highest"), pl.Int64())
    schema = pl.Schema({**{key: groups.schema[key] for key in keys}, **numbers})
    if not len(groups):
        return pl.DataFrame(schema=schema)
    longest = int(groups["reach"].max() or 0)  # type: ignore[arg-type]
    edges = [begin + number * width for number in range(max(1, windows))]
    cuts = sorted({begin, *(edge for edge, _ in slices(trace, most) if begin < edge < end), end})
    depth = groups.select(keys).with_columns(pl.lit(0, pl.Int64).alias("change"))
    found: list[pl.DataFrame] = []
    for low, high in pairwise(cuts):
        here = rows(low - longest - 1, high).filter(pl.col("start") < high, pl.col("stop") >= low)
        last = high == end
        moved = [
            here.filter(pl.col(event) >= low, pl.col(event) < high if not last else pl.lit(True)).select(
                *keys, pl.col(event).alias("time"), pl.lit(change, pl.Int64).alias("change")
            )
            for event, change in (("stop", -1), ("start", 1))
        ]
        marks = [low, *(edge for edge in edges if low < edge < high)]
        at_marks = pl.DataFrame({"time": marks}, schema={"time": pl.Int64})
        zero = groups.select(keys).join(at_marks.slice(1), how="cross").with_columns(pl.lit(0, pl.Int64).alias("change"))
        first = depth.select(*keys, pl.lit(low, pl.Int64).alias("time"), "change")
        events = pl.concat([first, zero, trace.collect(pl.concat(moved))]).sort("time", "change", maintain_order=True)
        events = events.with_columns(
            pl.col("change").cum_sum().over(keys).alias("depth"),
            (pl.col("time").shift(-1).over(keys).fill_null(high) - pl.col("time")).alias("length"),
        )
        window = ((pl.col("time") - begin) // width).clip(0, max(1, windows) - 1).alias("window")
        found.append(
            events.group_by(*keys, window).agg(
                (pl.col("depth") * pl.col("length")).sum().alias("area"),
                pl.col("length").filter(pl.col("depth") > 0).sum().alias("busy"),
                pl.col("depth").max().alias("highest"),
            )
        )
        depth = events.group_by(keys).agg(pl.col("change").sum())
    joined = pl.concat(found).group_by(*keys, "window").agg(pl.col("area", "busy").sum(), pl.col("highest").max())
    return joined.filter(pl.col("highest") > 0).select(schema.names()).cast(schema).sort(*keys, "window")


def window_edges(trace: Trace, windows: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the edges of the windows of `at_once` in ns after the attachment."""
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin + 1) - begin) // windows))
    return np.arange(windows + 1, dtype=np.float64) * width
