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
            syscalls=[
                {"ts": T0 + 1000, "nr": 257, "pid": 100, "dur": 1000, "ret": 3},
                {"ts": T0 + 2000, "nr": 0, "pid": 100, "dur": 100, "ret": 5},
                {"ts": T0 + 3000, "nr": 0, "pid": 100, "dur": 200, "ret": 5},
                {"ts": T0 + 4000, "nr": 0, "pid": 100, "dur": 300},
                {"ts": T0 + 5000, "nr": 257, "pid": 100, "dur": 2000, "ret": -2},
            ],
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
