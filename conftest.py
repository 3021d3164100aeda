"""What the examples in the documentation work on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ringtape import Trace


@pytest.fixture
def example_trace(tmp_path: Path) -> Trace:
    """Return a trace of five calls by one process."""
    import ringtape
    from tests.factory import T0, make

    return ringtape.open(
        make(
            tmp_path / "example.trace",
            header={"command": ["cat", "a file"]},
            processes=[
                {"ts": T0, "kind": 2, "pid": 100, "ppid": 99, "start": T0 - 50, "comm": b"cat", "file": b"/bin/cat", "argv": b"cat\0a file\0"},
                {"ts": T0 + 10_000, "kind": 3, "pid": 100, "ppid": 99, "start": T0 - 50, "comm": b"cat", "exit_code": 1, "group_dead": 1},
            ],
            paths=[
                {"ts": T0 + 1000, "nr": 257, "pid": 100, "arg": 1, "value": b"a file"},
                {"ts": T0 + 5000, "nr": 257, "pid": 100, "arg": 1, "value": b"/nowhere"},
            ],
            syscalls=[
                {"ts": T0 + 1000, "nr": 257, "arg0": -100, "pid": 100, "dur": 1000, "ret": 3},
                {"ts": T0 + 2000, "nr": 0, "arg0": 3, "pid": 100, "dur": 100, "ret": 5},
                {"ts": T0 + 3000, "nr": 0, "arg0": 3, "pid": 100, "dur": 200, "ret": 5},
                {"ts": T0 + 4000, "nr": 0, "arg0": 3, "pid": 100, "dur": 300},
                {"ts": T0 + 5000, "nr": 257, "arg0": -100, "pid": 100, "dur": 2000, "ret": -2},
            ],
        )
    )


@pytest.fixture
def block_trace(tmp_path: Path) -> Trace:
    """Return a trace of three reads of 4 KiB, 4 KiB and 8 KiB: the second is sequential, and at the device together with the third."""
    import ringtape
    from tests.factory import T0, make

    common = {"disk": b"vda", "dev": 254 << 20, "pid": 100, "insert": -1}
    return ringtape.open(
        make(
            tmp_path / "block.trace",
            block=[
                {**common, "ts": T0 + 1000, "dur": 100, "issue": 10, "service": 90, "sector": 800, "bytes": 4096},
                {**common, "ts": T0 + 2000, "dur": 220, "issue": 20, "service": 200, "sector": 808, "bytes": 4096},
                {**common, "ts": T0 + 2100, "dur": 80, "issue": 5, "service": 75, "sector": 80, "bytes": 8192},
            ],
        )
    )


@pytest.fixture
def memory_trace(tmp_path: Path) -> Trace:
    """Return a trace of a process that takes page faults, waits for memory and is killed for it."""
    import ringtape
    from tests.factory import T0, make

    life = {"pid": 100, "ppid": 99, "start": T0, "comm": b"app"}
    faults = [(10, 1, 0, 0, 0), (20, 2, 0, 0, 2), (30, 3, 0, 0, 2), (40, 4, 0, 0, 0), (50, 4, 1, 1, 0)]
    samples = [(100, 0, 0, 8192, 8192), (200, 0, 0, 12288, 12288), (100_000_000, 1000, 2, 10240, 12288), (150_000_000, 3000, 2, 10240, 12288)]
    return ringtape.open(
        make(
            tmp_path / "memory.trace",
            processes=[{"ts": T0, "kind": 1, **life}, {"ts": T0 + 200_000_200, "kind": 3, "min_flt": 6, "maj_flt": 1, "exit_signal": 9, **life}],
            faults=[
                {"ts": T0 + at, "pid": 100, "min_flt": minor, "maj_flt": major, "kind": kind, "region": region, "error": 6, "address": 4096 * at}
                for at, minor, major, kind, region in faults
            ],
            memory=[
                {"ts": T0 + at, "dur": dur, "pid": 100, "kind": kind, "anon": anon, "peak": peak, "mapped": 1 << 20, "reclaimed": kind * 2048}
                for at, dur, kind, anon, peak in samples
            ]
            + [{"ts": T0 + 200_000_100, "pid": 100, "kind": 5, "anon": 8192, "peak": 12288, "mapped": 1 << 20, "actor": 7}],
        )
    )


@pytest.fixture
def event_trace(tmp_path: Path) -> Trace:
    """Return a trace of two tracepoints: a process that waits twice, and two softirqs."""
    import ringtape
    from ringtape.schemas.events import describe_events
    from tests.factory import T0, make
    from tests.tracepoints import SOFTIRQ, WAIT, wait

    return ringtape.open(
        make(
            tmp_path / "events.trace",
            header={"command": ["sh"], "events": describe_events([WAIT, SOFTIRQ])},
            processes=[{"ts": T0, "kind": 2, "pid": 100, "comm": b"sh"}],
            events=[
                {"ts": T0 + 1000, "event": WAIT.id, "pid": 100, "raw": wait(b"sh", 101, 120)},
                {"ts": T0 + 2000, "event": WAIT.id, "pid": 100, "raw": wait(b"sh", 0, 120)},
                {"ts": T0 + 3000, "event": SOFTIRQ.id, "pid": 100, "context": 1, "raw": b"\x01\0\0\0"},
                {"ts": T0 + 4000, "event": SOFTIRQ.id, "pid": 0, "cpu": 1, "context": 1, "raw": b"\x07\0\0\0"},
            ],
        )
    )
