"""The lookout of a flight recorder: sees conditions come true in the rows that are sealed, and has snapshots taken beside the drain."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringtape.recorder import snapshot
from ringtape.recorder.flight import Flight, Trigger
from ringtape.recorder.pump import Pump
from ringtape.recorder.retention import Retention
from ringtape.schemas.abi.syscalls import ABI_IDS
from ringtape.schemas.errors import RecordingError, RingtapeError
from ringtape.schemas.escape import escape
from ringtape.schemas.table import Table

AFTER = 2.0
"""Seconds that are waited after a condition came true, so that what follows it is saved as well."""
NICE = 10
_INTERCEPTED = 5

Rows = Mapping[str, NDArray[Any]]


class Lookout:
    """A `Source` of no rows: it is asked each second, right after everything was sealed."""

    def __init__(self, flight: Flight, pump: Pump, trace: Path, quiet: bool) -> None:
        self._flight = flight
        self._pump = pump
        self._trace = trace.absolute()
        self._folder = (flight.snapshots or trace.with_suffix(".snapshots")).absolute()
        self._quiet = quiet
        self._asked = False
        self._pending: tuple[float, dict[str, object]] | None = None
        self._quiet_until = 0.0
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._retention: Retention | None = pump.keep(flight.limits) if flight.limits else None
        self._native = [(trigger, [(ABI_IDS[abi], number) for abi, number in trigger.calls]) for trigger in flight.triggers if trigger.calls]
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise RecordingError(f"{self._folder}: {reason}", "name a folder for the snapshots with --snapshots") from None
        for drain in pump.drains:
            if drain.table.name == "syscalls" and self._native:
                drain.watch = self.look
        signal.signal(signal.SIGUSR1, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        pump.sources.append(self)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._asked = True

    def look(self, rows: Rows) -> None:
        """Look for each condition in the columns of sealed calls."""
        if self._pending is not None or time.monotonic() < self._quiet_until:
            return
        for trigger, calls in self._native:
            if (index := first_match(trigger, calls, rows)) is not None:
                event = {name: int(rows[name][index]) for name in ("ts", "pid", "tid")}
                value = rows["dur"] if trigger.longer is not None else rows["ret"]
                self._fire(trigger.text, {**event, "value": int(value[index])})
                return

    def _fire(self, text: str, event: Mapping[str, object], wait: float = AFTER) -> None:
        self._pending = (time.monotonic() + wait, {"trigger": text, **event})

    def rows(self, closing: bool) -> Iterable[tuple[Table, pa.Table]]:
        """Take what is due; there are no rows."""
        if self._asked and self._pending is None:
            self._asked = False
            self._fire("SIGUSR1", {}, 0)
        if self._pending is None and time.monotonic() >= self._quiet_until:
            lost = self._pump.lost
            for trigger in self._flight.triggers:
                if trigger.lost is not None and lost - self._lost >= trigger.lost:
                    self._fire(trigger.text, {"value": lost - self._lost})
                    break
        if not closing and self._pending is not None and time.monotonic() >= self._pending[0] and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._take, args=(self._pending[1],), name="ringtape-snapshot", daemon=True)
            self._settle()
            self._thread.start()
        return ()

    def _settle(self) -> None:
        self._pending = None
        self._lost = self._pump.lost
        self._quiet_until = time.monotonic() + self._flight.every / 1e9

    def close(self) -> None:
        """Take what was asked for shortly before the end, now that the trace is complete."""
        if self._thread:
            self._thread.join()
        if self._pending is not None:
            self._take(self._pending[1])

    def _numbered(self, file: str) -> Mapping[int, int] | None:
        return self._retention.numbered(file) if self._retention else None

    def _take(self, trigger: Mapping[str, object]) -> None:
        if threading.current_thread() is self._thread:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
        plain = re.sub(r"[^a-z0-9]+", "-", str(trigger["trigger"]).lower()).strip("-")[:40]
        path = self._folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{plain}.trace"
        try:
            for old in snapshot.snapshots_in(self._folder)[: -self._flight.most + 1 or None]:
                shutil.rmtree(old)
            taken = snapshot.take(self._trace, path, self._flight.last, trigger, self._numbered)
        except (OSError, RingtapeError) as error:
            reason = error.what if isinstance(error, RingtapeError) else f"{path}: {(error.strerror or str(error)).lower()}"
            print(f"ringtape: no snapshot: {escape(reason)}", file=sys.stderr, flush=True)
            return
        if not self._quiet:
            print(f"ringtape: snapshot ({escape(str(trigger['trigger']))}): {escape(str(taken.path))}", file=sys.stderr, flush=True)


def first_match(trigger: Trigger, calls: list[tuple[int, int]], rows: Rows) -> int | None:
    """Return the index of the first row for which a condition holds, or None.

    The rare comes first: of a million calls few are long or fail, and only these are looked at more closely.
    """
    if trigger.longer is not None:
        found = np.flatnonzero(rows["dur"] >= trigger.longer)
    else:
        ret = rows["ret"]
        found = np.flatnonzero(ret == -trigger.errno if trigger.errno else (ret < 0) & (ret >= -4095))
    if not len(found):
        return None
    nr, abi, kind = (rows[name][found] for name in ("nr", "abi", "kind"))
    wanted = np.zeros(len(found), np.bool_)
    for code, number in calls:
        wanted |= (nr == number) & (abi == code)
    wanted &= kind == 0 if trigger.fails else kind != _INTERCEPTED
    chosen = found[wanted]
    return int(chosen[0]) if len(chosen) else None
