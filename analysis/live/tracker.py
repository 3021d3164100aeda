"""What the screen shows of a trace: batches summed up, said in words; the same for both clocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from ringtape.analysis.live.follower import Batch
from ringtape.analysis.live.layout import Status
from ringtape.analysis.live.options import Options
from ringtape.analysis.live.state import Snapshot, State
from ringtape.analysis.live.view import View
from ringtape.analysis.summary import lost_records, wall
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.units import format_duration


class Source(Protocol):
    """Where batches come from: `Follower` or `Replayed`."""

    folder: TraceFolder

    def poll(self) -> list[Batch]:
        """Return what came since the call before."""

    @property
    def now(self) -> int:
        """Up to when."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""


class Tracker:
    """A trace being watched.

    Parameters
    ----------
    source : Source
        Where its rows come from.
    options : Options
        How it is shown.
    until_end : bool
        Whether the screen closes by itself when nothing more can come.
    """

    program = "ringtape"
    replay = False

    def __init__(self, source: Source, options: Options, until_end: bool) -> None:
        self._source, self._options, self._until_end = source, options, until_end
        self._state = State(options.window)
        self.native = source.folder.header.abi
        self._trace = Path(source.folder.path).name or str(source.folder.path)

    def look(self) -> bool:
        """Take what has come; return whether anything has changed."""
        was = self._source.ended
        batches = self._source.poll()
        self._state.feed(batches)
        return bool(batches) or self._source.ended != was

    @property
    def over(self) -> bool:
        """Whether nothing will come again, and nobody is to be shown the end."""
        return self._until_end and self._source.ended

    @property
    def ended(self) -> bool:
        """Whether nothing will come again."""
        return self._source.ended

    @property
    def begin(self) -> int:
        """When the recording began."""
        return self._source.folder.header.attached_at

    @property
    def first(self) -> int:
        """The time before which nothing was fed: no window begins earlier."""
        return self.begin

    def snapshot(self, view: View | None = None) -> Snapshot:
        """Return what the window comes to, narrowed as the viewer chose."""
        process = view.process if view is not None and view.process is not None else self._options.process
        return self._state.snapshot(
            self._source.now,
            self._options.window,
            process=process,
            syscall=None if view is None else view.syscall,
            pid=None if view is None else view.opened,
            begin=self.first,
        )

    def shown(self, view: View) -> tuple[Status, Mapping[str, pl.DataFrame]]:
        """Return header and tables as they are now."""
        found = self.snapshot(view)
        return self.status(found, view), self._recorded(found.frames)

    def _recorded(self, frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        """Put null in the place of what was not recorded: zero would say that it was nothing."""
        absent = {"sched": ("cpu", "wait"), "block": ("disk",), "transfers": ("network",), "memory": ("memory",)}
        tables = self._source.folder.tables
        nothing = [pl.lit(None, pl.Float64).alias(name) for table, names in absent.items() if table not in tables for name in names]
        if "syscalls" not in tables:
            nothing += [pl.lit(None, pl.Float64).alias(name) for name in ("rate", "errors")]
        return {**frames, "processes": frames["processes"].with_columns(nothing)}

    def status(self, found: Snapshot, view: View) -> Status:
        """Return what the header says."""
        folder = self._source.folder
        state, style = self.state(view)
        recorder = found.recorder
        recorded = "syscalls" in folder.tables
        return Status(
            program=self.program,
            trace=self._trace,
            clocks=(f"{wall(folder, found.until)}  {self.elapsed(found.until)}", self.elapsed(found.until), f"+{_clock(found.until - self.begin)}"),
            state=state,
            style=style,
            covers=f"over {format_duration(found.until - found.since)}: {_seconds(found.since - self.begin)} to {_seconds(found.until - self.begin)}",
            calls=found.calls / found.seconds if recorded else None,
            errors=found.errors / found.seconds if recorded else None,
            processes=found.frames["processes"].height,
            lost=lost_records(folder),
            recorder_cpu=None if recorder is None else (recorder["utime"] + recorder["stime"]) / recorder["interval"],
            recorder_memory=None if recorder is None else recorder["rss"],
            ring=None if recorder is None else recorder["ring_peak"] / 1000,
            tables=folder.tables,
            replay=self.replay,
        )

    def elapsed(self, now: int) -> str:
        """Return how long the recording has gone on."""
        return f"+{_clock(now - self.begin)}"

    def state(self, view: View) -> tuple[str, str]:
        """Return a word for how things are, and its style."""
        raise NotImplementedError

    def key(self, key: str, view: View) -> bool:
        """Do what a key asks for, if it is for the subject."""
        del key, view
        return False

    def typed(self, text: str, view: View) -> None:
        """Take what was typed at a prompt of the subject's own."""
        del text, view


def _clock(ns: int) -> str:
    seconds = max(0, ns) / 1e9
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{seconds % 60:04.1f}"


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.2f}".rstrip("0").rstrip(".") + " s"
